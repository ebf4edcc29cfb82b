"""Whisper's encoder: log-mel frames, two convolutions, a pre-norm transformer; one class for all sizes.

Source: Whisper (Radford et al. 2022, arXiv:2212.04356). Parameters carry transformers' names, so published files fit.

Two ways to listen:

- ``padded``, the published way: every clip is padded to 30 s, longer ones are refused.
- otherwise clips are encoded at their own length, and long ones in windows of ``window_s`` that share ``context_s`` on
  each side, whatever the pieces in which the audio comes. Attention spans the window, so a frame waits for the end
  of its window: at least ``context_s`` and at most ``window_s - context_s`` of audio after it.

Shapes: B batch, N samples, T frames of 20 ms, D width, H heads, M mel bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codec.encoder import ENCODER_SAMPLE_RATE, FRAME_LENGTH, AudioEncoder, FeatureInfo, resample
from uniaudio2.codec.mel import mel_filters
from uniaudio2.codec.registry import ENCODERS
from uniaudio2.errors import UserError

FRAME_RATE_HZ = 50.0
HOP = SAMPLE_RATE // 50
"""Samples at 24 kHz of one frame."""

_SAMPLES_PER_FRAME = 320  # at 16 kHz


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of the Whisper encoder; the defaults are Whisper medium."""

    d_model: int = 1024  # D
    encoder_layers: int = 24
    encoder_attention_heads: int = 16  # H
    encoder_ffn_dim: int = 4096
    num_mel_bins: int = 80  # M
    max_source_positions: int = 1500  # frames of 20 ms: 30 s
    padded: bool = True  # pad every clip to 30 s, as the published codec does
    window_s: float = 20.0  # longest stretch encoded at once when not padded, seconds
    context_s: float = 2.0  # part of it at each end that only serves the frames inside, seconds
    # Feature -> hidden state: 0 is the first layer's input, -1 the normalised output of the last layer.
    features: dict[str, int] = field(default_factory=lambda: {"speech": -1})

    def __post_init__(self) -> None:
        if self.d_model < 2 or self.d_model % 2 or self.d_model % self.encoder_attention_heads:
            heads = self.encoder_attention_heads
            raise UserError(f"whisper d_model {self.d_model} must be even and a multiple of its {heads} heads")
        if not self.features:
            raise UserError("whisper features must name at least one hidden state")
        most = self.encoder_layers
        for name, state in self.features.items():
            if not -most - 1 <= state <= most:
                raise UserError(f"whisper feature '{name}' is hidden state {state}, but they go from 0 to {most}")
        limit_s = self.max_source_positions / FRAME_RATE_HZ
        if not self.padded and not 0 < 2 * self.context_s < self.window_s <= limit_s:
            raise UserError(
                f"whisper window_s {self.window_s:g} must lie above twice context_s ({self.context_s:g}) and be at "
                f"most {limit_s:g}"
            )


class Attention(nn.Module):
    """Self-attention over all frames; keys have no bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        q, k, v = (
            project(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and feed-forward, each pre-norm and residual."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        d = config.d_model
        self.self_attn = Attention(d, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class Transformer(nn.Module):
    """Whisper's encoder proper, from log-mel frames to hidden states."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        d = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, d, 3, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, d)
        self.embed_positions.weight.requires_grad_(False)
        with torch.no_grad():
            self.embed_positions.weight.copy_(sinusoids(config.max_source_positions, d))
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.encoder_layers)])
        self.layer_norm = nn.LayerNorm(d)

    def forward(self, mel: Tensor, wanted: Iterable[int]) -> dict[int, Tensor]:
        """Hidden states by number, computed up to the highest that is wanted.

        Args:
            mel: (B, M, 2 T) with T at most the number of positions.
            wanted: From 0 (the first layer's input) to the number of layers (the last output, normalised).

        Returns:
            Number -> (B, T, D).
        """
        asked = set(wanted)
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        states: dict[int, Tensor] = {0: x} if 0 in asked else {}
        for number, layer in enumerate(self.layers[: max(asked)], start=1):
            x = layer(x)
            if number in asked:
                states[number] = self.layer_norm(x) if number == len(self.layers) else x
        return states


