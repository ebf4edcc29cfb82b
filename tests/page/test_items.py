"""Where items come from: the package, the reference page's tasks, manifests; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from uniaudio2.audio import write_audio
from uniaudio2.cli import execute
from uniaudio2.page import Sound, choose_items, find_sections
from uniaudio2.page.items import Item
from uniaudio2.page.own import own_items
from uniaudio2.tasks import TASKS, required

Wav = Callable[..., Path]


def values(item: Item) -> list[Sound]:
    sides = [item.given, item.truth, item.peers, *(side for shot in item.shots for side in shot)]
    return [value for side in sides for value in side.values() if isinstance(value, Sound)]


def test_own_items_fit_their_rows() -> None:
    sections = {section.name: section for section in find_sections([])}
    items = own_items()
    assert set(items) <= set(sections) and len(items) >= 18
    for name, own in items.items():
        row = TASKS.get(sections[name].row or "")
        for item in own:
            assert all(sound.read().shape[-1] > 0 for sound in values(item))
            if row is not None:
                inputs, outputs = {part.value for part in row.inputs}, {part.value for part in row.outputs}
                assert set(required(row.inputs)) <= set(item.given) <= inputs
                assert {*item.truth, *item.says} <= outputs
                for given, made in item.shots:
                    assert set(required(row.inputs)) <= set(given) and set(made) == outputs


def test_sounds_are_laid_over_each_other(wav: Wav) -> None:
    tone = Sound.of(wav("a.wav", 1.0))
    late = tone + Sound.of(wav("b.wav", 0.5, hz=880)).moved(at_s=1.0, gain_db=-20)
    wave = late.read()
    assert wave.shape == (1, 36000)
    assert torch.equal(wave[:, :24000], tone.read()) and 0 < wave[:, 24000:].abs().max() < 0.06
    assert tone.identity() != late.identity()


TASK_LINES: list[dict[str, Any]] = [
    {"id": "recon/a", "task": "codec_reconstruction", "domain": "music", "gt": "a.flac", "systems": {"mimi": "b.flac"}},
    {"id": "tts/a", "task": "tts", "language": "cmn", "text": "你好", "systems": {"qwen": "b.flac"}},
    {"id": "style/a", "task": "instruct_tts", "language": "en", "text": "hello", "caption": "softly", "systems": {}},
    {"id": "voice/ZH/a", "task": "audio_instructed_tts", "text": "你好", "caption": "伤心", "prompt": "a.flac"},
    {"id": "dsr/a", "task": "dysarthric_asr", "audio": "a.flac", "expected": "one", "systems": {"uniaudio2": "one"}},
    {"id": "few_shot_se/a", "task": "few_shot_denoising", "source1": "a.flac", "target1": "b.flac", "query": "a.flac",
     "expected": "b.flac", "systems": {"mimo": "a.flac"}},
    {"id": "few_shot_vc/a", "task": "few_shot_voice_conversion", "source1": "a.flac", "target1": "b.flac",
     "query": "a.flac", "expected": "b.flac"},
    {"id": "few_shot_sound/a", "task": "few_shot_sound_classification", "source1": "a.flac", "source2": "b.flac",
     "query": "a.flac", "text1": "hand_saw", "text2": "airplane", "expected": "hand_saw", "redistribute": False,
     "systems": {"mimo": "airplane"}},
    {"id": "few_shot_sound/b", "task": "few_shot_sound_classification", "source1": "a.flac", "source2": "b.flac",
     "query": "a.flac", "text1": None, "text2": None, "expected": None},
    {"id": "new/a", "task": "something_new"},
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, tone: Callable[..., torch.Tensor]) -> Path:
    """A data folder with tasks of the reference page."""
    folder = tmp_path / "data" / "seed_demo"
    write_audio(folder / "a.flac", tone(0.4))
    write_audio(folder / "b.flac", tone(0.4, 880.0))
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASK_LINES))
    return folder.parent


def test_the_reference_pages_tasks_become_items(root: Path) -> None:
    chosen = choose_items(find_sections([]), data_root=root, limit=1)
    found = {name: items[0] for name, items in chosen.items() if items and items[0].id in {t["id"] for t in TASK_LINES}}
    assert set(found) == {
        "codec", "speak", "style", "styled_voice", "impaired", "shot_denoise", "shot_voice", "shot_sound",
    }  # fmt: skip
    assert found["codec"].peers.keys() == {"Mimi"} and not found["codec"].speech
    assert found["speak"].language == found["styled_voice"].language == "zh"
    assert found["impaired"].peers == {"UniAudio 2.0, published": "one"}
    assert found["shot_sound"].truth == {"label": "hand saw"} and found["shot_sound"].private
    assert found["shot_sound"].peers == {"MiMo-Audio": "airplane"}
    assert [made["label"] for _, made in found["shot_sound"].shots] == ["hand saw", "airplane"]
    assert not chosen["shot_sound"][1].truth
    for name, item in found.items():
        row = TASKS.get({section.name: section.row for section in find_sections([])}[name] or "")
        assert row is None or set(required(row.inputs)) <= set(item.given)


@pytest.fixture
def corpus(tmp_path: Path, wav: Wav) -> Path:
    """A manifest with held-out examples of a few rows."""
    wav("corpus.wav", 2.0)
    audio = {"path": "corpus.wav", "duration": 0.5}
    later = {**audio, "start": 0.5}
    lines: list[dict[str, Any]] = [
        {"id": "style", "text": "hello", "caption": "softly", "audios": {"plain": audio, "styled": later,
         "reference": audio}, "texts": {"style": "say it softly", "instruction": "softer"}},
        *({"id": f"noisy-{n}", "text": "hello", "language": "en", "audios": {"noisy": audio, "clean": later}}
          for n in range(9)),
        {"id": "two", "language": "en", "audios": {"mixture": audio, "first": audio, "second": later},
         "texts": {"said_first": "one", "said_second": "two"}},
        {"id": "long", "text": "hello", "audios": {"noisy": {**audio, "duration": 60.0}, "clean": later}},
        *({"id": f"{label}-{n}", **audio, "kind": "sound", "label": label, "source": "some"}
          for label in ("rain", "dog_bark") for n in range(2)),
        {"id": "train", "text": "hello", "split": "train", "audios": {"noisy": audio, "clean": later}},
    ]  # fmt: skip
    lines = [{"split": "dev", "kind": "speech", **line} for line in lines]
    file = tmp_path / "manifest.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_held_out_examples_become_items(corpus: Path) -> None:
    chosen = choose_items(find_sections([]), manifests=[corpus], limit=3)
    ids = {name: [item.id for item in items] for name, items in chosen.items()}
    assert ids["style"][0] == ids["styled_voice"][0] == ids["edit"][0] == "style"
    assert ids["denoise"] == ["noisy-1", "noisy-4", "denoise_1"]  # evenly over the list, then the package's own
    assert chosen["denoise"][0].says == {"target": "hello"}
    first = chosen["shot_denoise"][0]
    assert first.shots and first.shots[0][0].keys() == {"source"} and first.shots[0][1].keys() == {"target"}
    assert chosen["separate"][0].says == {"first": "one", "second": "two"}
    asked = chosen["shot_sound"][0]
    assert {made["label"] for _, made in asked.shots} == {"rain", "dog bark"} and asked.truth == {"label": "rain"}
    assert "long" not in str(ids) and "train" not in str(ids["denoise"])


def test_mistakes_are_one_line(
    tmp_path: Path, corpus: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a"\n')
    (tmp_path / "file").write_text("x")
    (root / "seed_demo" / "tasks.jsonl").write_text('{"id": "a", "task": "tts"}\n')
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for words, message in {
        "--sections speek": "did you mean speak",
        "--data broken.jsonl": "broken.jsonl:1: not JSON",
        "--data gone.jsonl": "gone.jsonl: no such manifest",
        "--data-root data": "tasks.jsonl:1: no task of the reference page (field 'text' is missing)",
        "--data-root empty": "empty/seed_demo/tasks.jsonl: no such file",
        "--data-root gone": "no data folder at gone",
        "--model gone": "--model gone: no such folder",
        "-o file": "file: is a file",
        "-o file/below": "file/below: cannot be made",
    }.items():
        assert execute(["page", *words.split()]) == 1, words
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1, error
    assert execute(["page", "--limit", "0"]) == 2
    capsys.readouterr()
    assert execute(["page", "--sections", "list"]) == 0
    assert "shot_sound\tclassify\t" in capsys.readouterr().out
    assert not (tmp_path / "site").exists()
