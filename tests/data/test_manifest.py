"""Manifest lines, their errors, and the check of a manifest against its audio."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uniaudio2.cli import execute
from uniaudio2.data.corpus import Corpus
from uniaudio2.data.example import Recording, Turn
from uniaudio2.data.manifest import (
    Example,
    ManifestError,
    add_phonemes,
    as_spoken,
    read_manifest,
    validate,
    write_manifest,
)


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
        ('{"id": "b", "path": "b.wav", "duration": NaN}', "positive"),
        ('{"id": "b", "path": "b.wav", "duration": 1' + 400 * "0" + "}", "positive"),
        ('{"id": "b", "audios": {}}', "'audios' must be an object with names"),
        ('{"id": "b", "audios": {"noisy": {"path": "b.wav"}}}', "audios.noisy: field 'duration' is missing"),
        ('{"id": "b", "audios": {"no isy": {"path": "b.wav", "duration": 1}}}', "names of audios and texts are words"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "audios": {"audio": {"path": "c.wav", "duration": 1}}}', "twice"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "texts": {"question": 5}}', "'question' must be a string"),
        ('{"id": "b", "path": "b.wav", "duration": 1, "text": "x", "texts": {"text": "y"}}', "field of its own"),
        (
            '{"id": "b", "path": "b.wav", "duration": 1, "turns": [{"start": 2, "end": 1}]}',
            r"turns\[0\]: a turn must",
        ),
    ],
)
def test_wrong_lines_are_named_by_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "path": "a.wav", "duration": 1}\n' + line + "\n")
    with pytest.raises(ManifestError, match=rf"manifest\.jsonl:2: .*{message}"):
        read_manifest(tmp_path)


def test_lines_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    line = json.dumps({"id": "a", "path": "a.wav", "duration": 1, "text": "caf\u00e9"}, ensure_ascii=False)
    (tmp_path / "manifest.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\n" + line.encode("latin-1") + b"\n")
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:2: not UTF-8"):
        read_manifest(tmp_path)


def test_a_line_holds_named_audios_texts_and_turns(tmp_path: Path) -> None:
    for number, name in enumerate(("noisy.wav", "clean.wav")):
        soundfile.write(tmp_path / name, np.full(24000 * (2 + number), 0.25 * (1 + number)), 24000)
    line = {
        "id": "a",
        "texts": {"text": "hello", "question": "who", "answer": "me"},
        "audios": {
            "noisy": {"path": "noisy.wav", "duration": 1.5},
            "clean": {"path": "clean.wav", "duration": 1, "start": 0.5},
        },
        "turns": [{"start": 0.5, "end": 1.2, "speaker": "b"}, {"start": 0, "end": 1, "speaker": "a", "text": "hello"}],
    }
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    (found,) = read_manifest(tmp_path)
    assert found.recordings == {"noisy": Recording("noisy.wav", 1.5), "clean": Recording("clean.wav", 1.0, 0.5)}
    assert (found.text, dict(found.texts)) == ("hello", {"question": "who", "answer": "me"})
    assert found.turns == (Turn(0.0, 1.0, "hello", "a"), Turn(0.5, 1.2, speaker="b"))
    assert found.duration == 1.5 and found.file == tmp_path / "noisy.wav"
    assert found.audio().shape == (1, 36000) and found.audio(name="clean").shape == (1, 24000)
    assert float(Corpus(tmp_path).wave(0, "clean").mean()) == pytest.approx(0.5, abs=1e-3)
    assert validate(tmp_path).problems == []
    write_manifest(tmp_path / "again.jsonl", [found])
    assert read_manifest(tmp_path / "again.jsonl") == [found]
    late = {
        **line,
        "turns": [{"start": 0, "end": 2}],
        "audios": {**line["audios"], "third": {"path": "x", "duration": 1}},
    }
    (tmp_path / "manifest.jsonl").write_text(json.dumps(late) + "\n")
    problems = " | ".join(validate(tmp_path).problems)
    assert re.search(r"a: .*x is missing.*a: a turn ends at 2.00 s, its audio is 1.50 s long", problems), problems


def test_validate_names_every_wrong_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(24000), 24000)
    lines = ["{", '{"id": "a", "path": "a.wav", "duration": 1}', '{"id": "b"}', "[]"]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    report = validate(tmp_path)
    assert report.num_examples == 1
    assert [problem.rpartition("manifest.jsonl:")[2][:2] for problem in report.problems] == ["1:", "3:", "4:"]
    assert execute(["data", "validate", str(tmp_path)]) == 1
    assert "manifest.jsonl:3: field 'path' is missing" in capfd.readouterr().out


def test_phones_are_written_where_they_are_missing(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "path": "a.wav", "duration": 1.0, "text": "Hi 5", "language": "en", "own key": [1]},
        {"id": "b", "path": "b.wav", "duration": 1.0, "text": "hi", "language": "en", "phonemes": "as before"},
        {"id": "c", "path": "c.wav", "duration": 1.0, "text": "hi"},
        {"id": "d", "path": "d.wav", "duration": 1.0, "kind": "sound", "caption": "a bell"},
    ]
    file = tmp_path / "manifest.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert add_phonemes(tmp_path, lambda text, language: " ".join(text.replace(" ", ""))) == (1, ["c"])
    after = [json.loads(line) for line in file.read_text().splitlines()]
    assert after == [{**lines[0], "phonemes": "h i f i v e"}, *lines[1:]]


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


def test_transcripts_as_they_are_spoken() -> None:
    assert as_spoken(example(text="It's 5 pm, Mr. Smith!")).text == "it's five pm mister smith"
    assert as_spoken(example(text="今天5点。", language="zh")).text == "今天五点"
    for same in (example(text=None), example(text="…"), example(text="Bonjour!", language=None)):
        assert as_spoken(same) == same
    assert as_spoken(example(kind="sound", caption="A dog.", text=None)).caption == "A dog."
