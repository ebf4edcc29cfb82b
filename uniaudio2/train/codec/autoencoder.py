"""Stage 3: the waveform autoencoder, by its spectral distance, and by critics that tell it from real audio.

Shapes: ``B`` batch, ``N`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.critic import Critics
from uniaudio2.codec.loss import SpectralLoss
from uniaudio2.codes import SAMPLE_RATE
from uniaudio2.train.codec.base import CodecStage, CodecStageConfig, score_waves
from uniaudio2.train.config import TrainingError


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(CodecStageConfig):
    """Stage ``autoencoder``."""

    stage: Literal["autoencoder"] = "autoencoder"
    # Choice: the decoder may learn on after codes are made, because the latents they stand for stay the same.
    freeze_encoder: bool = False
    critic: float = 0.0  # weight of deceiving the critics; 0: no critics
    critic_features: float = 2.0  # weight of the distance of what the critics' layers say
    critic_width: int = 16  # channels of the critics' first layers
    critic_after: int = 0  # steps before the critics count (they learn from the first step on)

    def __post_init__(self) -> None:
        if min(self.critic, self.critic_features) < 0:
            raise TrainingError("critic and critic_features must not be negative")
        if self.critic_width < 1 or self.critic_after < 0:
            raise TrainingError("critic_width must be at least 1, critic_after not negative")


class AutoencoderStage(CodecStage):
    """Spectral distance at four resolutions, with noise on the latents; critics where they have a weight.

    Choice: critics and autoencoder learn in the same step, each from its own part of the loss, which needs no second
    optimiser; with a frozen encoder critics sharpen a decoder whose latents are in use.
    """

    name = "autoencoder"
    config: AutoencoderConfig
    packages = ("pystoi",)

    def __init__(self, config: AutoencoderConfig, codec: ReasoningCodec) -> None:
        super().__init__(config)
        autoencoder: Any = codec.autoencoder.requires_grad_(True)
        self.model = nn.ModuleDict({"part": autoencoder})
        if config.critic > 0:
            self.model["critics"] = Critics(config.critic_width)
        if config.freeze_encoder:
            for name in autoencoder.encoding_parts:
                autoencoder.get_submodule(name).requires_grad_(False)
        self.spectral = SpectralLoss()

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Distance of the decoded from the given waveform."""
        audio = batch["audio"]
        autoencoder: Any = self.model["part"]
        latents = autoencoder.encode(audio)
        made = autoencoder.decode(latents)
        loss = self.spectral(made, audio)
        logs: dict[str, float | Tensor] = {"spectral": loss.detach(), "latent_std": latents.detach().float().std()}
        if "critics" in self.model:
            critics: Any = self.model["critics"]
            own, deceiving, features = critics.losses(made.float(), audio.float())
            weight = self.config.critic if step >= self.config.critic_after else 0.0
            loss = loss + own + weight * (deceiving + self.config.critic_features * features)
            logs |= {"critics": own.detach(), "deceiving": deceiving.detach(), "features": features.detach()}
        return loss, {**logs, "units": audio.numel() / SAMPLE_RATE}

    def evaluate(self, step: int) -> dict[str, float]:
        """STOI and spectral distance on dev clips, synthetic and real speech apart."""
        autoencoder: Any = self.model["part"]
        clips = self.dev_waves(40, crop_s=4.0)
        return score_waves([(e, a, autoencoder.decode(autoencoder.encode(a)).float()) for e, a in clips], self.spectral)

    def export(self, out_dir: Path) -> None:
        """The autoencoder."""
        self.export_part(out_dir, self.model["part"], "autoencoder.")
