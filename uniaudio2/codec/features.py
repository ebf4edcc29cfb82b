"""Frozen encoders: 24 kHz audio to time-aligned features, one tensor per role.

An encoder declares in ``feature_info`` which features it gives ("speech", "phone", "semantic", "acoustic"), with how
many channels and at what rate; presets choose encoders by their names in `ENCODERS`. Here are WavLM, by way of
transformers (extra ``published``), and MusicFM; Whisper is in `whisper.py`, the small ones trained from scratch in
`experts.py`. Source: UniAudio 2.0 (arXiv:2602.04683), ReasoningCodec, and its published weights.

Shapes: B batch, N samples at 24 kHz, T frames, D channels.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codec.conformer import MusicFM, MusicFMConfig
from uniaudio2.codec.encoder import ENCODER_SAMPLE_RATE, FRAME_LENGTH, AudioEncoder, FeatureInfo, resample
from uniaudio2.codec.registry import ENCODERS
from uniaudio2.codec.whisper import WhisperConfig, WhisperEncoder, whisper_log_mel
from uniaudio2.errors import MissingPackageError, UserError

__all__ = [  # Whisper and the base class, too
    "ENCODERS",
    "ENCODER_SAMPLE_RATE",
    "FRAME_LENGTH",
    "AudioEncoder",
    "FeatureInfo",
    "MusicFMEncoder",
    "WavLMConfig",
    "WavLMEncoder",
    "WhisperConfig",
    "WhisperEncoder",
    "build_encoder",
    "resample",
    "whisper_log_mel",
]


def build_encoder(name: str, config: Mapping[str, Any]) -> AudioEncoder:
    """Build a registered encoder from its plain config.

    Args:
        name: A key of `ENCODERS`.
        config: Values of its config dataclass, checked strictly.

    Returns:
        The encoder, not yet frozen.

    Raises:
        ConfigError: If the name is not registered or the values do not fit.
        ImportError: If the encoder needs the extra ``published`` and it is not installed.
    """
    return ENCODERS.build(name, config)


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


def _import_transformers(encoder: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            f"the {encoder} encoder needs transformers: install it with pip install 'uniaudio2[published]'"
        ) from error
    return transformers
