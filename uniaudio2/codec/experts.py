"""Small audio experts trained from scratch for ``nano``: what Whisper, WavLM and MusicFM are to the published codec.

Both read log-mel frames and give 25 Hz features; both are frozen once their own objectives have given them a meaning:

- ``SpeechExpert``: connectionist temporal classification on phonemes, so that its last layer says *what is spoken*;
- ``SoundExpert``: tags, pitch, loudness and masked-mel prediction, so that its last layer says *what sounds, and how
  it moves*.

Shapes: ``B`` batch, ``N`` samples, ``T`` 25 Hz frames, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.codec.features import AudioEncoder, FeatureInfo
from uniaudio2.codec.mel import LogMel
from uniaudio2.codec.registry import ENCODERS
from uniaudio2.codec.whisper import WhisperConfig, WhisperEncoder
from uniaudio2.errors import UserError
from uniaudio2.rotary import rotary_table, rotate


@dataclass(frozen=True)
class ExpertConfig:
    """Size of one expert."""

    width: int = 192
    num_layers: int = 5
    num_heads: int = 4
    feed_forward: int = 768
    kernel_size: int = 15  # frames at 25 Hz of the depthwise convolution
    context_frames: int = 50  # attention reaches this far to each side; 50 = 2 s
    num_bands: int = 80
    f_max_hz: float = 8000.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise UserError(f"width {self.width} must be a multiple of twice num_heads {self.num_heads}")


def rotary(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary positions over the time axis of (B, H, T, d)."""
    half = x.shape[-1] // 2
    # Released weights: the power of a negative exponent, which rounds otherwise than `rotary_frequencies`.
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    return rotate(x, *rotary_table(torch.arange(x.shape[-2], device=x.device), frequencies))


class ExpertBlock(nn.Module):
    """Local self-attention, gated depthwise convolution and feed-forward, each pre-norm and residual.

    Choice: a conformer block with one feed-forward instead of two halves, because at this width the second half buys
    less than another layer does.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        d = config.width
        self.num_heads = config.num_heads
        self.attention_norm, self.conv_norm, self.feed_norm = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.attention_out = nn.Linear(d, d, bias=False)
        self.conv_in = nn.Linear(d, 2 * d)
        self.conv = nn.Conv1d(d, d, config.kernel_size, padding=config.kernel_size // 2, groups=d)
        self.conv_mid_norm = nn.LayerNorm(d)
        self.conv_out = nn.Linear(d, d)
        self.feed_in = nn.Linear(d, config.feed_forward)
        self.feed_out = nn.Linear(config.feed_forward, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (T, T) true where attention is allowed -> (B, T, D)."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(rotary(q), rotary(k), v, attn_mask=mask)
        x = x + self.dropout(self.attention_out(h.transpose(1, 2).reshape(b, t, d)))
        h = F.glu(self.conv_in(self.conv_norm(x)), -1)
        h = self.conv(h.transpose(1, 2)).transpose(1, 2)
        x = x + self.dropout(self.conv_out(F.silu(self.conv_mid_norm(h))))
        return x + self.dropout(self.feed_out(F.gelu(self.feed_in(self.feed_norm(x)))))


class Expert(AudioEncoder):
    """Frames of some kind, a stem that brings them to 25 Hz, ``num_layers`` blocks; here with log-mel frames."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.build_stem()
        self.blocks = nn.ModuleList([ExpertBlock(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.width)

    def build_stem(self) -> None:
        """Make what `frames` and `stem` need: log-mel frames at 100 Hz, two strided convolutions to 25 Hz."""
        d, bands = self.config.width, self.config.num_bands
        self.mel = LogMel(bands, f_max=self.config.f_max_hz)
        self.stem_1 = nn.Conv1d(bands, d, 4, stride=2, padding=1)
        self.stem_2 = nn.Conv1d(d, d, 4, stride=2, padding=1)

    def frames(self, audio: Tensor) -> Tensor:
        """What the stem reads of audio (B, 1, N), N a multiple of 960: (B, r T, C), r frames per 25 Hz frame."""
        return self.mel(audio)

    def stem(self, frames: Tensor) -> Tensor:
        """Frames (B, r T, C) at 25 Hz: (B, T, D)."""
        frames = frames.to(self.stem_1.weight.dtype)
        return F.gelu(self.stem_2(F.gelu(self.stem_1(frames.transpose(1, 2))))).transpose(1, 2)

    def hidden_states(self, frames: Tensor) -> list[Tensor]:
        """Every layer's output.

        Args:
            frames: As `frames` gives them.

        Returns:
            ``num_layers + 1`` tensors (B, T, D): the stem's output first, the last one normalised.
        """
        x = self.stem(frames)
        position = torch.arange(x.shape[1], device=x.device)
        mask = (position[:, None] - position[None]).abs() <= self.config.context_frames
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1], mask))
        states[-1] = self.norm(states[-1])
        return states


