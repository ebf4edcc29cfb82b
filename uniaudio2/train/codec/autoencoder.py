"""Stage 3: the waveform autoencoder, by its spectral distance.

Shapes: ``B`` batch, ``N`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.loss import SpectralLoss
from uniaudio2.codes import SAMPLE_RATE
from uniaudio2.train.codec.base import CodecStage, CodecStageConfig, score_waves


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(CodecStageConfig):
    """Stage ``autoencoder``."""

    stage: Literal["autoencoder"] = "autoencoder"
    # Choice: the decoder may learn on after codes are made, because the latents they stand for stay the same.
    freeze_encoder: bool = False


class AutoencoderStage(CodecStage):
    """Spectral distance at four resolutions, with noise on the latents."""

    name = "autoencoder"
    packages = ("pystoi",)

    def __init__(self, config: AutoencoderConfig, codec: ReasoningCodec) -> None:
        super().__init__(config)
        autoencoder: Any = codec.autoencoder.requires_grad_(True)
        self.model = nn.ModuleDict({"part": autoencoder})
        if config.freeze_encoder:
            for name in autoencoder.encoding_parts:
                autoencoder.get_submodule(name).requires_grad_(False)
        self.spectral = SpectralLoss()

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Distance of the decoded from the given waveform."""
        audio = batch["audio"]
        autoencoder: Any = self.model["part"]
        latents = autoencoder.encode(audio)
        loss = self.spectral(autoencoder.decode(latents), audio)
        spread = latents.detach().float().std()
        return loss, {"spectral": loss.detach(), "latent_std": spread, "units": audio.numel() / SAMPLE_RATE}

    def evaluate(self, step: int) -> dict[str, float]:
        """STOI and spectral distance on dev clips, synthetic and real speech apart."""
        autoencoder: Any = self.model["part"]
        clips = self.dev_waves(40, crop_s=4.0)
        return score_waves([(e, a, autoencoder.decode(autoencoder.encode(a)).float()) for e, a in clips], self.spectral)

    def export(self, out_dir: Path) -> None:
        """The autoencoder."""
        self.export_part(out_dir, self.model["part"], "autoencoder.")
