"""Voices that come with a model: listed, asked for by name, and what is wrong with an index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.api.support import noise
from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.audio import write_audio
from uniaudio2.cli.app import execute
from uniaudio2.errors import CheckpointError, UserError
from uniaudio2.storage.folder import DEFAULT_FOLDER
from uniaudio2.storage.voices import read_voices


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    (path / "voices").mkdir()
    for seed, name in enumerate(("ann", "bo")):
        write_audio(str(path / "voices" / f"{name}.wav"), noise(2.0, seed))
    (path / "voices" / "voices.yaml").write_text(
        "ann: {file: ann.wav, language: en, gender: female, about: calm, licence: CC0-1.0}\n"
        "bo: {file: bo.wav, language: zh}\n"
    )
    return path


def test_a_voice_is_asked_for_by_name(folder: Path) -> None:
    model = UniAudio2.from_pretrained(folder, device="cpu")
    assert list(model.voices) == ["ann", "bo"] and model.voices["ann"].gender == "female"
    named = model.speak("hello", voice="ann", seed=1).audio
    assert torch.equal(named, model.speak("hello", voice=model.voices["ann"].recording, seed=1).audio)
    other = model.speak("hello", voice="bo", seed=1).audio
    assert named.shape != other.shape or not torch.equal(named, other)
    with pytest.raises(UserError, match="carl: neither a file nor a voice of tiny; its voices are ann, bo"):
        model.speak("hello", voice="carl")


def test_voices_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["voices", "--model", str(folder)]) == 0
    assert capsys.readouterr().out == "ann\ten\tfemale\tcalm\nbo\tzh\tunknown\t\n"
    assert execute(["voices", "--model", str(folder), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["name"], first["licence"]) == ("ann", "CC0-1.0") and Path(first["recording"]).is_file()


def test_an_unknown_voice_is_found_out_before_the_model_loads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["speak", "hi", "-o", "x.wav", "--voice", "carl", "--model", str(folder)]) != 0
    assert "`uniaudio2 voices` lists them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("ann: {file: none.wav, language: en}", "ann: there is no none.wav beside it"),
        ("ann: {file: ann.wav, language: en, colour: red}", "colour"),
        ("ann: 3", "ann"),
        ("- ann", "voices.yaml"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "voices").mkdir()
    write_audio(str(tmp_path / "voices" / "ann.wav"), noise(0.5))
    (tmp_path / "voices" / "voices.yaml").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        read_voices(tmp_path)


def test_the_shipped_voices_are_short_and_licensed() -> None:
    assert read_voices(None) == {}
    for voice in read_voices(DEFAULT_FOLDER).values():
        assert voice.licence and voice.language in ("en", "zh", "yue")
        assert voice.recording.stat().st_size < 60_000
