"""What is built, kept, and shown when something goes wrong."""

from __future__ import annotations

import json
import os
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
import torch

from tests.page.conftest import ITEMS, SEVEN, Make
from uniaudio2 import UniAudio2
from uniaudio2.audio import read_audio, write_audio
from uniaudio2.cli import execute
from uniaudio2.page import SECTIONS, Item, Site, Sound
from uniaudio2.page.build import model_identity
from uniaudio2.tasks import TASKS


def refuse() -> UniAudio2:
    raise AssertionError("the model was loaded although nothing was to be done")


def text_of(site: Site) -> str:
    return site.page.read_text(encoding="utf-8")


def test_every_task_has_a_section() -> None:
    rows = {section.row for section in SECTIONS} - {None}
    assert rows <= set(TASKS)
    inner = {"reason_to_semantic", "semantic_to_reason", "semantic_copy", "reason_copy", "audio_only", "prompted_song"}
    assert set(TASKS) - rows == inner | {"yue_asr", "yue_tts"}
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)


def test_the_reference_page_comes_first_in_its_order() -> None:
    names = [section.name for section in SECTIONS]
    assert names[:14] == [
        "codec", "speak", "sound", "music", "song", "style", "styled_voice", "edit", "impaired", "scene", "reply_text",
        "shot_denoise", "shot_voice", "shot_sound",
    ]  # fmt: skip
    assert names[14:22] == [
        "caption", "music_caption", "question", "separate", "separate_music", "speakers", "text", "steps",
    ]  # fmt: skip


def test_what_was_given_made_and_right_is_there(site: Site) -> None:
    codec, shot, steps, said, chinese = site.items
    assert [piece.role for piece in codec.pieces] == ["given", "ours", "truth", "peer"]
    assert codec.expected == codec.got.split(",")[0] and codec.right
    assert [piece.role for piece in shot.pieces] == ["given", "shot", "shot", "ours", "truth"]
    assert [piece.name for piece in steps.pieces if piece.role == "ours"] == [f"steps_{n}" for n in (1, 2, 4, 10)]
    lengths = set()
    for piece in (piece for piece in steps.pieces if piece.role == "ours"):
        info = soundfile.info(site.plan.folder / piece.file)
        lengths.add(info.frames)
        assert info.subtype == "PCM_16" and piece.figures["work_s"] > 0 and piece.figures["log_mel_l1"] > 0
        assert (site.plan.folder / piece.picture).read_bytes().startswith(b"\x89PNG")
    assert len(lengths) == 1
    assert said.right is False and said.pieces[-2].figures["words"] == 1
    assert chinese.pieces[-1].text == "零" and chinese.pieces[-1].right
    assert not site.failed and not list(site.plan.folder.rglob(".*"))


def test_other_systems_are_judged_like_ours(site: Site) -> None:
    shown = {one.section.name: one for one in site.shown}
    assert shown["transcribe"].figures("peer", "Other")["char_errors"] == (0.0, 1)
    assert set(shown["codec"].figures("peer", "Other <codec>")) == set(shown["codec"].figures("ours"))
    assert shown["transcribe"].figures("ours", shared=True)["char_errors"][1] == 1


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = dict(attributes)
        self.links += [str(own[name]) for name in ("src", "href") if name in own]
        self.ids += [str(own["id"])] if "id" in own else []
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_from_elsewhere(site: Site) -> None:
    text = text_of(site)
    page = Page(text)
    assert not page.open and len(set(page.ids)) == len(page.ids)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif link != "data:,":
            assert (site.page.parent / link).is_file() and not link.startswith("/")
    assert "http" not in text and "url(" not in text and "@import" not in text
    sounds = sum(link.endswith(".flac") for link in page.links)
    assert sounds == text.count("<audio") == text.count("<img") == text.count('aria-label="')
    assert "Other &lt;codec&gt;" in text and "<somebody>" not in text and "do not publish" in text


def test_the_page_says_what_the_model_has_not_learned(site: Site) -> None:
    text = text_of(site)
    assert "has learned 5 of the 6 sections" in text
    edit = text[text.index('<section id="edit"') :]
    assert "has not learned this (row speech_edit)" in edit and "mixture.weights={speech_edit: 1}" in edit
    speak = text[text.index('<section id="speak"') :]
    assert "no recordings for this" in speak[: speak.index("</section>")]
    assert "WER 12.5 % (a set)" in text and "uniaudio2 page --sections codec -o codec" in text


