"""A flow decoder in one or two steps: the network gives the mean velocity of a whole step, guidance included.

Plain flow matching learns the velocity at a point, so sampling takes many small steps. Here the network is also told
how far a step goes, and under which guidance, and learns the mean velocity over it. Two objectives, at choice:

- ``consistency``: one step must lead where two halves of it lead; the shortest halves follow the velocity. Source:
  shortcut models (Frans et al. 2024, arXiv:2410.12557) and SplitMeanFlow (arXiv:2507.16884).
- ``mean_flow``: the derivative of that identity, ``u = v + (r - t) du/dt``, by a forward-mode derivative. Source:
  MeanFlow (Geng et al. 2025, arXiv:2505.13447).

Guidance as an input, so that it stays adjustable without a second evaluation: improved MeanFlow (arXiv:2512.02012).
The weights of a plain flow decoder are a start: a step of no length is its velocity.

Shapes: B batch, T latent frames (25 Hz), C latent channels, D channels of the condition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from uniaudio2.codec.decoder import Hold, Solver, draw_uniform
from uniaudio2.codec.dit import DiTConfig
from uniaudio2.codec.flow_matching import FlowConfig, FlowDecoder
from uniaudio2.codec.registry import DECODERS
from uniaudio2.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FewStepConfig(FlowConfig):
    """The path, and how steps along it are learned."""

    objective: Literal["consistency", "mean_flow"] = "consistency"  # what a step is compared with
    jump_share: float = 0.5  # share of the examples that learn a step; the others learn the velocity
    most_steps: int = 8  # shortest step is 1 / this; with more steps than this the velocity is followed
    max_guidance: float = 3.0  # largest guidance that steps are learned for; 1: without guidance
    least_noise: float = 0.1  # least share of the noise that sampling may begin with (consistency alone)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in ("consistency", "mean_flow"):
            raise UserError(f"objective of the decoder must be consistency or mean_flow, got {self.objective!r}")
        if not 0 < self.jump_share < 1:
            raise UserError(f"jump_share of the decoder must be between 0 and 1, got {self.jump_share}")
        if self.most_steps < 1 or self.most_steps & (self.most_steps - 1):
            raise UserError(f"most_steps of the decoder must be 1, 2, 4, 8, …, got {self.most_steps}")
        if not 0 <= self.least_noise <= 1:
            raise UserError(f"least_noise of the decoder must be in [0, 1], got {self.least_noise}")
        if not self.max_guidance >= 1:
            raise UserError(f"max_guidance of the decoder must be at least 1, got {self.max_guidance}")


@dataclass(frozen=True)
class FewStepDecoderConfig:
    """A few-step decoder in a preset."""

    dit: DiTConfig  # the network, which is told the length of a step and its guidance as well
    flow: FewStepConfig = field(default_factory=FewStepConfig)


@DECODERS.register("few_step", FewStepDecoderConfig)
class FewStepDecoder(FlowDecoder):
    """Turns the sum of quantised vectors into latents in one, two, four or more steps.

    Args:
        flow: The path and its training.
        dit: Size of the network.
        latent_dim: C, channels of the autoencoder's latents.
        condition_dim: D, channels of the quantised vectors.
    """

    config: FewStepConfig
    solvers = ("euler",)
    told_steps = True

    def draw_times(self, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Time, length of the step (0: its velocity), guidance and share of the noise, (B, 4).

        Choice: ``consistency`` learns the steps that sampling takes, of 1/n, n = 1, 2, 4, …, from a multiple of their
        length on, also from less noise than the path begins with; a derivative needs all lengths, and the path itself.
        """
        times = super().draw_times(batch, generator, device)
        jumps, powers, places, scales, shares = draw_uniform((5, batch), generator, device)
        jumps = jumps < self.config.jump_share
        if self.config.objective == "consistency":
            counts = 2.0 ** (powers * self.config.most_steps.bit_length()).floor()
            times = torch.where(jumps, (places * counts).floor() / counts, times)
            lengths = 1 / counts
            shares = 1 - (1 - self.config.least_noise) * shares
        else:
            lengths, shares = (1 - times) * places, torch.ones_like(shares)
        # Half of the steps are without guidance, which recordings are decoded with.
        scales = 1 + (self.config.max_guidance - 1) * (2 * scales - 1).clamp(min=0)
        plain = torch.ones_like(times)
        scales, shares = (torch.where(jumps, drawn, plain) for drawn in (scales, shares))
        return torch.stack([times, jumps * lengths, scales, shares], dim=1)

    def errors(self, target: Tensor, noise: Tensor, times: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """Squared errors (B, T, C) of the velocity, and of the mean velocity where a step is drawn."""
        t, length, scale, share = times.unbind(1)
        noise = noise * share[:, None, None].to(noise.dtype)
        x = self._path(noise, target, t[:, None, None])
        velocity = target - (1 - self.config.sigma_min) * noise
        predicted, wanted = self._step(x, t, length, scale, known, condition), velocity.clone()
        jumps = (length > 0).nonzero()[:, 0]
        if len(jumps):
            one = (x[jumps], t[jumps], length[jumps], scale[jumps], known[jumps], condition[jumps])
            if self.config.objective == "consistency":
                found = self._two_halves(*one, noise[jumps])
            else:
                found = self._mean_flow(*one, velocity[jumps])
            wanted[jumps] = found.to(wanted.dtype)
        errors = F.mse_loss(predicted.float(), wanted.float(), reduction="none")
        if self.config.objective == "mean_flow" and len(jumps):  # derivatives can be large: as MeanFlow weighs them
            free = ~known[jumps].any(2, keepdim=True)  # in-context frames are not learned from
            mean = (errors[jumps].detach() * free).sum((1, 2)) / (free.sum((1, 2)) * errors.shape[2]).clamp(min=1)
            weight = errors.new_ones(len(t))
            weight[jumps] = 1 / (mean + 0.1)
            errors = errors * weight[:, None, None]
        return errors

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
        """Steps as they were learned; above ``most_steps`` along the velocity, as a plain flow decoder."""
        if steps > self.config.most_steps:
            return super().integrate(
                noise, known, condition, hold_context, steps=steps, guidance_scale=guidance_scale, solver=solver
            )
        if not 1 <= guidance_scale <= self.config.max_guidance:
            raise UserError(
                f"this decoder's steps know guidance from 1 to {self.config.max_guidance:g}, got {guidance_scale:g}; "
                f"change guidance_scale, or take more than {self.config.most_steps} steps"
            )
        x = noise.clone()
        length, scale = (x.new_full((len(x),), value) for value in (1 / steps, guidance_scale))
        for i in range(steps):
            x = hold_context(x, i / steps)
            x = x + self._step(x, x.new_full((len(x),), i / steps), length, scale, known, condition) / steps
        return x

    def check_sampler(self, steps: int, solver: str) -> None:
        """As for every decoder; few steps must be as many as were learned."""
        super().check_sampler(steps, solver)
        if steps < self.config.most_steps and steps & (steps - 1):
            raise UserError(f"this decoder takes 1, 2, 4, … steps, or more than {self.config.most_steps}; got {steps}")

    # ---------------------------------------------------------------- what steps must agree with

    def _step(self, x: Tensor, t: Tensor, length: Tensor, scale: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """The network's mean velocity (B, T, C) over steps of a length (B,), as far as guidance (B,) is learned."""
        return self.dit(torch.cat([x, known, condition], dim=2), t, length, scale - 1)

    def _along(self, x: Tensor, t: Tensor, length: Tensor, scale: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """The same, but steps of no length are guided by a second evaluation."""
        found = self._step(x, t, length, torch.where(length > 0, scale, 1.0), known, condition)
        guided = ((length == 0) & (scale > 1)).nonzero()[:, 0]
        if len(guided):
            nothing = torch.zeros_like(condition[guided])
            plain = torch.zeros_like(length[guided])
            without = self._step(x[guided], t[guided], plain, plain + 1, known[guided], nothing)
            found[guided] = without + scale[guided, None, None] * (found[guided] - without)
        return found

    @torch.no_grad()
    def _two_halves(
        self,
        x: Tensor,
        t: Tensor,
        length: Tensor,
        scale: Tensor,
        known: Tensor,
        condition: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Mean velocity of two steps of half the length; in-context frames stay on their path."""
        half = length / 2
        part = torch.where(length * self.config.most_steps > 1.5, half, 0.0)  # the shortest are made of velocities
        scale = torch.where(condition.flatten(1).any(1), scale, 1.0)  # nothing to guide away from
        first = self._along(x, t, part, scale, known, condition)
        middle = x + half[:, None, None] * first
        on_path = self._path(noise, known, (t + half)[:, None, None])
        middle = torch.where(known.any(2, keepdim=True), on_path, middle)
        return (first + self._along(middle, t + half, part, scale, known, condition)) / 2

    @torch.no_grad()
    def _mean_flow(
        self,
        x: Tensor,
        t: Tensor,
        length: Tensor,
        scale: Tensor,
        known: Tensor,
        condition: Tensor,
        velocity: Tensor,
    ) -> Tensor:
        """MeanFlow's mean velocity: the velocity and the step's length times the change along the path."""
        scale = torch.where(condition.flatten(1).any(1), scale, 1.0)
        zero, nothing = torch.zeros_like(length), torch.zeros_like(condition)
        without = self._step(x, t, zero, zero + 1, known, nothing)
        guided = without + scale[:, None, None] * (velocity - without)
        guided = torch.where(known.any(2, keepdim=True), velocity, guided).to(x.dtype)

        def step(x: Tensor, t: Tensor, length: Tensor) -> Tensor:
            """Of what moves along the path; the end of the step stays where it is."""
            return self._step(x, t, length, scale, known, condition)

        with sdpa_kernel(SDPBackend.MATH):  # the only attention kernel with a forward-mode derivative
            tangents = (guided, torch.ones_like(t), -torch.ones_like(length))
            change = torch.func.jvp(step, (x, t, length), tangents)[1]
        return guided + length[:, None, None] * change
