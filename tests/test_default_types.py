"""Results do not depend on the types and devices that a program has made torch's defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from uniaudio2 import UniAudio2
from uniaudio2.checkpoint import DEFAULT_FOLDER, load_codec


def results() -> dict[str, Any]:
    """Codes, sound, a transcript and spoken codes of the shipped model, loaded and run."""
    model = UniAudio2.from_pretrained(device="cpu")
    wave = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu") * 0.1
    codes = model.encode(wave)
    spoken = model.speak("one two", language="en", seed=3)
    return {
        "codes": codes,
        "sound": model.decode(codes, seed=2),
        "heard": str(model.transcribe(spoken.audio, language="en")),
        "spoken": spoken.audio,
    }


@contextlib.contextmanager
def defaults(name: str) -> Iterator[None]:
    """Another default type, or the meta device in the place of a default device."""
    if name == "meta":
        with torch.device("meta"):
            yield
        return
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def usual() -> dict[str, Any]:
    return results()


@pytest.mark.parametrize("name", ["bfloat16", "float64", "meta"])
def test_results_stay_the_same(name: str, usual: dict[str, Any]) -> None:
    with defaults(name):
        found = results()
    for key, value in usual.items():
        same = torch.equal(value, found[key]) if isinstance(value, Tensor) else value == found[key]
        assert same, key


def test_a_bfloat16_codec_encodes_and_decodes(usual: dict[str, Any]) -> None:
    codec = load_codec(DEFAULT_FOLDER, dtype=torch.bfloat16)
    wave = torch.randn(1, 1, 20_000, generator=torch.Generator().manual_seed(1)) * 0.1
    codes = codec.encode(wave)
    codec.check_codes(codes)
    agree = (codes.reconstruction == usual["codes"].reconstruction).float().mean()
    assert agree > 0.3  # of 512 entries a book
    audio = codec.decode(codes, generator=torch.Generator().manual_seed(0))
    assert audio.dtype == torch.float32 and bool(torch.isfinite(audio).all()) and float(audio.abs().max()) > 0