def test_everything_can_be_in_one_file(make: Make, tmp_path: Path) -> None:
    whole = make(tmp_path / "site", {"codec": ITEMS["codec"]}, sections="codec", single_file=True)
    page = Page(text_of(whole))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert sum(link.startswith("data:audio/mpeg") for link in page.links) == 3


def test_finished_items_are_kept(make: Make, site: Site) -> None:
    again = make(site.plan.folder, load=refuse)
    assert again.to_dicts() == site.to_dicts()


def test_an_interrupted_build_goes_on(make: Make, tmp_path: Path) -> None:
    told: list[str] = []

    def stop(line: str) -> None:
        told.append(line)
        if line.startswith("transcribe"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "site", progress=stop, sections="codec,transcribe")
    assert not (tmp_path / "site" / "index.html").exists()
    told.clear()
    done = make(tmp_path / "site", progress=told.append, sections="codec,transcribe")
    assert len(done.items) == 3 and not [line for line in told if line.startswith("codec")]
    record = next((tmp_path / "site" / "records").glob("transcribe-seven*"))
    record.write_text("{")  # what a crash may leave
    next((tmp_path / "site" / "media").glob("codec-seven-ours*.flac")).unlink()
    told.clear()
    make(tmp_path / "site", progress=told.append, sections="codec,transcribe")
    assert told == ["load the model", "codec: seven", "transcribe: seven", "write the page"]


def test_other_weights_or_options_make_items_anew(make: Make, site: Site, folder: Path) -> None:
    for change in ({"identity": "other"}, {"sampling": {"seed": 3}}, {"fresh": True}):
        with pytest.raises(AssertionError, match="although nothing"):
            make(site.plan.folder, {"codec": ITEMS["codec"]}, load=refuse, sections="codec", **change)
    before = model_identity(folder)
    os.utime(folder / "config.yaml", (1, 1))
    assert model_identity(folder) != before


def test_a_failing_item_is_shown_and_the_others_go_on(make: Make, tmp_path: Path) -> None:
    gone = Item("gone", {"audio": Sound.of(tmp_path / "gone.wav")}, {"transcription": "x"}, language="en")
    done = make(tmp_path / "site", {"transcribe": [gone, *ITEMS["transcribe"]]}, sections="transcribe")
    assert [bool(record.error) for record in done.items] == [True, False, False]
    assert "gone.wav" in done.items[0].error and "\n" not in done.items[0].error
    assert "gone.wav" in text_of(done) and done.to_dicts()[0]["error"] == done.items[0].error
    write_audio(tmp_path / "gone.wav", SEVEN.read())
    assert not make(tmp_path / "site", {"transcribe": [gone]}, sections="transcribe").failed


def test_untrained_rows_are_run_when_asked_for(make: Make, tmp_path: Path) -> None:
    item = Item("seven", {"audio": SEVEN}, language="en")
    assert not make(tmp_path / "a", {"impaired": [item]}, sections="impaired").items
    made = make(tmp_path / "b", {"impaired": [item]}, sections="impaired", untrained=True)
    assert "--untrained" in made.items[0].command and not made.failed


def test_a_codec_alone_has_no_rows(make: Make, tmp_path: Path) -> None:
    made = make(tmp_path / "site", sections="codec,transcribe", codec_alone=True, untrained=True)
    assert [record.section for record in made.items] == ["codec"]
    assert [one.learned for one in made.shown] == [True, False]


def test_commands_give_the_same(site: Site, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    media = site.plan.folder / "media"
    (tmp_path / "media").symlink_to(media)
    monkeypatch.chdir(tmp_path)
    for record in site.items:
        for line in record.command.splitlines():
            code = ["--model", str(folder), "--device", "cpu"]
            assert execute([*shlex.split(line)[1:], *code]) == 0, line
    said = [line.rpartition("\t")[2] for line in capsys.readouterr().out.splitlines()]
    found = [piece.text for record in site.items for piece in record.pieces if piece.role == "ours" and piece.text]
    assert " ".join(found).split() == " ".join(said).split()
    codec = next(piece.file for piece in site.items[0].pieces if piece.role == "ours")
    assert torch.equal(read_audio("codec-seven.wav"), read_audio(site.plan.folder / codec))


def test_records_are_plain(site: Site) -> None:
    for line in map(json.dumps, site.to_dicts()):
        assert {"task", "item", "expected", "got", "time_s", "real_time_factor", "files"} <= set(json.loads(line))
