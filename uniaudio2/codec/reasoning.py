"""The reasoning branch: features at 25 Hz -> one learned query per 5 frames -> transformer -> codes at 5 Hz.

Owns the encoder and its quantiser. What makes the codes *text-aligned* is the loss of the decoder that reads them,
which lives elsewhere. Source: UniAudio 2.0 (arXiv:2602.04683), the ReasoningCodec section, and the released weights.

Shapes: ``B`` batch, ``T`` 25 Hz frames, ``T_rea`` 5 Hz frames, ``K`` codebooks, ``D`` width, ``H`` heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.codec.quantize import Quantized, QuantizerConfig, ResidualVectorQuantize
from uniaudio2.codec.quantize import rename_published as rename_published_quantizer
from uniaudio2.errors import UserError
from uniaudio2.rotary import rotary_frequencies, rotary_table, rotate

if TYPE_CHECKING:
    from uniaudio2.codec.features import FeatureInfo

INPUT_RATE_HZ = 25.0
"""Rate at which features enter the transformer."""


@dataclass(frozen=True)
class ReasoningConfig:
    """Sizes of the reasoning branch. The released weights have the defaults that are given here."""

    dim: int  # D, width of the transformer and of the quantised vectors
    num_layers: int
    num_heads: int
    feed_forward_dim: int  # hidden width of the gated feed-forward
    quantizer: QuantizerConfig  # K = 8
    inputs: tuple[str, ...] = ("speech", "semantic")  # feature roles, in the order of their concatenation
    frames_per_query: int = 5  # 25 Hz frames per reasoning frame
    layer_scale: float = 0.01  # initial value of the learned per-channel factors on both residual branches
    dropout: float = 0.0  # on both residual branches, training only

    def __post_init__(self) -> None:
        if self.dim < 1 or self.num_layers < 1 or self.feed_forward_dim < 1 or self.frames_per_query < 1:
            raise UserError("dim, num_layers, feed_forward_dim and frames_per_query must be at least 1")
        if self.num_heads < 1 or self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise UserError(f"dim {self.dim} must be an even multiple of num_heads {self.num_heads}")
        if not self.inputs:
            raise UserError("inputs must name at least one feature role")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout must lie in [0, 1), got {self.dropout}")


def strided_convolution(info: FeatureInfo, rate_hz: float, role: str) -> nn.Module:
    """Convolution whose kernel and stride bring a feature to ``rate_hz``; nothing where it has that rate already.

    Args:
        info: Channels and frame rate of the feature.
        rate_hz: Wanted frame rate.
        role: Name of the feature for the message.

    Raises:
        ValueError: If the feature's rate is not a multiple of ``rate_hz``.
    """
    stride = round(info.frame_rate_hz / rate_hz)
    if stride < 1 or abs(stride * rate_hz - info.frame_rate_hz) > 1e-6:
        raise UserError(f"feature '{role}' has {info.frame_rate_hz:g} Hz, which is not a multiple of {rate_hz:g} Hz")
    if stride == 1:
        return nn.Identity()
    return nn.Conv1d(info.channels, info.channels, kernel_size=stride, stride=stride)


def apply_over_time(convolution: nn.Module, x: Tensor) -> Tensor:
    """Run a module that wants (B, D, T) on (B, T, D)."""
    return x if isinstance(convolution, nn.Identity) else convolution(x.transpose(1, 2)).transpose(1, 2)


def get_feature(features: Mapping[str, Tensor], role: str) -> Tensor:
    """A feature by its role, or a clear message."""
    if role not in features:
        raise ValueError(f"feature '{role}' is missing; the encoders give {sorted(features)}")
    return features[role]


def get_info(feature_info: Mapping[str, FeatureInfo], role: str) -> FeatureInfo:
    """A feature's description by its role, or a clear message."""
    if role not in feature_info:
        raise UserError(f"no encoder gives the feature '{role}'; there are {sorted(feature_info)}")
    return feature_info[role]


class ReasoningAttention(nn.Module):
    """Bidirectional attention with normalised queries and keys and partly rotated heads. (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.rotary_dim = min(max(head_dim // 2, 32), head_dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.query_norm = nn.LayerNorm(head_dim)
        self.key_norm = nn.LayerNorm(head_dim)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all rows."""
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        frequencies = rotary_frequencies(self.rotary_dim, device=x.device)
        table = rotary_table(torch.arange(x.shape[1], device=x.device), frequencies)
        q, k = (rotate(part.float(), *table).to(x.dtype) for part in (self.query_norm(q), self.key_norm(k)))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """Linear, first half times the sigmoid of the second half, linear. (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden_dim)
        self.down = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every row."""
        return self.down(F.glu(self.up(x), dim=-1))


class ReasoningBlock(nn.Module):
    """x + s1 * attention(x), then x + s2 * feed_forward(x): no norm on the residual path, learned scales s.

    Released weights: the linears are weight-normalised; conversion folds that into plain weights.
    """

    def __init__(self, config: ReasoningConfig) -> None:
        super().__init__()
        self.attention = ReasoningAttention(config.dim, config.num_heads)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        self.feed_forward = GatedFeedForward(config.dim, config.feed_forward_dim)
        self.feed_forward_scale = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.dropout(self.attention(x)) * self.attention_scale
        return x + self.dropout(self.feed_forward(x)) * self.feed_forward_scale


