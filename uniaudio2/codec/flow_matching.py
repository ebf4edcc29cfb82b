"""The flow-matching decoder: from quantised vectors to autoencoder latents.

Owns the probability path, its loss, the ODE solvers, guidance and in-context frames. The path is the straight one
from noise ``x0`` at t = 0 to latents ``x1`` at t = 1, ``x_t = (1 - (1 - sigma_min) t) x0 + t x1``, whose velocity
``x1 - (1 - sigma_min) x0`` the network predicts. Source: UniAudio 2.0 (arXiv:2602.04683), flow decoder, and its
published weights.

Shapes: B batch, T latent frames (25 Hz), C latent channels, D channels of the condition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.codec.dit import DiT, DiTConfig
from uniaudio2.codec.dit import rename_published as rename_published_dit
from uniaudio2.errors import UserError

Solver = Literal["euler", "midpoint"]
Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class FlowConfig:
    """The probability path and how it is trained."""

    sigma_min: float = 1e-4  # spread of the path at t = 1, of the noise's standard deviation
    frames_per_code: int = 2  # latent frames per reconstruction code
    latent_scale: float = 1.0  # latents are multiplied by this inside the flow; 1 in the published weights
    condition_dropout: float = 0.1  # share of examples trained without condition, for guidance
    context_probability: float = 0.5  # share of examples trained with an in-context prefix
    max_context_fraction: float = 0.5  # longest such prefix, as a fraction of the example
    time_sampling: Literal["uniform", "logit_normal"] = "uniform"  # distribution of t in training

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise UserError(f"flow.sigma_min must be in [0, 1), got {self.sigma_min}")
        if self.frames_per_code < 1 or self.latent_scale <= 0:
            raise UserError("flow.frames_per_code and flow.latent_scale must be positive")
        for name in ("condition_dropout", "context_probability", "max_context_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"flow.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.time_sampling not in ("uniform", "logit_normal"):
            raise UserError(f"flow.time_sampling must be uniform or logit_normal, got {self.time_sampling!r}")


class FlowDecoder(nn.Module):
    """Turns the sum of quantised vectors into latents by solving a learned ODE from noise.

    Args:
        flow: The path and its training.
        dit: Size of the velocity network.
        latent_dim: C, channels of the autoencoder's latents.
        condition_dim: D, channels of the quantised vectors.
    """

    def __init__(self, flow: FlowConfig, dit: DiTConfig, *, latent_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.config = flow
        self.latent_dim = latent_dim
        self.condition_dim = condition_dim
        self.condition_projection = nn.Linear(condition_dim, condition_dim)
        self.empty_condition = nn.Parameter(torch.zeros(condition_dim))
        self.dit = DiT(dit, in_channels=2 * latent_dim + condition_dim, out_channels=latent_dim)

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
        """Mean squared error of the predicted velocity, in-context and padding frames excluded.

        In training mode, conditions are dropped (set to zero, as guidance does) and in-context prefixes drawn; in
        evaluation mode neither happens, only time and noise are drawn.

        Args:
            latents: Target latents, (B, T, C).
            condition: As `condition` returns it, (B, T, D).
            context_length: In-context frames of each example (B,); drawn at random in training mode if None.
            num_frames: Valid frames of each example, (B,); frames beyond get the empty condition and have no loss.
            generator: Source of all randomness; the global one if None. It may live on the CPU.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not agree.
        """
        batch, frames, _ = latents.shape
        self._check_condition(condition, batch, frames)
        device = latents.device
        target = latents * self.config.latent_scale
        t = _draw_times(batch, self.config.time_sampling, generator, device)
        noise = _draw_noise(target.shape, generator, device, target.dtype)
        if num_frames is None:
            num_frames = torch.full((batch,), frames, device=device)
        if context_length is None:
            context_length = self._draw_context_length(num_frames.to(device), generator)
        if self.training and self.config.condition_dropout > 0:
            keep = _rand((batch,), generator, device) >= self.config.condition_dropout
        else:
            keep = torch.ones(batch, dtype=torch.bool, device=device)

        index = torch.arange(frames, device=device)
        in_context = (index < context_length.to(device)[:, None]).unsqueeze(2)  # (B, T, 1)
        valid = (index < num_frames.to(device)[:, None]).unsqueeze(2)
        condition = torch.where(valid, condition, self.empty_condition.to(condition.dtype)) * keep[:, None, None]

        x = self._path(noise, target, t[:, None, None])
        velocity = self.dit(torch.cat([x, target * in_context, condition], dim=2), t)
        wanted = target - (1 - self.config.sigma_min) * noise
        counted = valid & ~in_context
        error = F.mse_loss(velocity.float(), wanted.float(), reduction="none") * counted
        return error.sum() / (counted.sum().clamp(min=1) * self.latent_dim)

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
            steps: Solver steps; one costs one network evaluation with "euler", two with "midpoint".
            guidance_scale: w in ``v_u + w (v_c - v_u)``; 1 turns guidance off and halves the work.
            solver: "euler" (published) or "midpoint".
            generator: Source of the noise. A list holds one per example, so that an example's result does not
                depend on its batch; the global generator if None.
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
        if steps < 1:
            raise UserError(f"the flow solver needs at least 1 step, got {steps}")
        if solver not in ("euler", "midpoint"):
            raise UserError(f"unknown flow solver {solver!r}: choose 'euler' or 'midpoint'")
        shape = (batch, frames, self.latent_dim)
        if noise is None:
            noise = noise_scale * _draw_noise(shape, generator, condition.device, condition.dtype)
        elif noise.shape != shape:
            raise ValueError(f"noise must be {shape}, got {tuple(noise.shape)}")
        context_length = 0 if context is None else context.shape[1]
        known = noise.new_zeros(shape)
        if context is not None:
            if context.shape != (batch, context_length, self.latent_dim) or context_length > frames:
                raise ValueError(
                    f"in-context latents must be ({batch}, at most {frames}, {self.latent_dim}), "
                    f"got {tuple(context.shape)}"
                )
            known[:, :context_length] = context * self.config.latent_scale
        if num_frames is not None:
            ends = torch.as_tensor(num_frames, device=condition.device).view(-1, 1)
            valid = (torch.arange(frames, device=condition.device) < ends).unsqueeze(2)
            condition = torch.where(valid, condition, self.empty_condition.to(condition.dtype))

        def hold_context(x: Tensor, t: float) -> Tensor:
            """Put the in-context frames where the path has them at time t."""
            x[:, :context_length] = self._path(noise[:, :context_length], known[:, :context_length], t)
            return x

        x = self._solve(
            self._guided_velocity(known, condition, guidance_scale), hold_context, noise, steps=steps, solver=solver
        )
        x[:, :context_length] = known[:, :context_length]
        return x / self.config.latent_scale

    def _guided_velocity(self, known: Tensor, condition: Tensor, guidance_scale: float) -> Velocity:
        """The velocity at (x, t) with guidance, which keeps the in-context latents and drops the condition."""
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

    @staticmethod
    def _solve(
        velocity: Velocity,
        hold_context: Callable[[Tensor, float], Tensor],
        noise: Tensor,
        *,
        steps: int,
        solver: Solver,
    ) -> Tensor:
        """Integrate from t = 0 to 1 in equal steps. In-context frames are set before every evaluation."""
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

    def _path(self, noise: Tensor, target: Tensor, t: Tensor | float) -> Tensor:
        """The point at time t on the path from noise to target."""
        return (1 - (1 - self.config.sigma_min) * t) * noise + t * target

    def _draw_context_length(self, num_frames: Tensor, generator: torch.Generator | None) -> Tensor:
        """In-context frames of each example, (B,): none in evaluation or with 1 - context_probability."""
        if not self.training or self.config.context_probability == 0:
            return torch.zeros_like(num_frames)
        shape, device = tuple(num_frames.shape), num_frames.device
        chosen = _rand(shape, generator, device) < self.config.context_probability
        longest = self.config.max_context_fraction * num_frames + 1
        length = (_rand(shape, generator, device) * longest).long()
        return torch.minimum(length, (num_frames - 1).clamp(min=0)) * chosen

    def _check_condition(self, condition: Tensor, batch: int, frames: int) -> None:
        """Refuse a condition of another shape than (batch, frames, D)."""
        if condition.shape != (batch, frames, self.condition_dim):
            raise ValueError(
                f"the condition must be ({batch}, {frames}, {self.condition_dim}), got {tuple(condition.shape)}"
            )


def _draw_times(batch: int, sampling: str, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Flow times in [0, 1], (B,)."""
    if sampling == "logit_normal":
        return torch.sigmoid(_draw_noise((batch,), generator, device, torch.float32))
    return _rand((batch,), generator, device)


def _rand(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform numbers drawn on the generator's device, then moved."""
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source).to(device)


def _draw_noise(
    shape: Sequence[int],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Gaussian noise drawn in float32 on the generator's device, then moved; one generator per example if a list."""
    if isinstance(generator, Sequence):
        if len(generator) != shape[0]:
            raise ValueError(f"{shape[0]} examples need as many generators, got {len(generator)}")
        return torch.cat([_draw_noise((1, *shape[1:]), item, device, dtype) for item in generator])
    source = device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=source).to(device=device, dtype=dtype)


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