@ENCODERS.register("whisper", WhisperConfig)
class WhisperEncoder(AudioEncoder):
    """Whisper's encoder as the features that its config names, at 50 Hz; by default "speech", its last layer."""

    published_prefix = "whisper_encoder."

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_info = {name: FeatureInfo(config.d_model, FRAME_RATE_HZ) for name in config.features}
        self.states = {name: layer % (config.encoder_layers + 1) for name, layer in config.features.items()}
        self.encoder = Transformer(config)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Features of audio (B, 1, N): {name: (B, T, D)}, T = 2 N / 960; of other N, not padded, ceil(N / 480).

        Raises:
            UserError: If the config says ``padded`` and the audio is longer than 30 s.
        """
        if not self.config.padded:
            pieces = list(self.stream([audio]))
            return {name: torch.cat([piece[name] for piece in pieces], 1) for name in self.states}
        num_samples = audio.shape[2]
        # Released weights: this many frames are kept; the two terms agree for multiples of 960 samples.
        num_frames = max(int(num_samples / SAMPLE_RATE * 50), 2 * (num_samples // FRAME_LENGTH))
        low = resample(audio[:, 0], SAMPLE_RATE, ENCODER_SAMPLE_RATE)
        return self._named(self._padded_states(low, num_frames, self.states.values()))

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
        """Features of audio that comes in pieces, as soon as a window is full; in constant memory.

        Audio up to ``window_s`` is one window. In longer audio, consecutive windows overlap by twice ``context_s``
        and each gives the frames of its middle (the first and last one also those of its outer end). The frames do
        not depend on how the audio is cut in pieces.

        Args:
            chunks: Consecutive pieces (B, 1, n) of any lengths; ``padded`` has no effect here.

        Yields:
            {name: (B, t, D)}, consecutive.
        """
        window, context = (round(s * FRAME_RATE_HZ) * HOP for s in (self.config.window_s, self.config.context_s))
        held: Tensor | None = None
        skip = 0  # frames of the held audio that were given already
        for chunk in chunks:
            held = chunk if held is None else torch.cat((held, chunk), 2)
            while held.shape[2] > window:
                keep = (window - context) // HOP
                yield self._window(held[:, :, :window], skip, keep)
                held, skip = held[:, :, window - 2 * context :], context // HOP
        if held is not None and held.shape[2]:
            yield self._window(held, skip, None)

    def _window(self, audio: Tensor, start: int, stop: int | None) -> dict[str, Tensor]:
        """Frames ``start`` to ``stop`` of audio (B, 1, n) that is encoded at once."""
        low = resample(audio[:, 0], SAMPLE_RATE, ENCODER_SAMPLE_RATE)
        states = self._states(low, -(-low.shape[1] // _SAMPLES_PER_FRAME), self.states.values())
        return {name: state[:, start:stop] for name, state in self._named(states).items()}

    def encode_16khz(self, audio: Tensor, num_frames: int) -> Tensor:
        """The last layer's first ``num_frames`` frames (B, num_frames, D) of audio (B, N) at 16 kHz, padded to 30 s."""
        last = self.config.encoder_layers
        return self._padded_states(audio, num_frames, [last])[last]

    def _padded_states(self, audio: Tensor, num_frames: int, wanted: Iterable[int]) -> dict[int, Tensor]:
        limit = self.config.max_source_positions
        if num_frames > limit or audio.shape[1] > limit * _SAMPLES_PER_FRAME:
            raise UserError(
                f"the Whisper encoder takes at most {limit / 50:g} s at once, got "
                f"{audio.shape[1] / ENCODER_SAMPLE_RATE:.2f} s: encode longer audio in windows"
            )
        return {number: state[:, :num_frames] for number, state in self._states(audio, limit, wanted).items()}

    def _states(self, audio: Tensor, num_frames: int, wanted: Iterable[int]) -> dict[int, Tensor]:
        """Hidden states of audio (B, N) at 16 kHz, padded to a number of frames."""
        num_samples = num_frames * _SAMPLES_PER_FRAME
        mel = whisper_log_mel(audio, num_mels=self.config.num_mel_bins, num_samples=num_samples)
        return self.encoder(mel.to(self.encoder.conv1.weight.dtype), wanted)

    def _named(self, states: dict[int, Tensor]) -> dict[str, Tensor]:
        return {name: states[number] for name, number in self.states.items()}

    def rename_published(self, key: str) -> str | None:
        """Name here of a published key (without `published_prefix`); None if it is not needed."""
        return f"encoder.{key}"


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions, (length, channels): sines, then cosines, of wavelengths from 2 pi to 20 000 pi frames."""
    half = channels // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10_000) / max(half - 1, 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


def whisper_log_mel(audio: Tensor, *, num_mels: int = 80, num_samples: int = 480_000) -> Tensor:
    """Whisper's log-mel spectrogram, on the audio's device.

    Source: Whisper (Radford et al. 2022): 25 ms Hann windows every 10 ms, Slaney mel bands up to 8 kHz, log10 with
    a range of 8 below each clip's maximum, (x + 4) / 4.

    Args:
        audio: (B, N) at 16 kHz.
        num_mels: Bands.
        num_samples: Pad with zeros or cut to this length, a multiple of 160.

    Returns:
        (B, num_mels, num_samples / 160), float32.
    """
    audio = F.pad(audio.float(), (0, max(0, num_samples - audio.shape[1])))[:, :num_samples]
    window = torch.hann_window(400, dtype=torch.float32, device=audio.device)
    spectrum = torch.stft(audio, 400, 160, window=window, return_complex=True)[..., :-1].abs().square()
    filters = mel_filters(num_mels, 400, ENCODER_SAMPLE_RATE, scale="slaney", norm="area", device="cpu").float()
    log = (filters.to(audio.device) @ spectrum).clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0
