"""The flow-matching decoder: latents by solving a learned ODE from noise.

Owns the probability path, its objective, the ODE solvers and guidance. The path is the straight one from noise ``x0``
at t = 0 to latents ``x1`` at t = 1, ``x_t = (1 - (1 - sigma_min) t) x0 + t x1``, whose velocity
``x1 - (1 - sigma_min) x0`` the network predicts. Source: UniAudio 2.0 (arXiv:2602.04683), flow decoder, and its
published weights.

Shapes: B batch, T latent frames (25 Hz), C latent channels, D channels of the condition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uniaudio2.codec.decoder import Hold, LatentDecoder, LatentDecoderConfig, Solver, draw_noise, draw_uniform
from uniaudio2.codec.dit import DiT, DiTConfig
from uniaudio2.codec.dit import rename_published as rename_published_dit
from uniaudio2.codec.registry import DECODERS
from uniaudio2.errors import UserError

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class FlowConfig(LatentDecoderConfig):
    """The probability path and how it is trained."""

    sigma_min: float = 1e-4  # spread of the path at t = 1, of the noise's standard deviation
    time_sampling: Literal["uniform", "logit_normal"] = "uniform"  # distribution of t in training

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sigma_min < 1:
            raise UserError(f"sigma_min of the decoder must be in [0, 1), got {self.sigma_min}")
        if self.time_sampling not in ("uniform", "logit_normal"):
            raise UserError(f"time_sampling must be uniform or logit_normal, got {self.time_sampling!r}")


@dataclass(frozen=True)
class FlowDecoderConfig:
    """A flow-matching decoder in a preset."""

    dit: DiTConfig  # the velocity network
    flow: FlowConfig = field(default_factory=FlowConfig)


@DECODERS.register("flow_matching", FlowDecoderConfig)
class FlowDecoder(LatentDecoder):
    """Turns the sum of quantised vectors into latents by solving a learned ODE from noise.

    Args:
        flow: The path and its training.
        dit: Size of the velocity network.
        latent_dim: C, channels of the autoencoder's latents.
        condition_dim: D, channels of the quantised vectors.
    """

    config: FlowConfig
    solvers = ("euler", "midpoint")
    told_steps = False  # whether the network is also told how far a step goes

    def __init__(self, flow: FlowConfig, dit: DiTConfig, *, latent_dim: int, condition_dim: int) -> None:
        super().__init__(flow, latent_dim=latent_dim, condition_dim=condition_dim)
        channels = {"in_channels": 2 * latent_dim + condition_dim, "out_channels": latent_dim}
        self.dit = DiT(dit, **channels, steps=self.told_steps)

    @classmethod
    def from_config(cls, config: FlowDecoderConfig, *, latent_dim: int, condition_dim: int) -> FlowDecoder:
        """The decoder of a preset."""
        return cls(config.flow, config.dit, latent_dim=latent_dim, condition_dim=condition_dim)

    def draw_times(self, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Flow times in [0, 1], (B,)."""
        if self.config.time_sampling == "logit_normal":
            return torch.sigmoid(draw_noise((batch,), generator, device, torch.float32))
        return draw_uniform((batch,), generator, device)

    def errors(self, target: Tensor, noise: Tensor, times: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """Squared errors (B, T, C) of the predicted velocity."""
        x = self._path(noise, target, times[:, None, None])
        velocity = self.dit(torch.cat([x, known, condition], dim=2), times)
        wanted = target - (1 - self.config.sigma_min) * noise
        return F.mse_loss(velocity.float(), wanted.float(), reduction="none")

    def context_at(self, noise: Tensor, known: Tensor, t: float) -> Tensor:
        """The point of in-context frames at time t on their path."""
        return self._path(noise, known, t)

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
        """Integrate from t = 0 to 1 in equal steps. In-context frames are set before every evaluation."""
        velocity = self.velocity(known, condition, guidance_scale, steps)
        x = noise.clone()
        dt = 1.0 / steps
        for i in range(steps):
            t = i * dt
            x = hold_context(x, t)
            v = velocity(x, t)
            if solver == "midpoint":
                middle = hold_context(x + 0.5 * dt * v, t + 0.5 * dt)
                v = velocity(middle, t + 0.5 * dt)
            x = x + dt * v
        return x

    def velocity(self, known: Tensor, condition: Tensor, guidance_scale: float, steps: int) -> Velocity:
        """What a step from (x, t) on follows; guidance keeps the in-context latents and drops the condition.

        Args:
            known: In-context latents, zero elsewhere, (B, T, C).
            condition: (B, T, D).
            guidance_scale: 1 turns guidance off.
            steps: Of the whole way; of no matter here, but to a decoder that knows its steps.
        """
        batch = len(condition)
        if guidance_scale == 1:

            def velocity(x: Tensor, t: float) -> Tensor:
                """Of the condition alone."""
                return self.dit(torch.cat([x, known, condition], dim=2), x.new_full((batch,), t))

            return velocity

        fixed = torch.cat(
            [known.repeat(2, 1, 1), torch.cat([torch.zeros_like(condition), condition])], dim=2
        )  # first half without condition

        def guided(x: Tensor, t: float) -> Tensor:
            """Of both halves in one evaluation, then ``v_u + w (v_c - v_u)``."""
            both = self.dit(torch.cat([x.repeat(2, 1, 1), fixed], dim=2), x.new_full((2 * batch,), t))
            without, with_condition = both.chunk(2)
            return without + guidance_scale * (with_condition - without)

        return guided

    def _path(self, noise: Tensor, target: Tensor, t: Tensor | float) -> Tensor:
        """The point at time t on the path from noise to target."""
        return (1 - (1 - self.config.sigma_min) * t) * noise + t * target


def rename_published(key: str) -> str | None:
    """Name of a published codec parameter in `FlowDecoder`; None if it is not needed.

    Raises:
        KeyError: If the key does not belong to the flow decoder.
    """
    if key.startswith("cond_feature_emb."):
        return key.replace("cond_feature_emb.", "condition_projection.", 1)
    if key == "zero_cond_embedding1":
        return "empty_condition"
    prefix = "cfm_wrapper.estimator."
    if key.startswith(prefix):
        name = rename_published_dit(key.removeprefix(prefix))
        return None if name is None else f"dit.{name}"
    raise KeyError(key)
