"""The codecs of transformers on small random weights: end to end, at the right bit rate, each clip as if alone."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from uniaudio2.systems import load_system, parse_systems

# name, settings, sample rate, samples a frame, codebooks, bits a second
ROWS = [
    ("encodec", "@kbps=1.5", 24000, 320, 2, 1500),
    ("encodec", "@kbps=6", 24000, 320, 8, 6000),
    ("mimi", "", 24000, 1920, 8, 1100),
    ("dac", "@codebooks=4", 24000, 320, 4, 3000),
    ("xcodec", "", 16000, 320, 4, 2000),
    ("higgs", "", 24000, 960, 8, 2000),
]


def load(weights, name, settings=""):
    if name == "higgs" and importlib.util.find_spec("torchaudio") is None:
        pytest.skip("the Higgs tokenizer of transformers needs torchaudio")
    return load_system(parse_systems(f"{name}@weights={weights(name)}{settings}")[0])


def clips(rate):
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(1, n, generator=generator) for n in (rate // 2 + 123, rate // 3, rate // 2 + 45)]


@pytest.mark.parametrize(("name", "settings", "rate", "hop", "books", "bits"), ROWS)
def test_codes_and_back(weights, name, settings, rate, hop, books, bits):
    system = load(weights, name, settings)
    assert system.sample_rate == rate and system.bit_rate == bits
    waves = clips(rate)
    codes = system.encode(waves)
    decoded = system.decode(codes)
    for wave, own, back in zip(waves, codes, decoded, strict=True):
        assert own["codes"].shape == (1, books, -(-wave.shape[1] // hop))
        assert back.shape == wave.shape and bool(torch.isfinite(back).all())
        alone = system.encode([wave])[0]
        assert alone == own
        torch.testing.assert_close(system.decode([alone])[0], back, rtol=1e-4, atol=1e-5)
    assert len(codes[0]["codes"].unique()) > 1, "the codes say nothing of the audio"
