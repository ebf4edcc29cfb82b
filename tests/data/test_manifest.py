"""Manifest lines, their errors, and the check of a manifest against its audio."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uniaudio2.data.manifest import Example, ManifestError, read_manifest, validate, write_manifest


def example(**changes: object) -> Example:
    values: dict[str, object] = {"id": "a", "path": "a.wav", "duration": 1.0, "text": "hello there", "language": "en"}
    return Example(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_round_trip_keeps_every_field(tmp_path: Path) -> None:
    full = example(
        start=0.5,
        split="dev",
        kind="sound",
        phonemes="h ə l oʊ",
        speaker="s",
        label="rain and wind",
        labels=("rain", "wind"),
        caption="rain and wind",
        captions=("wind and rain",),
        engine="mixture",
        licence="CC0-1.0",
        attribution="someone",
        source="synth",
    )
    plain = Example("b", "b.wav", 2.0)
    write_manifest(tmp_path / "manifest.jsonl", [full, plain])
    assert read_manifest(tmp_path) == [full, plain]
    assert read_manifest(tmp_path, split="dev") == [full]
    assert read_manifest(tmp_path)[0].file == tmp_path / "a.wav"
    assert json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[1]) == {
        "id": "b",
        "path": "b.wav",
        "duration": 2.0,
        "split": "train",
        "kind": "speech",
    }


def test_cmn_is_read_as_zh_and_unknown_keys_are_ignored(tmp_path: Path) -> None:
    line = {"id": "a", "path": "a.wav", "duration": 1, "language": "cmn", "source_sr": 8000, "text": None}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n\n")
    assert read_manifest(tmp_path)[0].language == "zh"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        ('{"id": "b", "path": "b.wav"}', "'duration' is missing"),
        ('{"id": "b", "path": "b.wav", "duration": "1"}', "number of seconds"),
        ('{"id": "b", "path": "b.wav", "duration": -1}', "positive"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "start": -2}', "start"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "language": "he"}', "language must be one of"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "kind": "noise"}', "kind must be one of"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "text": 5}', "must be a string"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "labels": "x"}', "list of strings"),
        ('{"id": "a", "path": "b.wav", "duration": 1}', "was used in line 1"),
    ],
)
def test_wrong_lines_are_named_by_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "path": "a.wav", "duration": 1}\n' + line + "\n")
    with pytest.raises(ManifestError, match=rf"manifest\.jsonl:2: .*{message}"):
        read_manifest(tmp_path)


def test_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="data synth"):
        read_manifest(tmp_path)


def test_validate_finds_missing_short_leaking_and_unlabelled_clips(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(24000), 24000)
    long = "a sentence of more than twenty characters"
    good = example(text=long, engine="flite")
    write_manifest(tmp_path / "good.jsonl", [good])
    report = validate(tmp_path / "good.jsonl")
    assert report.problems == [] and report.num_examples == 1
    assert report.counts == {("train", "speech", "en"): 1}
    assert report.hours["train"] == pytest.approx(1 / 3600)
    write_manifest(
        tmp_path / "bad.jsonl",
        [
            good,
            example(id="b", path="missing.wav"),
            example(id="c", start=0.5),
            example(id="d", text=long, engine="flite", split="dev"),
            example(id="e", kind="sound", text=None),
        ],
    )
    problems = " | ".join(validate(tmp_path / "bad.jsonl").problems)
    for expected in ("b: .*missing", "c: clip ends at 1.50", "both in train and in dev", "e: a sound without"):
        assert re.search(expected, problems), (expected, problems)
