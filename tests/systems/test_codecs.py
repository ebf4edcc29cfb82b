"""The codecs of transformers on small random weights: end to end, at the right bit rate, each clip as if alone."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from uniaudio2.errors import CheckpointError
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


def test_snac_has_a_stream_for_each_level(weights):
    system = load(weights, "snac")
    assert [(s.name, s.hop_length, s.num_codebooks) for s in system.streams] == [
        ("level_0", 2048, 1), ("level_1", 1024, 1), ("level_2", 512, 1),
    ]  # fmt: skip
    assert system.bit_rate == pytest.approx(24000 / 2048 * 12 * 7)  # .98 kbit/s, as its makers say
    waves = clips(24000)
    codes = system.encode(waves)
    decoded = system.decode(codes)
    for wave, own, back in zip(waves, codes, decoded, strict=True):
        frames = -(-wave.shape[1] // 2048)
        assert [own[s.name].shape for s in system.streams] == [(1, 1, frames * times) for times in (1, 2, 4)]
        assert back.shape == wave.shape and bool(torch.isfinite(back).all())
        alone = system.encode([wave])[0]
        assert alone == own and torch.equal(system.decode([alone])[0], back)
    noisy = load(weights, "snac", "@seed=1")
    before = torch.random.get_rng_state()
    other = noisy.decode(codes[:1])[0]
    assert not torch.equal(other, decoded[0]), "the noise of its decoder is drawn by the seed"
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(codes[0]["level_2"].unique()) > 1


def test_snac_reads_no_other_pickle(weights, tmp_path):
    folder = weights("snac")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    for content in (b"", b"cos\nsystem\n(S'true'\ntR."):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match="not the weights of SNAC 24 kHz"):
            load_system(parse_systems(f"snac@weights={tmp_path}")[0])
