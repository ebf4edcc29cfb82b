"""Waveform <-> continuous latents at 25 Hz: the interface, its registry and the published class.

An autoencoder is an ``nn.Module`` with ``encode``, ``decode``, ``latent_dim`` and ``hop_length`` (see `Autoencoder`);
presets choose one by its name in `AUTOENCODERS`. `SQCodec` is the published one. Source: UniAudio 2.0
(arXiv:2602.04683), whose codec decodes into the latents of a scalar-quantised autoencoder, and its published weights.

Shapes: B batch, N samples, T latent frames, C latent channels. Convolutions inside run on (B, channels, time).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.codec.registry import AUTOENCODERS
from uniaudio2.errors import UserError

QUANTIZATION_LEVELS = 9  # decoding rounds latents to ninths: 19 values in [-1, 1]
DILATIONS = (1, 3, 5, 7, 9)  # of the five residual units of a block


class Autoencoder(nn.Module):
    """What the codec needs from an autoencoder: base of every class in `AUTOENCODERS`."""

    latent_dim: int  # C
    hop_length: int  # samples per latent frame
    encoding_parts: frozenset[str]  # submodules that latents depend on; the others only decode

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, 1, N), N a multiple of ``hop_length``, to latents (B, T, C) in [-1, 1], not rounded."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, T, C), rounded here, to audio (B, 1, T * hop_length)."""
        raise NotImplementedError


def round_latents(latents: Tensor, *, straight_through: bool = False) -> Tensor:
    """Round to ninths (halves to even), optionally with the gradient of the identity.

    Source: the published autoencoder, which rounds before decoding and not after encoding.
    """
    rounded = torch.round(latents * QUANTIZATION_LEVELS) / QUANTIZATION_LEVELS
    return latents + (rounded - latents).detach() if straight_through else rounded


