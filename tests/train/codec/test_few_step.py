"""The few-step decoder: where it starts, what its steps learn, guidance in one evaluation, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from torch import Tensor

from tests.train.codec.toy import config as stage_config
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.dit import DiTConfig
from uniaudio2.codec.few_step import FewStepConfig, FewStepDecoder
from uniaudio2.codec.flow_matching import FlowConfig, FlowDecoder
from uniaudio2.config import load_config, preset_path
from uniaudio2.errors import UserError
from uniaudio2.train.codec import load_parts
from uniaudio2.train.stages import run_stage

DIT = DiTConfig(width=32, num_layers=2, num_heads=2, num_time_features=32)
SIZES = {"latent_dim": 2, "condition_dim": 4}


def decoder(**values: object) -> FewStepDecoder:
    torch.manual_seed(0)
    return FewStepDecoder(FewStepConfig(**values), DIT, **SIZES)  # pyright: ignore[reportArgumentType]


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def test_it_starts_as_the_flow_decoder() -> None:
    plain, few = randomised(FlowDecoder(FlowConfig(), DIT, **SIZES)), decoder()
    missing = few.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and all("_embedding." in key for key in missing.missing_keys)
    condition, noise = torch.randn(2, 6, 4), torch.randn(2, 6, 2)
    for steps in (1, 4, 16):
        for scale in (1.0, 2.5) if steps > few.config.most_steps else (1.0,):
            a, b = (
                each.sample(condition, noise=noise, steps=steps, guidance_scale=scale)  # pyright: ignore
                for each in (plain, few)
            )
            assert torch.allclose(a, b, atol=1e-5), (steps, scale)


class Exact(torch.nn.Module):
    """Mean velocities of a path between Gaussians, known in closed form; with the condition they spread less.

    Latents of deviation s lie at a(t) = sqrt((1 - t)^2 + (s t)^2) times the noise; guidance mixes the logarithms.
    """

    blind = False  # to the length of a step: always the velocity

    def spread(self, t: Tensor, scale: Tensor | float) -> Tensor:
        given, nothing = (((1 - t) ** 2 + (s * t) ** 2).log() / 2 for s in (0.5, 1.5))
        return scale * given + (1 - scale) * nothing

    def slope(self, t: Tensor, scale: Tensor | float) -> Tensor:
        return torch.func.jvp(lambda t: self.spread(t, scale), (t,), (torch.ones_like(t),))[1]

    def forward(self, x: Tensor, t: Tensor, step: Tensor | None = None, guidance: Tensor | None = None) -> Tensor:
        step, guidance = (torch.zeros_like(t) if value is None else value for value in (step, guidance))
        scale = torch.where(x[:, 0, -1] != 0, 1 + guidance, 0.0)
        safe = torch.where(step > 0, step, 1.0)
        whole = (self.spread(t + safe, scale) - self.spread(t, scale)).exp() - 1
        mean = torch.where((step > 0) & (not self.blind), whole / safe, self.slope(t, scale))
        return x[..., :2] * mean[:, None, None]


@pytest.mark.parametrize("objective", ["consistency", "mean_flow"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_true_steps_have_no_error(objective: Literal["consistency", "mean_flow"], scale: float) -> None:
    few = decoder(objective=objective, sigma_min=0.0)
    few.dit = exact = Exact()  # pyright: ignore[reportAttributeAccessIssue]
    t, length = (torch.tensor(v, dtype=torch.float64) for v in ([0.0, 0, 0.5, 0.25, 0.4], [1.0, 0.5, 0.5, 0.25, 0]))
    noise = torch.randn(5, 3, 2, dtype=torch.float64)
    # The latents whose straight way from the noise has the true velocity at t, so that nothing is left to chance.
    slope = exact.slope(t, 1.0)
    target = noise * ((1 + slope * (1 - t)) / (1 - slope * t))[:, None, None]
    times = torch.stack([t, length, torch.where(length > 0, scale, 1.0), torch.ones_like(t)], dim=1)
    known, condition = torch.zeros_like(noise), torch.ones(5, 3, 4, dtype=torch.float64)
    assert few.errors(target, noise, times, known, condition).max() < 1e-8
    made = few.sample(condition.float(), noise=noise.float(), steps=1, guidance_scale=scale)
    many = few.sample(condition.float(), noise=noise.float(), steps=256, guidance_scale=scale)
    assert torch.allclose(made, many, atol=0.02)
    exact.blind = True
    assert few.errors(target, noise, times, known, condition)[:4].amax((1, 2)).min() > 1e-3


def test_guidance_takes_no_second_evaluation() -> None:
    few = randomised(decoder())
    assert isinstance(few, FewStepDecoder)
    rows: list[int] = []
    few.dit.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    condition, noise = torch.randn(3, 6, 4), torch.randn(3, 6, 2)

    def sample(steps: int, scale: float) -> Tensor:
        return few.sample(condition, noise=noise, steps=steps, guidance_scale=scale)

    assert not torch.allclose(sample(2, 1.0), sample(2, 3.0)) and rows == [3, 3, 3, 3]
    rows.clear()
    sample(16, 3.0)
    assert rows == [6] * 16


@pytest.mark.parametrize("objective", ["consistency", "mean_flow"])
def test_frames_in_context_have_no_loss_and_come_back(objective: Literal["consistency", "mean_flow"]) -> None:
    few = randomised(decoder(objective=objective, context_probability=1.0, latent_scale=2.0))
    assert isinstance(few, FewStepDecoder)
    context = torch.randn(2, 3, 2)
    made = few.sample(torch.randn(2, 6, 4), context=context, steps=2, guidance_scale=2.0)
    assert torch.allclose(made[:, :3], context, atol=1e-6)
    few.eval()
    latents, condition, whole = torch.randn(2, 6, 2), torch.randn(2, 6, 4), torch.tensor([6, 6])
    losses = [
        float(few.loss(latents, condition, context_length=length, generator=torch.Generator().manual_seed(0)).detach())
        for length in (whole, torch.tensor([3, 3]))
    ]
    assert losses[0] == 0 and losses[1] > 0


def test_odd_steps_and_settings_are_refused() -> None:
    few = decoder()
    with pytest.raises(UserError, match=r"takes 1, 2, 4, … steps, or more than 8; got 3"):
        few.sample(torch.zeros(1, 2, 4), steps=3)
    with pytest.raises(UserError, match="unknown solver 'midpoint'"):
        few.sample(torch.zeros(1, 2, 4), steps=2, solver="midpoint")
    for scale in (0.5, 4.0):
        with pytest.raises(UserError, match=r"know guidance from 1 to 3, got .*or take more than 8 steps"):
            few.sample(torch.zeros(1, 2, 4), steps=2, guidance_scale=scale)
    bad: list[tuple[dict[str, object], str]] = [
        ({"objective": "magic"}, "consistency or mean_flow"),
        ({"jump_share": 1.0}, "between 0 and 1"),
        ({"most_steps": 6}, "must be 1, 2, 4, 8"),
        ({"max_guidance": 0.5}, "at least 1"),
        ({"least_noise": 2.0}, r"least_noise of the decoder must be in \[0, 1\]"),
    ]
    for values, message in bad:
        with pytest.raises(UserError, match=message):
            FewStepConfig(**values)  # pyright: ignore[reportArgumentType]


def test_the_published_size_takes_steps_too() -> None:
    """The published network with a step and a guidance beside the time, small enough to run."""
    values = load_config(CodecConfig, preset_path("codec", "published")).decoder.config
    flow = FewStepConfig(latent_scale=values.get("flow", {}).get("latent_scale", 1.0))
    network = replace(load_config(DiTConfig, values["dit"]), width=64, num_layers=2, num_heads=1)
    few = FewStepDecoder(flow, network, **SIZES)
    loss = few.loss(torch.randn(2, 4, 2), torch.randn(2, 4, 4))
    loss.backward()
    assert few.dit.step_embedding is not None
    assert few.dit.step_embedding.output.weight.grad is not None
    assert few.sample(torch.randn(2, 4, 4), steps=2).shape == (2, 4, 2)


def test_a_stage_trains_it(corpus: Path, tmp_path: Path) -> None:
    preset = tmp_path / "codec.yaml"
    dit = {"width": 16, "num_layers": 1, "num_heads": 2, "num_time_features": 16}
    values = {"base": str(preset_path("codec", "tiny")), "decoder": {"name": "few_step", "config": {"dit": dit}}}
    preset.write_text(yaml.safe_dump(values))
    stage = stage_config("reconstruction", corpus, tmp_path, train={"steps": 3}, freeze_codes=True)
    run_stage(replace(stage, codec=str(preset)), log=lambda line: None)
    codec = ReasoningCodec(load_config(CodecConfig, preset)).eval()
    load_parts(codec, [tmp_path / "reconstruction" / "export" / "reconstruction.safetensors"])
    assert isinstance(codec.decoder, FewStepDecoder) and codec.decoder.dit.step_embedding is not None
    assert bool(codec.decoder.dit.step_embedding.output.weight.any())  # it starts at zero
    audio = torch.randn(1, 1, 24000) * 0.1
    assert codec.decode(codec.encode(audio), steps=2, guidance_scale=3.0).shape == audio.shape
