"""Draws: what filters keep, cold temperatures, other precisions, guidance."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.engine import GenerationError, SamplingConfig
from uniaudio2.engine.sampling import Sampler, cumulative_dtype, filter_probabilities, guide


def draw(logits: torch.Tensor, *configs: SamplingConfig, uniform: torch.Tensor | None = None) -> torch.Tensor:
    numbers = torch.rand(len(configs), generator=torch.Generator().manual_seed(1)) if uniform is None else uniform
    return Sampler.of(configs, "cpu").draw(logits, numbers)


def test_guidance_formula() -> None:
    logits = torch.randn(3, 5)
    guided = guide(logits, torch.tensor([2, 1]), torch.tensor([3.0, 1.0]), 2)
    assert torch.allclose(guided[0], logits[2] + 3.0 * (logits[0] - logits[2]))
    assert torch.equal(guided[1], logits[1])


def test_top_p_keeps_the_likeliest() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = filter_probabilities(logits, torch.ones(1), None, torch.tensor([0.7])) > 0
    assert kept.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("temperature", [1e-40, 5e-324, -1.0, 9e-4, 101.0, float("nan")])
def test_temperatures_that_say_nothing_are_refused(temperature: float) -> None:
    with pytest.raises(GenerationError, match=r"temperature must be 0 .* or in \[0.001, 100\]"):
        SamplingConfig(temperature=temperature)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30])
def test_cold_draws_take_the_likeliest(temperature: float) -> None:
    logits = 1e4 * torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    logits[:, :3] = -torch.inf
    probabilities = filter_probabilities(logits, torch.full((50,), temperature), None, None)
    assert probabilities.isfinite().all() and torch.equal(probabilities.argmax(-1), logits.argmax(-1))
    assert torch.equal(draw(logits, *[SamplingConfig(temperature=1e-3)] * 50), logits.argmax(-1))


def test_float32_serves_where_there_is_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cumulative_dtype(torch.device("mps")) == torch.float32
    assert cumulative_dtype(torch.device("cpu")) == cumulative_dtype(torch.device("cuda")) == torch.float64
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 700, generator=generator)
    logits[:, 650:] = -torch.inf
    uniform = torch.rand(400, generator=generator)
    uniform[:200] = 1 - 2**-24  # the largest number that can be drawn
    configs = [SamplingConfig(temperature=2.0)] * 400
    wide = draw(logits, *configs, uniform=uniform)
    monkeypatch.setattr("uniaudio2.engine.sampling.cumulative_dtype", lambda device: torch.float32)
    narrow = draw(logits, *configs, uniform=uniform)
    assert int(narrow.max()) < 650 and (wide == narrow)[200:].float().mean() > 0.99


def test_a_row_is_drawn_as_it_would_be_alone() -> None:
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(2))
    configs = [
        SamplingConfig(),
        SamplingConfig(temperature=0.0),
        SamplingConfig(top_k=4),
        SamplingConfig(temperature=3.0, top_p=0.6),
    ]
    for seed in range(20):
        uniform = torch.rand(4, generator=torch.Generator().manual_seed(seed))
        alone = [draw(logits[i : i + 1], configs[i], uniform=uniform[i : i + 1]).item() for i in range(4)]
        assert draw(logits, *configs, uniform=uniform).tolist() == alone
