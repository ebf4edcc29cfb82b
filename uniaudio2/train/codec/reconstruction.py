"""Stage 5: reconstruction codes and flow decoder together.

Shapes: ``B`` batch, ``N`` samples, ``T`` reconstruction frames (12.5 Hz), ``C`` latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.few_step import FewStepDecoder
from uniaudio2.codec.loss import SpectralLoss
from uniaudio2.codes import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.train.codec.base import CodecStage, CodecStageConfig, score_waves


@dataclass(frozen=True, kw_only=True)
class ReconstructionStageConfig(CodecStageConfig):
    """Stage ``reconstruction``."""

    stage: Literal["reconstruction"] = "reconstruction"
    freeze_codes: bool = False  # the flow decoder learns on, the codes stay
    warm_up: bool = False  # before the reasoning branch is trained, its condition is zero


class ReconstructionStage(CodecStage):
    """Reconstruction codes and the flow decoder together: flow + 0.1 semantic + 0.5 commitment (the paper's weights).

    Choice: a linear regression of the latents from the condition is added (weight 1), because the flow loss alone is
    too noisy to shape codebooks in an hour; its head is dropped at export.
    """

    name = "reconstruction"
    packages = ("pystoi",)
    semantic_weight, commitment_weight, regression_weight = 0.1, 0.5, 1.0

    def __init__(self, config: ReconstructionStageConfig, codec: ReasoningCodec) -> None:
        super().__init__(config)
        self.warm_up, self.freeze_codes = config.warm_up, config.freeze_codes
        self.codec = codec.eval().requires_grad_(False)
        codec.reconstruction.requires_grad_(not config.freeze_codes)
        codec.decoder.requires_grad_(True)
        self.frames_per_code = codec.decoder.config.frames_per_code
        head = nn.Linear(codec.config.reconstruction.dim, self.frames_per_code * codec.autoencoder.latent_dim)
        self.model = nn.ModuleDict({"part": codec.reconstruction, "decoder": codec.decoder, "regression": head})
        self.spectral = SpectralLoss()

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Flow, regression, semantic and commitment losses; half of the clips decode with the reasoning sum.

        Where codes are frozen, the flow decoder's loss alone.
        """
        audio = batch["audio"]
        part: Any = self.model["part"]
        decoder: Any = self.model["decoder"]
        if self.freeze_codes:
            part.eval()  # codebooks move in training mode
        with torch.no_grad():
            features = self.codec.extract_features(audio)
            reasoning = self._reasoning(features)
            latents = self.codec.autoencoder.encode(audio)
        out = part(features, reasoning)
        with_reasoning = (torch.rand(len(audio), 1, 1, device=audio.device) < (0.0 if self.warm_up else 0.5)).to(
            out.quantized.dtype
        )
        total = out.quantized + with_reasoning * part.reasoning_condition(reasoning, out.quantized.shape[1])
        condition = decoder.condition(total)
        parts = {"flow": (1.0, decoder.loss(latents, condition))}
        if not self.freeze_codes:  # the others shape the codes
            regression = (self._mean_latents(condition).float() - latents).abs().mean()
            parts["regression"] = (self.regression_weight, regression)
            parts["semantic"] = (self.semantic_weight, part.semantic_loss(out, features))
            parts["commitment"] = (self.commitment_weight, out.commitment_loss)
        loss = torch.stack([weight * value for weight, value in parts.values()]).sum()
        logs: dict[str, float | Tensor] = {name: value.detach() for name, (_, value) in parts.items()}
        logs |= {f"perplexity/{k}": v for k, v in enumerate(out.perplexity.tolist())}
        return loss, {**logs, "units": audio.numel() / SAMPLE_RATE}

    def _mean_latents(self, condition: Tensor) -> Tensor:
        """Regressed latents (B, 2 T, C) of a condition that repeats each of T code frames twice."""
        each = self.model["regression"](condition[:, :: self.frames_per_code])
        return each.unflatten(-1, (self.frames_per_code, -1)).flatten(1, 2)

    def _reasoning(self, features: dict[str, Tensor]) -> Tensor:
        """Quantised reasoning vectors; zeros while warming up before the reasoning branch is trained."""
        quantized = self.codec.reasoning(features).quantized
        return torch.zeros_like(quantized) if self.warm_up else quantized

    def evaluate(self, step: int) -> dict[str, float]:
        """STOI and spectral distance of decoded dev clips: oracle latents, regressed mean, flow."""
        part: Any = self.model["part"]
        decoder: Any = self.model["decoder"]
        results: dict[str, list[tuple[Example, Tensor, Tensor]]] = {}
        for example, audio in self.dev_waves(24, crop_s=3.2):
            features = self.codec.extract_features(audio)
            out = part(features, self._reasoning(features))
            condition = decoder.condition(out.quantized)
            generator = torch.Generator().manual_seed(0)
            latents = {
                "oracle": self.codec.autoencoder.encode(audio),
                "flow": decoder.sample(condition, steps=8, guidance_scale=1.0, generator=generator),
            }
            if isinstance(decoder, FewStepDecoder):
                steps = {"steps": self.codec.config.sampling.steps, "guidance_scale": 1.0}
                latents["few_steps"] = decoder.sample(condition, generator=torch.Generator().manual_seed(0), **steps)
            if not self.freeze_codes:
                latents["mean"] = self._mean_latents(condition)
            for name, value in latents.items():
                results.setdefault(name, []).append((example, audio, self.codec.autoencoder.decode(value).float()))
        return {f"{n}/{k}": v for n, items in results.items() for k, v in score_waves(items, self.spectral).items()}

    def export(self, out_dir: Path) -> None:
        """The reconstruction branch and the flow decoder."""
        both = nn.ModuleDict({"reconstruction": self.model["part"], "decoder": self.model["decoder"]})
        self.export_part(out_dir, both, "")
