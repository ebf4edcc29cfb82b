"""Sounds, and models that are tuned otherwise, for the tests of this folder."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from uniaudio2 import UniAudio2
from uniaudio2.audio import SAMPLE_RATE


def noise(seconds: float, seed: int = 0) -> Tensor:
    """A waveform (1, N) of noise."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE), generator=generator)


def tune(monkeypatch: pytest.MonkeyPatch, model: UniAudio2, **settings: object) -> None:
    """Change the section ``generation`` of a model."""
    facts = replace(model.facts, generation=replace(model.facts.generation, **settings))
    monkeypatch.setattr(model, "facts", facts)