@ENCODERS.register("speech_expert", ExpertConfig)
class SpeechExpert(Expert):
    """Phoneme expert: ``phone`` is its last layer, ``speech`` its middle and last layers side by side."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        self.feature_info = {
            "speech": FeatureInfo(2 * config.width, 25.0),
            "phone": FeatureInfo(config.width, 25.0),
        }

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """audio (B, 1, N), N a multiple of 960 -> {"speech": (B, T, 2 D), "phone": (B, T, D)}."""
        return self.features(self.hidden_states(self.frames(audio)))

    @staticmethod
    def features(states: list[Tensor]) -> dict[str, Tensor]:
        """What is handed on of the `hidden_states`."""
        return {"speech": torch.cat((states[len(states) // 2], states[-1]), -1), "phone": states[-1]}


@dataclass(frozen=True)
class WhisperExpertConfig(ExpertConfig):
    """A phoneme expert on Whisper: what listens below, and the blocks above."""

    num_layers: int = 2
    whisper: WhisperConfig = field(default_factory=lambda: WHISPER_BASE)


WHISPER_BASE = WhisperConfig(
    d_model=512,
    encoder_layers=6,
    encoder_attention_heads=8,
    encoder_ffn_dim=2048,
    padded=False,
    features={"sound": 2, "phone": 5, "word": 6},
)
"""Choice: the voice and the sound are clearest in a low layer, phones in the last two (docs/lab/diary.md)."""


@ENCODERS.register("whisper_expert", WhisperExpertConfig)
class WhisperExpert(SpeechExpert):
    """The phoneme expert that hears through Whisper's encoder, which stays as it is; frames at 50 Hz are its layers."""

    config: WhisperExpertConfig

    def build_stem(self) -> None:
        """Whisper; a norm for each of its layers; two convolutions, the second one to 25 Hz."""
        whisper, d = self.config.whisper, self.config.width
        self.whisper = WhisperEncoder(whisper).freeze()
        self.whisper.apart = "whisper"
        self.layer_norms = nn.ModuleList([nn.LayerNorm(whisper.d_model) for _ in whisper.features])
        self.stem_1 = nn.Conv1d(whisper.d_model * len(whisper.features), d, 1)
        self.stem_2 = nn.Conv1d(d, d, 4, stride=2, padding=1)

    def unfreeze(self) -> Self:
        """Let all but Whisper learn."""
        super().unfreeze()
        self.whisper.requires_grad_(False)
        return self

    @torch.no_grad()
    def frames(self, audio: Tensor) -> Tensor:
        """Layers of Whisper side by side, (B, 2 T, C), of audio (B, 1, N)."""
        return torch.cat(list(self.whisper(audio).values()), -1)

    def stem(self, frames: Tensor) -> Tensor:
        """Frames (B, 2 T, C) at 25 Hz: (B, T, D)."""
        parts = frames.to(self.stem_1.weight.dtype).split(self.config.whisper.d_model, -1)
        return super().stem(torch.cat([norm(x) for norm, x in zip(self.layer_norms, parts, strict=True)], -1))


@ENCODERS.register("sound_expert", ExpertConfig)
class SoundExpert(Expert):
    """Tag, pitch and loudness expert: ``semantic`` is its last layer."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        self.feature_info = {"semantic": FeatureInfo(config.width, 25.0)}

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """audio (B, 1, N), N a multiple of 960 -> {"semantic": (B, T, D)}."""
        return {"semantic": self.hidden_states(self.frames(audio))[-1]}
