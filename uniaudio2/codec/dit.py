"""The velocity network of the flow decoder: a 1-D diffusion transformer over latent frames.

Knows nothing of noise or audio, nor how guidance is made; `flow_matching.py` does. Source: the published network
(``cfm_wrapper.estimator``), which the UniAudio 2.0 paper describes as a diffusion transformer.

Shapes: B batch, T latent frames, D width, H heads.
"""

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.errors import UserError


@dataclass(frozen=True)
class DiTConfig:
    """Size of the velocity network. Its input and output channels follow from the flow decoder."""

    width: int  # D, a multiple of num_heads
    num_layers: int  # transformer blocks
    num_heads: int  # attention heads; published: heads of 64 channels
    mlp_ratio: int = 4  # hidden channels of the feed-forward per channel of width
    num_time_features: int = 512  # sinusoidal features of the flow time, even

    def __post_init__(self) -> None:
        for name in ("width", "num_layers", "num_heads", "mlp_ratio", "num_time_features"):
            if getattr(self, name) < 1:
                raise UserError(f"dit.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.num_heads:
            raise UserError(f"dit.width {self.width} must be a multiple of dit.num_heads {self.num_heads}")
        if self.width % 2 or self.num_time_features % 2:
            raise UserError("dit.width and dit.num_time_features must be even (half sine, half cosine)")


class DiT(nn.Module):
    """Predicts the velocity of every latent frame, given the flow time.

    Args:
        config: Sizes.
        in_channels: Channels of the input frames (noisy latents, in-context latents and condition).
        out_channels: Channels of the velocity.
        steps: Whether it is also told how far a step goes, and its guidance; at first that changes nothing.
    """

    def __init__(self, config: DiTConfig, *, in_channels: int, out_channels: int, steps: bool = False) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.input_projection = ConvProjection(in_channels, width)
        self.time_embedding = TimeEmbedding(config.num_time_features, width)
        self.time_modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_ratio * width) for _ in range(config.num_layers)
        )
        self.output_modulation = nn.Parameter(torch.zeros(2, width))  # rows: shift, scale
        self.output_projection = ConvProjection(width, out_channels)
        self.step_embedding = TimeEmbedding(config.num_time_features, width) if steps else None
        self.guidance_embedding = TimeEmbedding(config.num_time_features, width) if steps else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as diffusion transformers do: every block the identity, velocity zero.

        Choice: all modulation (shift, scale, gate) and the last linear layer start at zero (adaLN-Zero, Peebles and
        Xie 2023; adaLN-single, Chen et al. 2023), because it makes training from scratch stable without warm-up tricks.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_embedding.hidden, self.time_embedding.output):
            nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.time_modulation.weight)
        nn.init.zeros_(self.output_projection.linear.weight)
        for embedding in (self.step_embedding, self.guidance_embedding):
            if embedding is not None:
                nn.init.zeros_(embedding.output.weight)

    def forward(self, x: Tensor, t: Tensor, step: Tensor | None = None, guidance: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Args:
            x: Input frames, (B, T, in_channels).
            t: Flow time of each batch element in [0, 1] (0 noise, 1 data), (B,).
            step: How far each goes from there, (B,), for a network that is told so; None: nowhere.
            guidance: The guidance above 1 that each step includes, (B,); None: nothing.

        Returns:
            Velocity, (B, T, out_channels).

        Raises:
            ValueError: If the shapes are not the ones above.
        """
        if x.ndim != 3 or x.shape[2] != self.in_channels or t.shape != (x.shape[0],):
            raise ValueError(
                f"expected frames (B, T, {self.in_channels}) and times (B,), got {tuple(x.shape)} and {tuple(t.shape)}"
            )
        h = self.input_projection(x)
        h = h + sinusoidal_positions(h.shape[1], h.shape[2], device=h.device).to(h.dtype)
        time = self.time_embedding(t, dtype=h.dtype)  # (B, D)
        for embedding, value in ((self.step_embedding, step), (self.guidance_embedding, guidance)):
            if embedding is not None:
                time = time + embedding(torch.zeros_like(t) if value is None else value, dtype=h.dtype)
        modulation = self.time_modulation(F.silu(time)).view(len(x), 6, -1)  # (B, 6, D)
        for block in self.blocks:
            h = block(h, modulation)
        shift, scale = (self.output_modulation + time[:, None]).split(1, dim=1)  # 2 x (B, 1, D)
        return self.output_projection(modulate(h, shift, scale))


class Block(nn.Module):
    """Attention and feed-forward, each modulated and gated by the flow time (adaLN-single)."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(6, width))  # shift, scale, gate of attention, then of feed-forward
        self.attention = Attention(width, num_heads)
        self.feed_forward = FeedForward(width, hidden)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Apply the block to ``x`` (B, T, D) with the shared ``modulation`` (B, 6, D)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (self.modulation + modulation).split(1, dim=1)
        x = x + gate_1 * self.attention(modulate(x, shift_1, scale_1))
        return x + gate_2 * self.feed_forward(modulate(x, shift_2, scale_2))


class Attention(nn.Module):
    """Bidirectional multi-head attention with biases."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Let every frame of ``x`` (B, T, D) attend to all frames."""
        q, k, v = (
            layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (B, H, T, D/H)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.output(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear, tanh-approximated GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each frame of ``x`` (B, T, D) alone."""
        return self.output(F.gelu(self.hidden(x), approximate="tanh"))


class ConvProjection(nn.Module):
    """Convolution over 3 frames, scaled by its kernel size to the power -1/2, then a linear layer."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.linear = nn.Linear(out_channels, out_channels)
        self.scale = kernel_size**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """Project ``x`` (B, T, in_channels) to (B, T, out_channels)."""
        return self.linear(self.conv(x.transpose(1, 2)).transpose(1, 2) * self.scale)


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the flow time, then a two-layer perceptron."""

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.hidden = nn.Linear(num_features, width)
        self.output = nn.Linear(width, width)

    def forward(self, t: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Embed times, or other small numbers, ``t`` (B,) as (B, D)."""
        features = time_features(t, self.num_features).to(dtype)
        return self.output(F.silu(self.hidden(features)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each frame of ``x`` (B, T, D) without learned affine, then scale and shift by (B, 1, D)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def time_features(t: Tensor, num_features: int) -> Tensor:
    """Cosines, then sines, of ``1000 t`` at geometric frequencies: ``t`` (B,) to (B, num_features), float32."""
    half = num_features // 2
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10000.0) / half))
    angles = 1000.0 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sinusoidal_positions(num_frames: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Fixed positions, sine on even and cosine on odd channels, (num_frames, width), float32.

    Choice: computed per call instead of stored, because that costs less than one linear layer, sets no length limit
    and keeps a table of 3000 rows out of the weights.
    """
    frequencies = torch.exp(
        torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / width)
    )
    angles = torch.arange(num_frames, device=device)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


# Published name (under ``cfm_wrapper.estimator.``) -> name here; the first match counts.
PUBLISHED_NAMES: tuple[tuple[str, str], ...] = (
    (r"proj_in\.ffn_1\.", r"input_projection.conv."),
    (r"proj_in\.ffn_2\.", r"input_projection.linear."),
    (r"proj_out\.ffn_1\.", r"output_projection.conv."),
    (r"proj_out\.ffn_2\.", r"output_projection.linear."),
    (r"scale_shift_table$", r"output_modulation"),
    (r"adaln_single\.emb\.timestep_embedder\.linear_1\.", r"time_embedding.hidden."),
    (r"adaln_single\.emb\.timestep_embedder\.linear_2\.", r"time_embedding.output."),
    (r"adaln_single\.linear\.", r"time_modulation."),
    (r"transformer_blocks\.(\d+)\.scale_shift_table$", r"blocks.\1.modulation"),
    (r"transformer_blocks\.(\d+)\.attn1\.to_q\.", r"blocks.\1.attention.query."),
    (r"transformer_blocks\.(\d+)\.attn1\.to_k\.", r"blocks.\1.attention.key."),
    (r"transformer_blocks\.(\d+)\.attn1\.to_v\.", r"blocks.\1.attention.value."),
    (r"transformer_blocks\.(\d+)\.attn1\.to_out\.0\.", r"blocks.\1.attention.output."),
    (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.", r"blocks.\1.feed_forward.hidden."),
    (r"transformer_blocks\.(\d+)\.ff\.net\.2\.", r"blocks.\1.feed_forward.output."),
)

# Published entries that are recomputed here: the fixed table of positions.
PUBLISHED_UNUSED: tuple[str, ...] = (r"pos_embed\.pe$",)


def rename_published(key: str) -> str | None:
    """Name of a published parameter (without ``cfm_wrapper.estimator.``) in `DiT`; None if it is not needed.

    Raises:
        KeyError: If the published network has no such parameter.
    """
    for pattern, replacement in PUBLISHED_NAMES:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key, count=1)
    if any(re.match(pattern, key) for pattern in PUBLISHED_UNUSED):
        return None
    raise KeyError(key)
