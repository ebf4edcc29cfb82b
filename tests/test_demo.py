"""The demo on random weights: everything it promises is written, and its page needs nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest
import soundfile

from tests.tiny_model import make_tiny_model
from uniaudio2.api.model import UniAudio2
from uniaudio2.audio import read_audio
from uniaudio2.cli import execute
from uniaudio2.page import Piece, Record, run_demo
from uniaudio2.page.html import render_page
from uniaudio2.page.own import load_recordings
from uniaudio2.page.scores import same_meaning, words_of


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def report(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "page"
    return run_demo(lambda: UniAudio2.from_pretrained(model_folder, device="cpu"), folder)


def sounds(report, item):
    return [piece for piece in item.pieces if piece.file]


def test_recordings_are_shipped_with_credit():
    table = load_recordings()
    entries = [*table["transcribe"], *table["caption"], table["voice"]]
    assert len(entries) >= 10
    for entry in entries:
        assert 0.1 < read_audio(entry["path"]).shape[-1] / 24000 < 12
        assert entry["expected"]
        assert entry["credit"]
        assert entry["licence"]


def test_every_item_is_written(report):
    sections = {item.section for item in report.items}
    assert sections == {"transcribe", "caption", "speak", "voice", "sound", "codec"}
    for item in report.items:
        assert item.time_s > 0
        for clip in sounds(report, item):
            info = soundfile.info(report.plan.folder / clip.file)
            assert info.subtype == "PCM_16"
            assert (report.plan.folder / clip.picture).read_bytes().startswith(b"\x89PNG")
    assert not list(report.page.parent.glob(".*"))


def test_lengths_survive_the_codec(report):
    for item in report.items:
        if item.section == "codec":
            frames = {soundfile.info(report.plan.folder / clip.file).frames for clip in sounds(report, item)}
            assert len(frames) == 1


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.audio, self.images = [], 0, 0

    def handle_starttag(self, tag, attributes):
        self.audio += tag == "audio"
        self.images += tag == "img"
        self.links += [value for name, value in attributes if name in ("src", "href")]


def test_page_is_self_contained(report):
    text = report.page.read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    clips = sum(len(sounds(report, item)) for item in report.items)
    assert page.audio == page.images == clips
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"url\(|@import|<script |http://|https://", text) and text.count("<script") == 1
    assert len(text) < 3_000_000 and 'lang="zh"' in text and text.count("aria-label=") == clips
    assert "prefers-color-scheme:dark" in text


def test_text_on_the_page_is_escaped(report):
    item = Record("transcribe", "<b>&", pieces=[Piece("ours", "x", text="<script>alert(1)</script>")])
    records = report.shown[0].records
    records.append(item)
    try:
        assert "<script>alert" not in render_page(report)
    finally:
        records.pop()


def test_judging():
    assert words_of("Good morning, how are you?") == "good morning how are you"
    assert same_meaning("a dog barking", "the bark of a dog")
    assert same_meaning("rain falling", "it is raining")
    assert not same_meaning("a dog barking", "a rooster crowing")
    assert not same_meaning("a dog barking", "a dog barking and a person sneezing")
    assert same_meaning("a piano", "notes of a piano") and not same_meaning("a piano", "a violin")
    assert not same_meaning("a dog barking", "a")
    assert not same_meaning("a dog barking", "")


def test_command_prints_a_table_or_json(model_folder, tmp_path, capfd):
    options = ["--model", str(model_folder), "--device", "cpu", "-o", str(tmp_path / "demo")]
    assert execute(["demo", *options, "--json"]) == 0
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {"task", "item", "expected", "got", "time_s", "real_time_factor", "files"} <= set(records[0])
    (tmp_path / "file").write_text("x")
    assert execute(["demo", "-o", str(tmp_path / "file")]) == 1
    assert "is a file" in capfd.readouterr().err
