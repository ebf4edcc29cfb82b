"""Targets of the sound expert that every waveform carries."""

from __future__ import annotations

import torch

from uniaudio2.train.codec.sound_expert import pitch_and_level


def test_pitch_of_a_tone_and_of_noise() -> None:
    t = torch.arange(24000) / 24000
    low, _ = pitch_and_level(0.3 * torch.sin(2 * torch.pi * 100 * t)[None, None])
    high, level = pitch_and_level(0.3 * torch.sin(2 * torch.pi * 400 * t)[None, None])
    noise, quiet = pitch_and_level(0.001 * torch.randn(1, 1, 24000))
    assert 0 < int(low[0, 10]) < int(high[0, 10])
    assert float((noise == 0).float().mean()) > 0.8
    assert float(level.mean()) > float(quiet.mean())