class ReasoningEncoder(nn.Module):
    """Features -> quantised reasoning vectors and codes at 5 Hz.

    Args:
        config: Sizes.
        feature_info: Channels and frame rate of every feature role that ``config.inputs`` names.
    """

    def __init__(self, config: ReasoningConfig, feature_info: Mapping[str, FeatureInfo]) -> None:
        super().__init__()
        self.config = config
        infos = {role: get_info(feature_info, role) for role in config.inputs}
        self.downsample = nn.ModuleDict(
            {role: strided_convolution(info, INPUT_RATE_HZ, role) for role, info in infos.items()}
        )
        self.merge = nn.Linear(sum(info.channels for info in infos.values()), config.dim)
        self.query = nn.Parameter(torch.randn(1, config.dim) * 0.02)
        self.blocks = nn.ModuleList(ReasoningBlock(config) for _ in range(config.num_layers))
        self.quantizer = ResidualVectorQuantize.from_config(config.dim, config.quantizer)

    def forward(self, features: Mapping[str, Tensor]) -> Quantized:
        """Encode and quantise.

        Args:
            features: Role -> (B, T_role, C); their common length at 25 Hz must be a multiple of
                ``frames_per_query`` (audio padded to 0.4 s gives that).

        Returns:
            Quantised vectors (B, T_rea, D), codes (B, K, T_rea), loss and perplexities.

        Raises:
            ValueError: If a role is missing or the length is no such multiple.
        """
        return self.quantizer(self.encode_queries(features))

    def encode_queries(self, features: Mapping[str, Tensor]) -> Tensor:
        """The vectors before quantisation, (B, T_rea, D). Arguments and errors as in :meth:`forward`."""
        x = self.insert_queries(self.merge_features(features))
        for block in self.blocks:
            x = block(x)
        return x[:, self.config.frames_per_query :: self.config.frames_per_query + 1]

    def merge_features(self, features: Mapping[str, Tensor]) -> Tensor:
        """Bring the inputs to 25 Hz, cut them to the shortest and merge them: (B, T, D)."""
        parts = [apply_over_time(self.downsample[role], get_feature(features, role)) for role in self.config.inputs]
        length = min(part.shape[1] for part in parts)
        return self.merge(torch.cat([part[:, :length] for part in parts], dim=-1))

    def insert_queries(self, x: Tensor) -> Tensor:
        """Put the learned query after every ``frames_per_query`` rows: (B, T, D) -> (B, T + T / 5, D)."""
        batch, length, dim = x.shape
        group = self.config.frames_per_query
        if length == 0 or length % group:
            raise ValueError(
                f"the reasoning branch needs a positive multiple of {group} frames at 25 Hz, got {length}; "
                "pad the audio to a multiple of 0.4 s"
            )
        groups = x.view(batch, length // group, group, dim)
        query = self.query.to(x.dtype).expand(batch, length // group, 1, dim)
        return torch.cat([groups, query], dim=2).flatten(1, 2)

    def decode(self, codes: Tensor) -> Tensor:
        """Quantised vectors (B, T_rea, D) of codes (B, K, T_rea); refuses codes out of range."""
        return self.quantizer.decode(codes)


PUBLISHED_NAMES = {
    "cls_token": "query",
    "semantic_merge_proj.": "merge.",
    "down_sampling_layer_whisper.": "downsample.speech.",
    "reasoning_vq.": "quantizer.",
    "encoder_transformers.": "blocks.",
}
"""Beginnings of published names below ``audio_thinking.`` and ours."""

PUBLISHED_BLOCK_NAMES = {
    "self_attn.to_qkv.": "attention.qkv.",
    "self_attn.to_out.": "attention.out.",
    "self_attn.q_norm.": "attention.query_norm.",
    "self_attn.k_norm.": "attention.key_norm.",
    "self_attn_scale.scale": "attention_scale",
    "ff.ff.0.proj.": "feed_forward.up.",
    "ff.ff.2.": "feed_forward.down.",
    "ff_scale.scale": "feed_forward_scale",
}
"""Beginnings of published names inside one block and ours."""


def rename_published(key: str) -> str | None:
    """Our name of a published key, given without its ``audio_thinking.``; None for what is not needed.

    Weight-normalised linears keep the ending of their halves, which are folded into one weight afterwards.

    Raises:
        KeyError: If the key is not known.
    """
    for theirs, ours in PUBLISHED_NAMES.items():
        if not key.startswith(theirs):
            continue
        rest = key.removeprefix(theirs)
        if theirs == "reasoning_vq.":
            inner = rename_published_quantizer(rest)
            return None if inner is None else ours + inner
        if theirs == "encoder_transformers.":
            number, _, rest = rest.partition(".")
            if rest == "rope.inv_freq":
                return None  # computed
            return f"{ours}{number}.{_rename_in_block(rest)}"
        return ours + rest
    raise KeyError(key)


def _rename_in_block(key: str) -> str:
    for theirs, ours in PUBLISHED_BLOCK_NAMES.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    raise KeyError(key)
