"""Frozen encoders: 24 kHz audio to time-aligned features, one tensor per role.

An encoder declares in ``feature_info`` which roles it serves ("speech", "phone", "semantic", "acoustic"), with how many
channels and at what rate; presets choose encoders by their names in `ENCODERS`. Here are the three published ones,
Whisper and WavLM by way of transformers (extra ``published``) and MusicFM; the small ones trained from scratch are in
`experts.py`. Source: UniAudio 2.0 (arXiv:2602.04683), ReasoningCodec, and its published weights.

Shapes: B batch, N samples at 24 kHz, T frames, D channels.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codec.conformer import MusicFM, MusicFMConfig
from uniaudio2.codec.mel import mel_filters
from uniaudio2.codec.registry import ENCODERS
from uniaudio2.errors import MissingPackageError, UserError

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
    _frozen: bool = False

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Extract the features of audio (B, 1, N), N a multiple of 960."""
        raise NotImplementedError

    def freeze(self) -> "AudioEncoder":
        """Stop all gradients and stay in evaluation mode, whatever ``train()`` says, until `unfreeze`."""
        self._frozen = True
        self.requires_grad_(False)
        return self.eval()

    def unfreeze(self) -> "AudioEncoder":
        """Let it learn: gradients, and training mode when ``train()`` asks for it."""
        self._frozen = False
        return self.requires_grad_(True)

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Set training mode, unless frozen."""
        return super().train(mode and not self._frozen)


def build_encoder(name: str, config: Mapping[str, Any]) -> Any:
    """Build a registered encoder from its plain config.

    Args:
        name: A key of `ENCODERS`.
        config: Values of its config dataclass, checked strictly.

    Returns:
        An `AudioEncoder`, not yet frozen.

    Raises:
        ConfigError: If the name is not registered or the values do not fit.
        ImportError: If the encoder needs the extra ``published`` and it is not installed.
    """
    return ENCODERS.build(name, config)


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of the Whisper encoder; the defaults are Whisper medium."""

    d_model: int = 1024  # D
    encoder_layers: int = 24
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    num_mel_bins: int = 80
    max_source_positions: int = 1500  # frames of 20 ms: 30 s