@dataclass(frozen=True)
class SQCodecConfig:
    """Sizes of the published autoencoder, named as in ``sqcodec_config.yaml`` (``generator.config``), no defaults."""

    num_bands: int  # waveform channels; 1
    sample_rate: int  # Hz
    causal: bool  # whether convolutions see only the past (the decoder's first one always looks ahead)
    num_samples: int  # pooling at the waveform end; 1 is none
    downsample_factors: tuple[int, ...]  # strides of the encoder
    downsample_kernel_sizes: tuple[int, ...]
    upsample_factors: tuple[int, ...]  # strides of the decoder
    upsample_kernel_sizes: tuple[int, ...]
    latent_hidden_dim: int  # C, latent channels; 136 in the published weights
    default_kernel_size: int  # of the outer convolutions, odd
    delay_kernel_size: int  # of the decoder's first convolution, odd
    init_channel: int  # width at the waveform end; doubles per block
    res_kernel_size: int  # of the residual units, odd

    def __post_init__(self) -> None:
        if self.num_bands != 1:
            raise UserError(f"autoencoder num_bands must be 1 (mono without a filter bank), got {self.num_bands}")
        for kind in ("downsample", "upsample"):
            factors, kernels = getattr(self, f"{kind}_factors"), getattr(self, f"{kind}_kernel_sizes")
            if not factors or len(factors) != len(kernels) or min(*factors, *kernels) < 1:
                raise UserError(f"autoencoder {kind}_factors and {kind}_kernel_sizes must pair up, all at least 1")
        if prod(self.downsample_factors) != prod(self.upsample_factors):
            raise UserError("autoencoder downsample_factors and upsample_factors must have the same product")
        if self.causal and any(
            k != 2 * s for k, s in zip(self.upsample_kernel_sizes, self.upsample_factors, strict=True)
        ):
            raise UserError("a causal autoencoder needs upsample_kernel_sizes of twice the upsample_factors")
        for name in ("num_samples", "latent_hidden_dim", "init_channel"):
            if getattr(self, name) < 1:
                raise UserError(f"autoencoder {name} must be at least 1, got {getattr(self, name)}")
        for name in ("default_kernel_size", "delay_kernel_size", "res_kernel_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise UserError(f"autoencoder {name} must be odd, got {getattr(self, name)}")


@AUTOENCODERS.register("sqcodec", SQCodecConfig)
class SQCodec(Autoencoder):
    """The published scalar-quantised convolutional autoencoder.

    Weight normalisation of the published file is folded into plain weights on conversion (`fold_weight_norm`).
    """

    encoding_parts = frozenset({"encoder"})

    def __init__(self, config: SQCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = config.latent_hidden_dim
        self.hop_length = config.num_samples * prod(config.downsample_factors)
        self.encoder = SQEncoder(config)
        self.decoder = SQDecoder(config)

    def encode(self, audio: Tensor) -> Tensor:
        """Encode audio to latents; deterministic and without rounding.

        Args:
            audio: Waveform in [-1, 1], (B, 1, N), N a multiple of ``hop_length``.

        Returns:
            Latents in [-1, 1], (B, N / hop_length, C).

        Raises:
            ValueError: If the shape is another.
        """
        if audio.ndim != 3 or audio.shape[1] != 1 or audio.shape[2] % self.hop_length or audio.shape[2] == 0:
            raise UserError(
                f"audio must be (B, 1, N) with N a positive multiple of {self.hop_length}, got {tuple(audio.shape)}"
            )
        return self.encoder(audio).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Round latents to ninths and decode them; rounding passes gradients straight through in training mode.

        Args:
            latents: (B, T, C).

        Returns:
            Waveform (B, 1, T * hop_length); not limited to [-1, 1].

        Raises:
            ValueError: If the shape is another.
        """
        if latents.ndim != 3 or latents.shape[2] != self.latent_dim:
            raise ValueError(f"latents must be (B, T, {self.latent_dim}), got {tuple(latents.shape)}")
        rounded = round_latents(latents, straight_through=self.training)
        return self.decoder(rounded.transpose(1, 2))[..., : latents.shape[1] * self.hop_length]


class SQEncoder(nn.Module):
    """Strided convolutions with dilated residual units, ``tanh`` at the end: (B, 1, N) to (B, C, T)."""

    def __init__(self, config: SQCodecConfig) -> None:
        super().__init__()
        causal, kernel, width = config.causal, config.default_kernel_size, config.init_channel
        self.pool_size = config.num_samples
        self.input_conv = Conv(1, width, kernel, causal=causal)
        self.pool_conv = Conv(width, width, kernel, causal=causal) if self.pool_size > 1 else None
        self.pool_activation = nn.PReLU() if self.pool_size > 1 else None
        self.blocks = nn.ModuleList()
        for stride, down_kernel in zip(config.downsample_factors, config.downsample_kernel_sizes, strict=True):
            self.blocks.append(DownBlock(width, stride, down_kernel, config.res_kernel_size, causal=causal))
            width *= 2
        # Released weights: one parameter shared by all down-sampling layers.
        self.down_activation = nn.PReLU()
        self.output_conv = Conv(width, config.latent_hidden_dim, kernel, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 1, N) to (B, C, T)."""
        x = self.input_conv(x)
        if self.pool_conv is not None and self.pool_activation is not None:
            x = F.avg_pool1d(self.pool_activation(self.pool_conv(x)), self.pool_size)
        for block in self.blocks:
            x = self.down_activation(block(x))
        return torch.tanh(self.output_conv(x))


class SQDecoder(nn.Module):
    """Transposed convolutions with dilated residual units: (B, C, T) to (B, 1, N)."""

    def __init__(self, config: SQCodecConfig) -> None:
        super().__init__()
        causal, kernel = config.causal, config.default_kernel_size
        width = config.init_channel * 2 ** len(config.upsample_factors)
        self.pool_size = config.num_samples
        # Released weights: this one looks ahead even when the rest is causal.
        self.input_conv = Conv(config.latent_hidden_dim, width, config.delay_kernel_size, causal=False)
        self.blocks = nn.ModuleList()
        for stride, up_kernel in zip(config.upsample_factors, config.upsample_kernel_sizes, strict=True):
            self.blocks.append(UpBlock(width, stride, up_kernel, config.res_kernel_size, causal=causal))
            width //= 2
        self.pool_conv = Conv(width, width, kernel, causal=causal) if self.pool_size > 1 else None
        self.pool_activation = nn.PReLU() if self.pool_size > 1 else None
        self.output_conv = Conv(width, 1, kernel, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """Decode (B, C, T) to (B, 1, N)."""
        x = self.input_conv(x)
        for block in self.blocks:
            x = block(x)
        if self.pool_conv is not None and self.pool_activation is not None:
            x = self.pool_activation(self.pool_conv(x.repeat_interleave(self.pool_size, dim=2)))
        return self.output_conv(x)


class DownBlock(nn.Module):
    """Residual units, then a strided convolution to twice the width."""

    def __init__(self, width: int, stride: int, kernel_size: int, unit_kernel_size: int, *, causal: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(ResidualUnit(width, unit_kernel_size, d, causal=causal) for d in DILATIONS)
        self.conv = Conv(width, 2 * width, kernel_size, stride=stride, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, n) to (B, 2 width, n / stride)."""
        for unit in self.units:
            x = unit(x)
        return self.conv(x)


class UpBlock(nn.Module):
    """A transposed convolution to half the width, then residual units."""

    def __init__(self, width: int, stride: int, kernel_size: int, unit_kernel_size: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        padding = 0 if causal else (kernel_size - stride) // 2
        self.conv = nn.ConvTranspose1d(width, width // 2, kernel_size, stride=stride, padding=padding)
        self.stride = stride
        self.units = nn.ModuleList(ResidualUnit(width // 2, unit_kernel_size, d, causal=causal) for d in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, n) to (B, width / 2, n * stride)."""
        x = self.conv(x)
        if self.causal:
            x = x[..., : -self.stride]
        for unit in self.units:
            x = unit(x)
        return x


class ResidualUnit(nn.Module):
    """A dilated and a pointwise convolution, each followed by a PReLU, around a skip connection."""

    def __init__(self, width: int, kernel_size: int, dilation: int, *, causal: bool) -> None:
        super().__init__()
        self.conv_1 = Conv(width, width, kernel_size, dilation=dilation, causal=causal)
        self.activation_1 = nn.PReLU()
        self.conv_2 = Conv(width, width, 1, causal=causal)
        self.activation_2 = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, n) to the same shape."""
        return x + self.activation_2(self.conv_2(self.activation_1(self.conv_1(x))))


class Conv(nn.Conv1d):
    """Convolution padded with zeros: all on the left if causal, half on each side if not."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        causal: bool,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
        total = dilation * (kernel_size - 1)
        self.zeros = (total, 0) if causal else (total // 2, total // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, n) to (B, out_channels, n / stride)."""
        return super().forward(F.pad(x, self.zeros))


def rename_published(key: str, config: SQCodecConfig) -> str:
    """Name in `SQCodec` of a key of the published ``codec_model``.

    Keys of weight-normalised layers keep their ending (``weight_g``, ``weight_v`` or the parametrised spelling) for
    `fold_weight_norm`. All copies of the shared down-sampling activation get the same name: they must be equal.

    Args:
        key: Key as in the file.
        config: Sizes, which decide what the numbered layers are.

    Raises:
        KeyError: If the published autoencoder has no such parameter.
    """
    match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.(.+)", key)
    if match is None:
        raise KeyError(key)
    side, index, rest = match[1], int(match[2]), match[3]
    pooled = config.num_samples > 1
    if side == "encoder":
        num_blocks, first_block = len(config.downsample_factors), 2 if pooled else 1
        last, pool = first_block + num_blocks, 1
    else:
        num_blocks, first_block = len(config.upsample_factors), 1
        last, pool = first_block + num_blocks + pooled, first_block + num_blocks
    ending = r"(bias|weight|weight_g|weight_v|parametrizations\.weight\.original[01])"
    if index == 0 and re.fullmatch(ending, rest):
        return f"{side}.input_conv.{rest}"
    if index == last and re.fullmatch(ending, rest):
        return f"{side}.output_conv.{rest}"
    if pooled and index == pool and re.fullmatch(rf"(conv\.{ending}|activation\.weight)", rest):
        return f"{side}.pool_{rest}"
    if first_block <= index < first_block + num_blocks:
        if side == "encoder" and rest == "down_conv.activation.weight":
            return "encoder.down_activation.weight"
        block = f"{side}.blocks.{index - first_block}"
        if inner := re.fullmatch(rf"(?:down|up)_conv\.layer\.{ending}", rest):
            return f"{block}.conv.{inner[1]}"
        if inner := re.fullmatch(rf"convs\.(\d)\.(conv|activation)([12])\.{ending}", rest):
            return f"{block}.units.{inner[1]}.{inner[2]}_{inner[3]}.{inner[4]}"
    raise KeyError(key)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace every weight-normalised pair by the plain weight ``g v / |v|``, in either published spelling.

    Args:
        state: May hold ``X.weight_g`` and ``X.weight_v``, or ``X.parametrizations.weight.original0`` (g) and
            ``original1`` (v); the norm is over the axes in which g has size 1.

    Returns:
        The state with ``X.weight`` in their place; other entries unchanged.

    Raises:
        ValueError: If one half of a pair is missing.
    """
    folded: dict[str, Tensor] = {}
    for key, value in state.items():
        for g_ending, v_ending in (
            ("weight_g", "weight_v"),
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        ):
            if key.endswith(f".{g_ending}"):
                stem = key.removesuffix(g_ending)
                if stem + v_ending not in state:
                    raise UserError(f"weight normalisation is incomplete: {stem + v_ending} is missing")
                folded[f"{stem}weight"] = apply_weight_norm(value, state[stem + v_ending])
                break
            if key.endswith(f".{v_ending}"):
                if key.removesuffix(v_ending) + g_ending not in state:
                    raise UserError(
                        f"weight normalisation is incomplete: {key.removesuffix(v_ending) + g_ending} is missing"
                    )
                break
        else:
            folded[key] = value
    return folded


def apply_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """The weight ``g v / |v|``, the norm taken over the axes in which ``g`` has size 1."""
    axes = [axis for axis, size in enumerate(g.shape) if size == 1]
    return v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))
