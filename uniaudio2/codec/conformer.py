"""MusicFM: the music self-supervised encoder, a conformer over a mel spectrogram at 25 frames a second.

Only what its features need: the output layer, random quantiser, class token, final norm and the unused positional
convolution of the published weights are left out. Source: MusicFM (Won et al. 2023) and wav2vec 2.0 conformers, as
the published UniAudio 2.0 codec uses them.

Shapes: B batch, N samples at 24 kHz, T frames, D width, H heads, F mel bands.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codec.mel import mel_filters
from uniaudio2.errors import UserError
from uniaudio2.rotary import rotary_frequencies, rotary_table, rotate

MEL_MEAN_DB, MEL_STD_DB = 6.768444971712967, 18.417922652295623  # Released weights: statistics of its training set


@dataclass(frozen=True)
class MusicFMConfig:
    """Sizes of MusicFM; the defaults are the published ones."""

    encoder_dim: int = 1024  # D
    conv_dim: int = 512  # channels of the 2-D convolutions
    num_heads: int = 16
    intermediate_size: int = 4096  # hidden channels of the feed-forwards
    depth: int = 12  # layers of the checkpoint; only the first max(acoustic_layer, semantic_layer) are computed
    depthwise_kernel_size: int = 31  # frames, odd
    acoustic_layer: int = 4  # hidden state used as acoustic feature; 0 is the first layer's input
    semantic_layer: int = 11  # hidden state used as semantic feature
    num_mels: int = 128  # F, a multiple of 4
    fft_size: int = 2048  # samples
    hop_length: int = 240  # samples

    def __post_init__(self) -> None:
        if self.encoder_dim % self.num_heads or (self.encoder_dim // self.num_heads) % 2:
            raise UserError(
                f"musicfm encoder_dim {self.encoder_dim} must be an even multiple of num_heads {self.num_heads}"
            )
        for name in ("acoustic_layer", "semantic_layer"):
            if not 0 <= getattr(self, name) <= self.depth:
                raise UserError(f"musicfm {name} must be between 0 and depth {self.depth}, got {getattr(self, name)}")
        if self.depthwise_kernel_size % 2 == 0 or self.num_mels % 4:
            raise UserError("musicfm depthwise_kernel_size must be odd and num_mels a multiple of 4")


class MusicFM(nn.Module):
    """Waveform to the hidden states of the conformer."""

    def __init__(self, config: MusicFMConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config.conv_dim, config.num_mels, config.encoder_dim)
        num_layers = max(config.acoustic_layer, config.semantic_layer)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(num_layers))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Hidden states of audio (B, N): the first layer's input, then each layer's output, all (B, N // 960, D)."""
        x = self.subsampling(self.log_mel(audio))
        frequencies = rotary_frequencies(self.config.encoder_dim // self.config.num_heads, device=x.device)
        rotation = rotary_table(torch.arange(x.shape[1], device=x.device), frequencies)
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], rotation))
        return states

    def log_mel(self, audio: Tensor) -> Tensor:
        """Normalised mel spectrogram in dB of audio (B, N), cut to whole 25 Hz frames, (B, F, 4 T)."""
        frame = 4 * self.config.hop_length
        audio = audio[:, : audio.shape[1] // frame * frame].float()
        return (mel_spectrogram_db(audio, self.config) - MEL_MEAN_DB) / MEL_STD_DB

    def rename_published(self, key: str) -> str | None:
        """Name here of a published key of the MusicFM model; None if it is not needed.

        Raises:
            KeyError: If MusicFM has no such parameter.
        """
        for pattern, replacement in PUBLISHED_NAMES:
            if match := re.match(pattern, key):
                if pattern.startswith(r"conformer\.layers") and int(match[1]) >= len(self.layers):
                    return None
                return match.expand(replacement) + key[match.end() :]
        if any(re.match(pattern, key) for pattern in PUBLISHED_UNUSED):
            return None
        raise KeyError(key)


class Subsampling(nn.Module):
    """Two residual 2-D convolution blocks, each halving time and frequency, then a projection to the width."""

    def __init__(self, channels: int, num_mels: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualConv2d(1, channels), ResidualConv2d(channels, channels)])
        self.projection = nn.Linear(channels * (num_mels // 4), width)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel spectrogram (B, F, 4 T) to (B, T, D)."""
        x = mel[:, None].to(self.projection.weight.dtype)
        for block in self.blocks:
            x = block(x)
        return self.projection(x.permute(0, 3, 1, 2).flatten(2))  # (B, T, channels * F / 4)


class ResidualConv2d(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, and a strided skip connection."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm_1 = nn.BatchNorm2d(out_channels)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm_2 = nn.BatchNorm2d(out_channels)
        self.conv_skip = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm_skip = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, f, t) to (B, out_channels, f / 2, t / 2)."""
        h = self.norm_2(self.conv_2(F.relu(self.norm_1(self.conv_1(x)))))
        return F.relu(h + self.norm_skip(self.conv_skip(x)))


class ConformerLayer(nn.Module):
    """Half-step feed-forward, self-attention, convolution, half-step feed-forward, norm."""

    def __init__(self, config: MusicFMConfig) -> None:
        super().__init__()
        width = config.encoder_dim
        self.norm_ff_1 = nn.LayerNorm(width)
        self.ff_1 = FeedForward(width, config.intermediate_size)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = RotaryAttention(width, config.num_heads)
        self.conv = ConvModule(width, config.depthwise_kernel_size)
        self.norm_ff_2 = nn.LayerNorm(width)
        self.ff_2 = FeedForward(width, config.intermediate_size)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, T, D) to the same shape; ``rotation`` as `rotary_table` returns it."""
        x = x + 0.5 * self.ff_1(self.norm_ff_1(x))
        x = x + self.attention(self.norm_attention(x), rotation)
        x = x + self.conv(x)
        x = x + 0.5 * self.ff_2(self.norm_ff_2(x))
        return self.norm_out(x)


class FeedForward(nn.Module):
    """Linear, swish, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each frame of ``x`` (B, T, D) alone."""
        return self.output(F.silu(self.hidden(x)))


class RotaryAttention(nn.Module):
    """Bidirectional attention whose input, not its queries and keys, is rotated.

    Released weights: the rotation is applied to each head's slice of the hidden state **before** the query and key
    projections; values come from the unrotated state.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Let every frame of ``x`` (B, T, D) attend to all frames."""
        cos, sin = (table[:, None] for table in rotation)  # (T, 1, D/H)
        rotated = rotate(x.unflatten(2, (self.num_heads, -1)), cos, sin).flatten(2)
        q, k, v = (
            y.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for y in (self.query(rotated), self.key(rotated), self.value(x))
        )  # (B, H, T, D/H)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.output(out.transpose(1, 2).flatten(2))


class ConvModule(nn.Module):
    """Norm, gated pointwise convolution, depthwise convolution, batch norm, swish, pointwise convolution."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False)
        self.batch_norm = nn.BatchNorm1d(width)
        self.output = nn.Conv1d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to the same shape."""
        h = F.glu(self.gate(self.norm(x).transpose(1, 2)), dim=1)
        h = F.silu(self.batch_norm(self.depthwise(h)))
        return self.output(h).transpose(1, 2)


def mel_spectrogram_db(audio: Tensor, config: MusicFMConfig, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Power mel spectrogram in dB: audio (B, N), N a multiple of the hop, to (B, F, N / hop), float32."""
    window = torch.hann_window(config.fft_size, device=audio.device, dtype=torch.float32)
    spectrum = torch.stft(audio, config.fft_size, config.hop_length, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    filters = htk_filters(config.fft_size // 2 + 1, config.num_mels, sample_rate).to(audio.device)
    return 10.0 * (filters.T @ power).clamp(min=1e-10).log10()


def htk_filters(num_bins: int, num_mels: int, sample_rate: int) -> Tensor:
    """Triangular filters of unit height on the HTK mel scale, 0 Hz to Nyquist, (num_bins, num_mels), float32."""
    return mel_filters(num_mels, 2 * (num_bins - 1), sample_rate, norm="height", device="cpu").T.float()


# Start of a published name -> start of the name here; the first match counts.
PUBLISHED_NAMES: tuple[tuple[str, str], ...] = (
    (r"conv\.linear\.", r"subsampling.projection."),
    (r"conv\.conv\.(\d)\.conv([12])\.", r"subsampling.blocks.\1.conv_\2."),
    (r"conv\.conv\.(\d)\.bn([12])\.", r"subsampling.blocks.\1.norm_\2."),
    (r"conv\.conv\.(\d)\.conv3\.", r"subsampling.blocks.\1.conv_skip."),
    (r"conv\.conv\.(\d)\.bn3\.", r"subsampling.blocks.\1.norm_skip."),
    (r"conformer\.layers\.(\d+)\.ffn([12])\.intermediate_dense\.", r"layers.\1.ff_\2.hidden."),
    (r"conformer\.layers\.(\d+)\.ffn([12])\.output_dense\.", r"layers.\1.ff_\2.output."),
    (r"conformer\.layers\.(\d+)\.ffn([12])_layer_norm\.", r"layers.\1.norm_ff_\2."),
    (r"conformer\.layers\.(\d+)\.self_attn_layer_norm\.", r"layers.\1.norm_attention."),
    (r"conformer\.layers\.(\d+)\.self_attn\.linear_q\.", r"layers.\1.attention.query."),
    (r"conformer\.layers\.(\d+)\.self_attn\.linear_k\.", r"layers.\1.attention.key."),
    (r"conformer\.layers\.(\d+)\.self_attn\.linear_v\.", r"layers.\1.attention.value."),
    (r"conformer\.layers\.(\d+)\.self_attn\.linear_out\.", r"layers.\1.attention.output."),
    (r"conformer\.layers\.(\d+)\.conv_module\.layer_norm\.", r"layers.\1.conv.norm."),
    (r"conformer\.layers\.(\d+)\.conv_module\.pointwise_conv1\.", r"layers.\1.conv.gate."),
    (r"conformer\.layers\.(\d+)\.conv_module\.depthwise_conv\.", r"layers.\1.conv.depthwise."),
    (r"conformer\.layers\.(\d+)\.conv_module\.batch_norm\.", r"layers.\1.conv.batch_norm."),
    (r"conformer\.layers\.(\d+)\.conv_module\.pointwise_conv2\.", r"layers.\1.conv.output."),
    (r"conformer\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.norm_out."),
)

# Published entries that the features do not need, or that are computed here.
PUBLISHED_UNUSED: tuple[str, ...] = (
    r"cls_token$",
    r"linear\.(weight|bias)$",
    r"conformer\.layer_norm\.",
    r"conformer\.pos_conv_embed\.",
    r"conformer\.embed_positions\.inv_freq$",
    r"preprocessor_melspec_2048\.",
    r"quantizer_melspec_2048\.",
)