@ENCODERS.register("whisper", WhisperConfig)
class WhisperEncoder(AudioEncoder):
    """Whisper's encoder as role "speech" at 50 Hz. Always computes 30 s, as the published weights expect."""

    published_prefix = "whisper_encoder."

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        transformers = _import_transformers("Whisper")
        self.config = config
        self.feature_info = {"speech": FeatureInfo(config.d_model, 50.0)}
        hf_config = transformers.WhisperConfig(**asdict(config))
        self.encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(hf_config)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Features of audio (B, 1, N) of at most 30 s: {"speech": (B, 2 N / 960, D)}.

        Raises:
            ValueError: If the audio is longer than 30 s.
        """
        num_samples = audio.shape[2]
        # Released weights: this many frames are kept; the two terms agree for multiples of 960 samples.
        num_frames = max(int(num_samples / SAMPLE_RATE * 50), 2 * (num_samples // FRAME_LENGTH))
        return {"speech": self.encode_16khz(resample(audio[:, 0], SAMPLE_RATE, ENCODER_SAMPLE_RATE), num_frames)}

    def encode_16khz(self, audio: Tensor, num_frames: int) -> Tensor:
        """The first ``num_frames`` frames (B, num_frames, D) for audio (B, N) at 16 kHz, padded to 30 s here."""
        limit = self.config.max_source_positions
        if num_frames > limit or audio.shape[1] > limit * 320:
            raise UserError(
                f"the Whisper encoder takes at most {limit / 50:g} s at once, got "
                f"{audio.shape[1] / ENCODER_SAMPLE_RATE:.2f} s: encode longer audio in windows"
            )
        mel = whisper_log_mel(audio, num_mels=self.config.num_mel_bins, num_samples=limit * 320)
        weight = self.encoder.conv1.weight
        return self.encoder(mel.to(weight.dtype)).last_hidden_state[:, :num_frames]

    def rename_published(self, key: str) -> str | None:
        """Name here of a published key (without `published_prefix`); None if it is not needed."""
        return f"encoder.{key}"


@dataclass(frozen=True)
class WavLMConfig:
    """Sizes of WavLM; the defaults are WavLM base."""

    hidden_size: int = 768  # D
    num_hidden_layers: int = 12  # of the checkpoint; only the first max(feature_layers) are computed
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    num_buckets: int = 320
    max_bucket_distance: int = 800
    feature_layers: tuple[int, ...] = (6, 7, 8, 9)  # hidden states that are averaged; 0 is the first layer's input

    def __post_init__(self) -> None:
        if not self.feature_layers or not 0 <= min(self.feature_layers) <= max(self.feature_layers):
            raise UserError("wavlm feature_layers must name at least one hidden state, from 0 up")
        if max(self.feature_layers) > self.num_hidden_layers:
            raise UserError(
                f"wavlm feature_layers go up to {max(self.feature_layers)}, "
                f"but there are only {self.num_hidden_layers} layers"
            )


@ENCODERS.register("wavlm", WavLMConfig)
class WavLMEncoder(AudioEncoder):
    """The mean of WavLM's middle hidden states as role "phone" at 50 Hz."""

    published_prefix = "wavlm_encoder."

    def __init__(self, config: WavLMConfig) -> None:
        super().__init__()
        transformers = _import_transformers("WavLM")
        self.config = config
        self.feature_info = {"phone": FeatureInfo(config.hidden_size, 50.0)}
        self.num_layers = max(config.feature_layers)
        values = asdict(config)
        del values["feature_layers"]
        values.update(num_hidden_layers=self.num_layers, mask_time_prob=0.0, mask_feature_prob=0.0, layerdrop=0.0)
        values.update(num_feat_extract_layers=len(config.conv_dim), do_stable_layer_norm=False)
        self.encoder = transformers.WavLMModel(transformers.WavLMConfig(**values))

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Features of audio (B, 1, N): {"phone": (B, 2 N / 960, D)}."""
        num_frames = 2 * (audio.shape[2] // FRAME_LENGTH)
        low = resample(audio[:, 0], SAMPLE_RATE, ENCODER_SAMPLE_RATE)
        # Released weights: 160 zeros, so that the convolutions give a frame for every 20 ms.
        low = F.pad(low, (0, 160)).to(self.encoder.feature_projection.projection.weight.dtype)
        states = self.encoder(low, output_hidden_states=True).hidden_states
        mean = torch.stack([states[layer] for layer in self.config.feature_layers]).mean(0)
        return {"phone": mean[:, :num_frames]}

    def rename_published(self, key: str) -> str | None:
        """Name here of a published key (without `published_prefix`); None if it is not needed.

        Layers above the highest feature layer and the masking vector are not needed. The older spelling of weight
        normalisation becomes the newer one, which is what transformers builds.
        """
        if key == "masked_spec_embed":
            return None
        parts = key.split(".")
        if parts[:2] == ["encoder", "layers"] and int(parts[2]) >= self.num_layers:
            return None
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            if key == f"encoder.pos_conv_embed.conv.{old}":
                key = f"encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
        return f"encoder.{key}"


@ENCODERS.register("musicfm", MusicFMConfig)
class MusicFMEncoder(AudioEncoder):
    """MusicFM's hidden states as roles "acoustic" (early layer) and "semantic" (late layer) at 25 Hz."""

    published_prefix = "pretrained_model.model.model."

    def __init__(self, config: MusicFMConfig) -> None:
        super().__init__()
        self.config = config
        info = FeatureInfo(config.encoder_dim, 25.0)
        self.feature_info = {"acoustic": info, "semantic": info}
        self.encoder = MusicFM(config)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Features of audio (B, 1, N): {"acoustic", "semantic"}, each (B, N / 960, D)."""
        states = self.encoder(audio[:, 0])
        return {"acoustic": states[self.config.acoustic_layer], "semantic": states[self.config.semantic_layer]}

    def rename_published(self, key: str) -> str | None:
        """Name here of a published key (without `published_prefix`); None if it is not needed."""
        name = self.encoder.rename_published(key)
        return None if name is None else f"encoder.{name}"


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
    window = torch.hann_window(400, device=audio.device)
    spectrum = torch.stft(audio, 400, 160, window=window, return_complex=True)[..., :-1].abs().square()
    filters = mel_filters(num_mels, 400, ENCODER_SAMPLE_RATE, scale="slaney", norm="area", device="cpu").float()
    log = (filters.to(audio.device) @ spectrum).clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0


def _import_transformers(encoder: str) -> Any:
    try:
        import transformers
        import transformers.models.whisper.modeling_whisper
    except ImportError as error:
        raise MissingPackageError(
            f"the {encoder} encoder needs transformers: install it with pip install 'uniaudio2[published]'"
        ) from error
    return transformers
