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
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from uniaudio2.codec.decoder import draw_uniform
from uniaudio2.codec.dit import DiTConfig
from uniaudio2.codec.flow_matching import FlowConfig, FlowDecoder, Velocity
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


class Steps(NamedTuple):
    """Steps of a batch: where each begins, how far it goes, and under what."""

    x: Tensor  # (B, T, C)
    t: Tensor  # (B,)
    length: Tensor  # (B,), 0: no step, its velocity
    guidance: Tensor  # (B,), 1: none
    known: Tensor  # in-context latents, zero elsewhere, (B, T, C)
    condition: Tensor  # (B, T, D)

    def rows(self, chosen: Tensor) -> Steps:
        """Some of them."""
        return Steps(*(each[chosen] for each in self))

    @property
    def in_context(self) -> Tensor:
        """Which frames are known, (B, T, 1)."""
        return self.known.any(2, keepdim=True)


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
        t, length, guidance, share = times.unbind(1)
        noise = noise * share[:, None, None].to(noise.dtype)
        velocity = target - (1 - self.config.sigma_min) * noise
        every = Steps(self._path(noise, target, t[:, None, None]), t, length, guidance, known, condition)
        wanted, chosen = velocity.clone(), (length > 0).nonzero()[:, 0]
        if len(chosen):
            steps = every.rows(chosen)
            # Where the condition is dropped there is nothing to guide away from.
            steps = steps._replace(guidance=torch.where(steps.condition.flatten(1).any(1), steps.guidance, 1.0))
            if self.config.objective == "consistency":
                found = self._two_halves(steps, noise[chosen])
            else:
                found = self._mean_flow(steps, velocity[chosen])
            wanted[chosen] = found.to(wanted.dtype)
        errors = F.mse_loss(self._mean_velocity(every).float(), wanted.float(), reduction="none")
        if self.config.objective == "mean_flow" and len(chosen):  # derivatives can be large: as MeanFlow weighs them
            free = ~every.in_context[chosen]  # in-context frames are not learned from
            mean = (errors[chosen].detach() * free).sum((1, 2)) / (free.sum((1, 2)) * errors.shape[2]).clamp(min=1)
            weight = errors.new_ones(len(t))
            weight[chosen] = 1 / (mean + 0.1)
            errors = errors * weight[:, None, None]
        return errors

    def velocity(self, known: Tensor, condition: Tensor, guidance_scale: float, steps: int) -> Velocity:
        """The mean velocity of a step from (x, t) on; above ``most_steps`` the velocity, as of a plain flow decoder."""
        if steps > self.config.most_steps:
            return super().velocity(known, condition, guidance_scale, steps)
        if not 1 <= guidance_scale <= self.config.max_guidance:
            raise UserError(
                f"this decoder's steps know guidance from 1 to {self.config.max_guidance:g}, got {guidance_scale:g}; "
                f"change guidance_scale, or take more than {self.config.most_steps} steps"
            )

        def mean(x: Tensor, t: float) -> Tensor:
            """Of one step in one evaluation."""
            start, length, guidance = (x.new_full((len(x),), value) for value in (t, 1 / steps, guidance_scale))
            return self._mean_velocity(Steps(x, start, length, guidance, known, condition))

        return mean

    def check_sampler(self, steps: int, solver: str) -> None:
        """As for every decoder; few steps must be as many as were learned."""
        super().check_sampler(steps, solver)
        if steps < self.config.most_steps and steps & (steps - 1):
            raise UserError(f"this decoder takes 1, 2, 4, … steps, or more than {self.config.most_steps}; got {steps}")

    # ---------------------------------------------------------------- what steps must agree with

    def _mean_velocity(self, steps: Steps) -> Tensor:
        """The network's mean velocity, (B, T, C)."""
        inputs = torch.cat([steps.x, steps.known, steps.condition], dim=2)
        return self.dit(inputs, steps.t, steps.length, steps.guidance - 1)

    def _unguided_velocity(self, steps: Steps) -> Tensor:
        """The velocity where steps begin, without their condition, (B, T, C)."""
        nothing, one = torch.zeros_like(steps.condition), torch.ones_like(steps.t)
        return self._mean_velocity(steps._replace(length=0 * one, guidance=one, condition=nothing))

    def _guided_mean_velocity(self, steps: Steps) -> Tensor:
        """The mean velocity, where guidance of steps of no length takes a second evaluation."""
        moving = steps.length > 0
        found = self._mean_velocity(steps._replace(guidance=torch.where(moving, steps.guidance, 1.0)))
        chosen = (~moving & (steps.guidance > 1)).nonzero()[:, 0]
        if len(chosen):
            still = steps.rows(chosen)
            without = self._unguided_velocity(still)
            found[chosen] = without + still.guidance[:, None, None] * (found[chosen] - without)
        return found

    @torch.no_grad()
    def _two_halves(self, steps: Steps, noise: Tensor) -> Tensor:
        """Mean velocity of two steps of half the length; in-context frames stay on their path from the noise."""
        half = steps.length / 2
        shortest = steps.length * self.config.most_steps < 1.5  # made of velocities
        first = steps._replace(length=torch.where(shortest, 0.0, half))
        before = self._guided_mean_velocity(first)
        on_path = self._path(noise, steps.known, (steps.t + half)[:, None, None])
        middle = torch.where(steps.in_context, on_path, steps.x + half[:, None, None] * before)
        return (before + self._guided_mean_velocity(first._replace(x=middle, t=steps.t + half))) / 2

    @torch.no_grad()
    def _mean_flow(self, steps: Steps, velocity: Tensor) -> Tensor:
        """MeanFlow's mean velocity: the velocity and the step's length times the change along the path."""
        without = self._unguided_velocity(steps)
        guided = without + steps.guidance[:, None, None] * (velocity - without)
        guided = torch.where(steps.in_context, velocity, guided).to(steps.x.dtype)

        def mean(x: Tensor, t: Tensor, length: Tensor) -> Tensor:
            """Of what moves along the path; the end of the step stays where it is."""
            return self._mean_velocity(steps._replace(x=x, t=t, length=length))

        with sdpa_kernel(SDPBackend.MATH):  # the only attention kernel with a forward-mode derivative
            tangents = (guided, torch.ones_like(steps.t), -torch.ones_like(steps.length))
            change = torch.func.jvp(mean, (steps.x, steps.t, steps.length), tangents)[1]
        return guided + steps.length[:, None, None] * change
