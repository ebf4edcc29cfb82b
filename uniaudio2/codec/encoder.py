"""What every feature encoder is: audio in, time-aligned features out; and the resampling in front of them.

Shapes: B batch, N samples at 24 kHz, T frames, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.audio import SAMPLE_RATE

ENCODER_SAMPLE_RATE = 16_000  # Hz, what Whisper and WavLM listen at
FRAME_LENGTH = SAMPLE_RATE // 25  # samples per 25 Hz frame, the unit of all features


@dataclass(frozen=True)
class FeatureInfo:
    """One feature stream."""

    channels: int  # D
    frame_rate_hz: float  # frames per second


class AudioEncoder(nn.Module):
    """Base of all encoders: audio (B, 1, N) in, ``{role: (B, T, D)}`` out, as ``feature_info`` declares."""

    feature_info: dict[str, FeatureInfo]
    apart: str | None = None
    """Name of a weight file of its own, where its weights come from elsewhere and never change; inside of another."""
    _frozen: bool = False

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Extract the features of audio (B, 1, N), N a multiple of 960."""
        raise NotImplementedError

    def freeze(self) -> Self:
        """Stop all gradients and stay in evaluation mode, whatever ``train()`` says, until `unfreeze`."""
        self._frozen = True
        self.requires_grad_(False)
        return self.eval()

    def unfreeze(self) -> Self:
        """Let it learn: gradients, and training mode when ``train()`` asks for it."""
        self._frozen = False
        return self.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, unless frozen."""
        return super().train(mode and not self._frozen)


def file_of(model: nn.Module, name: str) -> str | None:
    """The weight file of its own (`AudioEncoder.apart`) that a tensor of a model belongs to; None if to the model's."""
    for prefix, module in model.named_modules():
        if isinstance(module, AudioEncoder) and module.apart and name.startswith(f"{prefix}." if prefix else ""):
            return module.apart
    return None


def resample(
    audio: Tensor,
    from_rate: int,
    to_rate: int,
    *,
    num_zeros: int = 6,
    rolloff: float = 0.99,
    kernel_dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Resample on the audio's device by a Hann-windowed sinc, differentiably.

    The encoders were trained on this filter, so their input goes through it rather than through a sharper one.
    Source: band-limited interpolation (J. O. Smith); width and roll-off of the published codec.

    Args:
        audio: (..., N).
        from_rate: Its rate in Hz.
        to_rate: Wanted rate in Hz.
        num_zeros: Zero crossings of the sinc on each side.
        rolloff: Cut-off as a fraction of the lower Nyquist frequency.
        kernel_dtype: Precision in which the filter is computed. The published codec resamples to 16 kHz with a
            filter of float64; it reads files of other rates with one of float32, which differs by up to 3e-5.

    Returns:
        (..., ceil(N * to_rate / from_rate)).
    """
    if from_rate == to_rate:
        return audio
    divisor = math.gcd(from_rate, to_rate)
    stride, phases = from_rate // divisor, to_rate // divisor
    cutoff = min(stride, phases) * rolloff
    side = math.ceil(num_zeros * stride / cutoff)
    taps = torch.arange(-side, side + stride, dtype=kernel_dtype, device="cpu") / stride
    offsets = torch.arange(phases, dtype=kernel_dtype, device="cpu") / phases
    x = ((taps - offsets[:, None]) * cutoff).clamp(-num_zeros, num_zeros)  # (phases, taps)
    window = torch.cos(x * math.pi / (2 * num_zeros)) ** 2
    kernel = (torch.sinc(x) * window * (cutoff / stride))[:, None].to(audio)  # (phases, 1, taps)
    flat = F.pad(audio.reshape(-1, 1, audio.shape[-1]), (side, side + stride))
    out = F.conv1d(flat, kernel, stride=stride).transpose(1, 2).flatten(1)  # (batch, frames * phases)
    length = -(-audio.shape[-1] * phases // stride)
    return out[:, :length].reshape(*audio.shape[:-1], length)
