"""The causal Llama block that all four stacks of the language model share.

Knows nothing of audio, text or vocabularies. Shapes: B batch, S positions, D width, H heads, G key/value groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.errors import UserError
from uniaudio2.lm.cache import CacheView, KVCache
from uniaudio2.rotary import rotary_frequencies, rotary_table
from uniaudio2.rotary import rotate as apply_rope


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions with the Llama 3.x frequency adjustment.

    Source: the published block; ``factor`` is 32 for Llama 3.2 and 8 for Llama 3.1.
    """

    base: float = 500000.0
    factor: float | None = 32.0  # None: plain rotary positions, no adjustment
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_seq_len: int = 8192  # positions the adjustment starts from

    def __post_init__(self) -> None:
        if self.base <= 1.0:
            raise UserError(f"rope base must be above 1, got {self.base}")
        if self.factor is not None and self.high_freq_factor <= self.low_freq_factor:
            raise UserError("rope high_freq_factor must be above low_freq_factor")


@dataclass(frozen=True)
class StackConfig:
    """Sizes of one stack of blocks."""

    num_layers: int
    width: int  # D
    num_heads: int  # H
    num_kv_groups: int  # G, divides H
    mlp_width: int
    head_size: int | None = None  # None: width / num_heads

    def __post_init__(self) -> None:
        for name in ("num_layers", "width", "num_heads", "num_kv_groups", "mlp_width"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_groups:
            raise UserError(f"num_kv_groups {self.num_kv_groups} does not divide num_heads {self.num_heads}")
        if self.head_size is None and self.width % self.num_heads:
            raise UserError(f"num_heads {self.num_heads} does not divide width {self.width}; give head_size")
        if self.head_dim % 2:
            raise UserError(f"head size must be even for rotary positions, got {self.head_dim}")

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.head_size if self.head_size is not None else self.width // self.num_heads


def rope_table(config: RopeConfig, head_dim: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine factors of given positions.

    Computed in float32 in the published order (power, quotient, adjustment, product); another order differs by up to
    3e-4 near position 16 000. Source: ARCHITECTURE section 1.2.

    Args:
        config: Base and frequency adjustment.
        head_dim: Channels of one head, even.
        positions: Integer positions, any shape (...).

    Returns:
        Cosine and sine, float32, (..., head_dim), the second half equal to the first.
    """
    theta = rotary_frequencies(head_dim, config.base, device=positions.device)
    if config.factor is not None:
        wavelength = 2 * math.pi / theta
        ratio = config.original_max_seq_len / wavelength
        smooth = (ratio - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
        smooth = smooth.clamp(0.0, 1.0)
        theta = (1 - smooth) * (theta / config.factor) + smooth * theta
    return rotary_table(positions, theta)


class Linear(nn.Linear):
    """A matrix without bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return linear(x, self.weight)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Product of (..., I) with a matrix (O, I), (..., O); compiled code applies it to a single row as a plain loop.

    Choice: on a CPU that loop reads memory as one stream, 25 GB/s a core where the BLAS library reaches 15 GB/s on rows
    of 768 values; and it takes in the norm before and the activation behind it.
    """
    if is_matvec(x):
        return (weight.float() * x.float().reshape(-1)).sum(-1).to(x.dtype).view(*x.shape[:-1], -1)
    return F.linear(x, weight)


def is_matvec(x: Tensor) -> bool:
    """Whether this is compiled code for a CPU with a single row of input, (1, ..., 1, I)."""
    return torch.compiler.is_compiling() and x.device.type == "cpu" and x.numel() == x.shape[-1]


class Embedding(nn.Embedding):
    """A table of embeddings that can also be summed over the codebooks of a frame."""

    def bag(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Sum of the embeddings of ids (..., K) where the mask says so, (..., D)."""
        index = ids.reshape(-1, ids.shape[-1])
        weights = mask.reshape(index.shape).to(self.weight.dtype)
        return F.embedding_bag(index, self.weight, mode="sum", per_sample_weights=weights).view(*ids.shape[:-1], -1)


class RMSNorm(nn.Module):
    """Root-mean-square norm, float32 inside, cast back to the input's type."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


_INLINED_POSITIONS = 16  # up to this length compiled code attends without a kernel of its own
_FOLDED_POSITIONS = 512  # up to this length training on a CPU uses plain products


class Attention(nn.Module):
    """Causal grouped-query attention with one fused projection (queries, then keys, then values)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_kv_groups = config.num_kv_groups
        self.head_dim = config.head_dim
        heads = config.num_heads + 2 * config.num_kv_groups
        self.qkv = Linear(config.width, heads * config.head_dim)
        self.out = Linear(config.num_heads * config.head_dim, config.width)

    def _heads(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        heads = self.qkv(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
        rotated = apply_rope(heads[:, : self.num_heads + self.num_kv_groups], cos, sin)
        queries, keys = rotated.split((self.num_heads, self.num_kv_groups), dim=1)
        return queries, keys, heads[:, self.num_heads + self.num_kv_groups :]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int = 0, view: CacheView | None = None) -> Tensor:
        """Attend causally, over the cache when a view is given.

        Args:
            x: (B, S, D).
            cos: Rotary cosines (B or 1, 1, S, head_dim).
            sin: Rotary sines.
            layer: Index of this layer in the cache.
            view: Cache and positions; keys and values of ``x`` are written before reading.

        Returns:
            (B, S, D).
        """
        queries, keys, values = self._heads(x, cos, sin)
        length = x.shape[1]
        if view is None and x.device.type == "cpu" and torch.is_grad_enabled() and length <= _FOLDED_POSITIONS:
            out = self._attend_folded(queries, keys, values)
        elif view is None:
            out = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                is_causal=True,
                enable_gqa=self.num_heads != self.num_kv_groups,
            )
        elif view.cache.blocks:
            views = view.split()
            sizes = [one.cache.batch_size for one in views]
            parts = zip(queries.split(sizes), keys.split(sizes), values.split(sizes), views, strict=True)
            out = torch.cat([self._attend_cache(q, k, v, layer, one) for q, k, v, one in parts])
        else:
            out = self._attend_cache(queries, keys, values, layer, view)
        batch, _, length, _ = out.shape
        return self.out(out.transpose(1, 2).reshape(batch, length, -1))

    def _attend_folded(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Causal attention as two plain products, the heads of a group folded into one.

        Choice: for training on a CPU, where the fused kernel's backward is two to five times slower than this on the
        short sequences that batches are made of.
        """
        batch, heads, length, size = queries.shape
        group = heads // self.num_kv_groups
        above = torch.full((length, length), -math.inf, dtype=queries.dtype, device=queries.device).triu(1)
        folded = queries.reshape(batch * self.num_kv_groups, group * length, size)
        keys = keys.reshape(batch * self.num_kv_groups, length, size).transpose(1, 2)
        values = values.reshape(batch * self.num_kv_groups, length, size)
        scores = torch.baddbmm(above.repeat(group, 1)[None], folded, keys, alpha=size**-0.5)
        return torch.bmm(scores.softmax(dim=-1), values).view(batch, heads, length, size)

    def _attend_cache(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, view: CacheView) -> Tensor:
        """Store keys and values (B, G, S, h), then attend (B, H, S, h) to what the cache holds.

        The heads of a group share keys without copying them.
        """
        if view.mask is None:
            view.cache.write_column(layer, view.length - 1, keys, values)
        else:
            view.cache.write(layer, view.positions, keys, values)
        keys, values = (each.to(queries.dtype) for each in view.cache.read(layer, view.length))
        mask, (batch, heads, length, size) = view.mask, queries.shape
        group = heads // self.num_kv_groups
        folded = queries.reshape(batch, self.num_kv_groups, group * length, size)
        if mask is not None and length > 1:
            mask = mask.repeat(1, 1, group, 1)
        if torch.compiler.is_compiling() and mask is not None and keys.shape[2] <= _INLINED_POSITIONS:
            scores = (folded.unsqueeze(3) * keys.unsqueeze(2)).sum(-1) * size**-0.5
            weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
            out = (weights.unsqueeze(-1) * values.unsqueeze(2)).sum(3)
        else:
            out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask)
        return out.reshape(batch, heads, length, size)

    def probabilities(self, x: Tensor, cos: Tensor, sin: Tensor, heads: tuple[int, ...]) -> Tensor:
        """Attention probabilities of chosen heads, float32, (B, len(heads), S, S); rows sum to one."""
        queries, keys, _ = self._heads(x, cos, sin)
        group = self.num_heads // self.num_kv_groups
        chosen = queries[:, list(heads)].float()
        partner = keys[:, [head // group for head in heads]].float()
        scores = chosen @ partner.transpose(-1, -2) / math.sqrt(self.head_dim)
        length = x.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        return scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), no biases."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.gate = Linear(config.width, config.mlp_width)
        self.up = Linear(config.width, config.mlp_width)
        self.down = Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm attention and MLP on a residual stream."""

    def __init__(self, config: StackConfig, *, norm_eps: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.width, norm_eps)
        self.mlp = MLP(config)
        self.dropout = dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int = 0, view: CacheView | None = None) -> Tensor:
        """(B, S, D) to (B, S, D); see :meth:`Attention.forward` for the other arguments."""
        x = x + self._drop(self.attention(self.attention_norm(x), cos, sin, layer, view))
        return x + self._drop(self.mlp(self.mlp_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        """Dropout with one mask per sequence, shared by its positions.

        Choice: a mask per position costs a tenth of a training step on a CPU, nearly all of it for random numbers.
        """
        if not self.dropout or not self.training:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.dropout)


@dataclass(frozen=True)
class AttentionProbe:
    """Which layer of a stack, and which of its heads, a training step wants to look into."""

    layer: int
    heads: tuple[int, ...]


@dataclass(frozen=True)
class Probed:
    """What a probe found."""

    state: Tensor  # (B, S, D) normalised input of the probed layer
    attention: Tensor  # (B, len(heads), S, S) probabilities


class Transformer(nn.Module):
    """A stack of blocks with a final norm: hidden states in, hidden states out.

    Args:
        config: Sizes.
        rope: Rotary positions.
        norm_eps: Epsilon of all norms.
        dropout: Probability on both residual branches, in training only (Choice: not on attention, whose fused
            kernel on a CPU has no dropout).
    """

    def __init__(self, config: StackConfig, rope: RopeConfig, *, norm_eps: float = 1e-5, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.rope = rope
        self.layers = nn.ModuleList(Block(config, norm_eps=norm_eps, dropout=dropout) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, norm_eps)

    def new_cache(
        self,
        batch_size: int,
        max_positions: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> KVCache:
        """An empty cache for this stack."""
        shape = (batch_size, self.config.num_kv_groups, max_positions, self.config.head_dim)
        table = partial(rope_table, self.rope, self.config.head_dim)
        return KVCache(self.config.num_layers, shape, table, device=device, dtype=dtype)

    def forward(self, x: Tensor, *, probe: AttentionProbe | None = None) -> tuple[Tensor, Probed | None]:
        """Run whole sequences without a cache, positions 0..S-1.

        Args:
            x: (B, S, D).
            probe: What is wanted from inside as well.

        Returns:
            Hidden states (B, S, D) and what was probed, if anything.
        """
        cos, sin = rope_table(self.rope, self.config.head_dim, torch.arange(x.shape[1], device=x.device))
        cos, sin = cos[None, None], sin[None, None]
        probed = None
        for index, layer in enumerate(self.layers):
            if probe is not None and index == probe.layer:
                assert isinstance(layer, Block)
                normed = layer.attention_norm(x)
                probed = Probed(normed, layer.attention.probabilities(normed, cos, sin, probe.heads))
            x = layer(x, cos, sin)
        return self.norm(x), probed

    def step(
        self,
        x: Tensor,
        cache: KVCache,
        positions: Tensor,
        *,
        length: int,
        exact: bool = False,
    ) -> Tensor:
        """Run new positions against the cache, filling it.

        Args:
            x: New inputs (B, S, D); S > 1 for a chunk of a prompt.
            cache: Filled up to the first new position of every row; its slots are the rows of ``x``.
            positions: Integer positions of the inputs, (B, S).
            length: Cache positions to read, above the largest of ``positions`` (known on the host, so no sync).
            exact: S is 1 and every row stands at position ``length - 1``: no mask is needed.

        Returns:
            (B, S, D).

        Raises:
            ValueError: If ``length`` exceeds the cache.
        """
        if length > cache.max_positions:
            raise ValueError(f"{length} positions do not fit a cache of {cache.max_positions}; make a larger cache")
        if exact:
            cos, sin, mask = cache.cos[length - 1 : length], cache.sin[length - 1 : length], None
        else:
            cos, sin = cache.cos[positions][:, None], cache.sin[positions][:, None]
            mask = torch.arange(length, device=x.device) <= positions[:, None, :, None]
        view = CacheView(cache, positions, length, mask)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, index, view)
        return self.norm(x)
