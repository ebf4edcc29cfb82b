"""Decoders: from quantised vectors to autoencoder latents, with the objective apart from the sampler.

`LatentDecoder` owns what all of them share: the condition, its dropout for guidance, in-context frames, padding, and
noise. A new few-step decoder is one file: a class below it that says how wrong the network is at a drawn time
(``errors``) and how latents are made of noise (``integrate``), registered in `DECODERS`.

Shapes: B batch, T latent frames (25 Hz), C latent channels, D channels of the condition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from uniaudio2.errors import UserError

Solver = Literal["euler", "midpoint"]
Hold = Callable[[Tensor, float], Tensor]
"""Puts the in-context frames of x (B, T, C) where they belong at time t, and gives x."""


@dataclass(frozen=True, kw_only=True)
class LatentDecoderConfig:
    """What every decoder is told about its condition and its training."""

    frames_per_code: int = 2  # latent frames per reconstruction code
    latent_scale: float = 1.0  # latents are multiplied by this inside; 1 in the published weights
    condition_dropout: float = 0.1  # share of examples trained without condition, for guidance
    context_probability: float = 0.5  # share of examples trained with an in-context prefix
    max_context_fraction: float = 0.5  # longest such prefix, as a fraction of the example

    def __post_init__(self) -> None:
        if self.frames_per_code < 1 or self.latent_scale <= 0:
            raise UserError("frames_per_code and latent_scale of the decoder must be positive")
        for name in ("condition_dropout", "context_probability", "max_context_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} of the decoder must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class SamplingDefaults:
    """What decoding does unless told otherwise."""

    steps: int = 10  # of the sampler
    guidance_scale: float = 1.5  # 1 is no guidance
    solver: Solver = "euler"
    noise_scale: float = 1.0  # of the initial noise; below 1 the result moves from a sample towards the mean
    with_reasoning: bool = False  # whether the reasoning vectors are added to the reconstruction vectors

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if not 0 <= self.noise_scale < math.inf:
            raise UserError(f"noise_scale must be a number of at least 0, got {self.noise_scale}")
        if not math.isfinite(self.guidance_scale):
            raise UserError(f"guidance_scale must be a finite number, got {self.guidance_scale}")


class LatentDecoder(nn.Module, ABC):
    """Base of all decoders.

    Args:
        config: Of the condition and the training.
        latent_dim: C, channels of the autoencoder's latents.
        condition_dim: D, channels of the quantised vectors.
    """

    solvers: tuple[str, ...] = ("euler",)  # that ``integrate`` knows

    def __init__(self, config: LatentDecoderConfig, *, latent_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = latent_dim
        self.condition_dim = condition_dim
        self.condition_projection = nn.Linear(condition_dim, condition_dim)
        self.empty_condition = nn.Parameter(torch.zeros(condition_dim))

    # What a decoder is

    @abstractmethod
    def draw_times(self, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Times at which the objective is taken, (B, ...)."""

    @abstractmethod
    def errors(self, target: Tensor, noise: Tensor, times: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """How wrong the network is, frame by frame.

        Args:
            target: Scaled latents, (B, T, C).
            noise: Of the same shape.
            times: What ``draw_times`` gave.
            known: The scaled latents of the in-context frames, zero elsewhere, (B, T, C).
            condition: (B, T, D), zero where it is dropped.

        Returns:
            Squared errors (B, T, C), float32.
        """

    @abstractmethod
    def integrate(
        self,
        noise: Tensor,
        known: Tensor,
        condition: Tensor,
        hold_context: Hold,
        *,
        steps: int,
        guidance_scale: float,
        solver: Solver,
    ) -> Tensor:
        """Scaled latents (B, T, C) from noise; shapes as for ``errors``."""

    @abstractmethod
    def context_at(self, noise: Tensor, known: Tensor, t: float) -> Tensor:
        """Where in-context frames are at time t of sampling, from 0 (noise) to 1 (latents)."""

    # What all decoders share

    def condition(self, quantized: Tensor) -> Tensor:
        """Project quantised vectors (B, T_rec, D) at 12.5 Hz to the condition (B, T, D) at 25 Hz."""
        return self.condition_projection(quantized).repeat_interleave(self.config.frames_per_code, dim=1)

    def loss(
        self,
        latents: Tensor,
        condition: Tensor,
        *,
        context_length: Tensor | None = None,
        num_frames: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean squared error of the objective, in-context and padding frames excluded.

        In training mode, conditions are dropped (set to zero, as guidance does) and in-context prefixes drawn; in
        evaluation mode neither happens, only time and noise are drawn.

        Args:
            latents: Target latents, (B, T, C).
            condition: As `condition` returns it, (B, T, D).
            context_length: In-context frames of each example (B,); drawn at random in training mode if None.
            num_frames: Valid frames of each example, (B,); frames beyond get the empty condition and have no loss.
            generator: Source of all randomness; the global one of the CPU if None.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not agree.
        """
        batch, frames, _ = latents.shape
        self._check_condition(condition, batch, frames)
        device = latents.device
        target = latents * self.config.latent_scale
        times = self.draw_times(batch, generator, device)
        noise = draw_noise(target.shape, generator, device, target.dtype)
        if num_frames is None:
            num_frames = torch.full((batch,), frames, device=device)
        if context_length is None:
            context_length = self._draw_context_length(num_frames.to(device), generator)
        if self.training and self.config.condition_dropout > 0:
            keep = draw_uniform((batch,), generator, device) >= self.config.condition_dropout
        else:
            keep = torch.ones(batch, dtype=torch.bool, device=device)

        index = torch.arange(frames, device=device)
        in_context = (index < context_length.to(device)[:, None]).unsqueeze(2)  # (B, T, 1)
        valid = (index < num_frames.to(device)[:, None]).unsqueeze(2)
        condition = torch.where(valid, condition, self.empty_condition.to(condition.dtype)) * keep[:, None, None]
        counted = valid & ~in_context
        errors = self.errors(target, noise, times, target * in_context, condition) * counted
        return errors.sum() / (counted.sum().clamp(min=1) * self.latent_dim)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        *,
        context: Tensor | None = None,
        num_frames: int | Tensor | None = None,
        steps: int = 10,
        guidance_scale: float = 1.5,
        solver: Solver = "euler",
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        noise: Tensor | None = None,
        noise_scale: float = 1.0,
    ) -> Tensor:
        """Draw latents for a condition.

        Args:
            condition: As `condition` returns it, (B, T, D).
            context: Known latents of the first frames, (B, T_context, C); they are returned unchanged.
            num_frames: Frames from here on get the empty condition, one number or (B,); None means all are real.
            steps: Of the sampler; one costs one network evaluation with "euler", two with "midpoint".
            guidance_scale: w in ``v_u + w (v_c - v_u)``; 1 turns guidance off, which halves the work of a flow decoder.
            solver: One of `solvers`.
            generator: Source of the noise. A list holds one per example, so that an example's result does not
                depend on its batch; the global generator of the CPU if None.
            noise: Initial noise (B, T, C) instead of drawing it.
            noise_scale: Standard deviation of the drawn noise. Below 1 the result moves from a sample to the mean of
                what the condition allows (Choice: the temperature of the decoder; a small one lacks detail that it
                would have to invent, and is easier to understand).

        Returns:
            Latents, (B, T, C).

        Raises:
            ValueError: If an option is out of range or shapes do not agree.
        """
        batch, frames = condition.shape[:2]
        self._check_condition(condition, batch, frames)
        self.check_sampler(steps, solver)
        shape = (batch, frames, self.latent_dim)
        if noise is None:
            noise = noise_scale * draw_noise(shape, generator, condition.device, condition.dtype)
        elif noise.shape != shape:
            raise UserError(f"noise must be {shape}, got {tuple(noise.shape)}")
        known, length = self._known(context, noise)
        if num_frames is not None:
            ends = torch.as_tensor(num_frames, device=condition.device).view(-1, 1)
            valid = (torch.arange(frames, device=condition.device) < ends).unsqueeze(2)
            condition = torch.where(valid, condition, self.empty_condition.to(condition.dtype))

        def hold_context(x: Tensor, t: float) -> Tensor:
            """Put the in-context frames where they are at time t."""
            x[:, :length] = self.context_at(noise[:, :length], known[:, :length], t)
            return x

        x = self.integrate(
            noise, known, condition, hold_context, steps=steps, guidance_scale=guidance_scale, solver=solver
        )
        x[:, :length] = known[:, :length]
        return x / self.config.latent_scale

    def _known(self, context: Tensor | None, noise: Tensor) -> tuple[Tensor, int]:
        """In-context latents as the network sees them, zero beyond their end, (B, T, C), and how many they are."""
        known = torch.zeros_like(noise)
        if context is None:
            return known, 0
        batch, frames, length = *noise.shape[:2], context.shape[1]
        if context.shape != (batch, length, self.latent_dim) or length > frames:
            raise UserError(
                f"in-context latents must be ({batch}, at most {frames}, {self.latent_dim}), got {tuple(context.shape)}"
            )
        known[:, :length] = context * self.config.latent_scale
        return known, length

    def check_sampler(self, steps: int, solver: str) -> None:
        """Refuse what the sampler cannot do.

        Raises:
            UserError: If there is no step, or the solver is another's.
        """
        if steps < 1:
            raise UserError(f"the decoder needs at least 1 step, got {steps}")
        if solver not in self.solvers:
            raise UserError(f"unknown solver {solver!r}: choose {' or '.join(map(repr, self.solvers))}")

    def _draw_context_length(self, num_frames: Tensor, generator: torch.Generator | None) -> Tensor:
        """In-context frames of each example, (B,): none in evaluation or with 1 - context_probability."""
        if not self.training or self.config.context_probability == 0:
            return torch.zeros_like(num_frames)
        shape, device = tuple(num_frames.shape), num_frames.device
        chosen = draw_uniform(shape, generator, device) < self.config.context_probability
        longest = self.config.max_context_fraction * num_frames + 1
        length = (draw_uniform(shape, generator, device) * longest).long()
        return torch.minimum(length, (num_frames - 1).clamp(min=0)) * chosen

    def _check_condition(self, condition: Tensor, batch: int, frames: int) -> None:
        """Refuse a condition of another shape than (batch, frames, D)."""
        if condition.shape != (batch, frames, self.condition_dim):
            raise UserError(
                f"the condition must be ({batch}, {frames}, {self.condition_dim}), got {tuple(condition.shape)}"
            )


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform numbers in float32, drawn where the generator is (the CPU without one), then moved."""
    source = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source, dtype=torch.float32).to(device)


def draw_noise(
    shape: Sequence[int],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Gaussian noise, drawn as by `draw_uniform`: a seed gives the same on every device.

    Raises:
        UserError: If a list does not hold one generator per example.
    """
    if isinstance(generator, Sequence):
        if len(generator) != shape[0]:
            raise UserError(f"{shape[0]} examples need as many generators, got {len(generator)}")
        return torch.cat([draw_noise((1, *shape[1:]), item, device, dtype) for item in generator])
    source = "cpu" if generator is None else generator.device
    noise = torch.randn(tuple(shape), generator=generator, device=source, dtype=torch.float32)
    return noise.to(device=device, dtype=dtype)
