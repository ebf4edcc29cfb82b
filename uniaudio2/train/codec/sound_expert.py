"""Stage 2: tags, pitch, level and masked mel, so that the sound expert says what sounds and how it moves.

Shapes: ``B`` batch, ``N`` samples, ``T`` 25 Hz frames, ``D`` width, ``C`` tags.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codes import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.train.codec.base import CodecStage, CodecStageConfig, trainable_encoder

PITCH_BINS = 48  # from 60 to 600 Hz, plus one for "no pitch"


def pitch_and_level(audio: Tensor) -> tuple[Tensor, Tensor]:
    """Targets that every waveform carries.

    Args:
        audio: (B, 1, N), N a multiple of 960.

    Returns:
        Pitch bin (B, T) in [0, 48], 0 for no pitch, by the autocorrelation of 85 ms around each 25 Hz frame; log level
        (B, T, 4) of each 100 Hz quarter frame.
    """
    x = audio[:, 0]
    window = torch.hann_window(2048, device=audio.device)
    frames = F.pad(x, (544, 544)).unfold(1, 2048, 960) * window
    power = torch.fft.rfft(frames, 4096).abs().square()
    correlation = torch.fft.irfft(power)[..., :401]
    correlation = correlation / correlation[..., :1].clamp(min=1e-6)
    # The window's own fall-off is divided out, so that low and high pitches compete fairly.
    own = torch.fft.irfft(torch.fft.rfft(window, 4096).abs().square())[:401]
    correlation = correlation / (own / own[0])
    lags = torch.arange(40, 401, device=audio.device)
    # Choice: a small cost for long periods, because a periodic sound repeats at every multiple of its period.
    lag = (correlation[..., 40:] - 0.1 * lags / 400).argmax(-1, keepdim=True)
    best, lag = correlation[..., 40:].gather(-1, lag)[..., 0], lag[..., 0]
    hertz = SAMPLE_RATE / (lag + 40).float()
    bins = 1 + (torch.log2(hertz / 60) / np.log2(10) * PITCH_BINS).long().clamp(0, PITCH_BINS - 1)
    level = x.unfold(1, 240, 240).square().mean(-1).clamp(min=1e-7).log().unflatten(1, (-1, 4))
    loud = level.mean(-1) > np.log(1e-5)
    return torch.where((best > 0.6) & loud, bins, 0), (level + 7) / 4


@dataclass(frozen=True, kw_only=True)
class SoundExpertConfig(CodecStageConfig):
    """Stage ``sound_expert``."""

    stage: Literal["sound_expert"] = "sound_expert"
    min_count: int = 4  # tags of fewer clips are left out


class SoundExpertStage(CodecStage):
    """Tags of the clip; pitch, level and the masked part of the mel of every frame."""

    name = "sound_expert"

    def __init__(self, config: SoundExpertConfig, codec: ReasoningCodec) -> None:
        super().__init__(config)
        self.encoder_name, expert = trainable_encoder(codec, "semantic")
        counts = Counter(t for e in self.train_corpus.examples for t in self.tags(e))
        self.labels = sorted(t for t, n in counts.items() if n >= config.min_count)
        self.ids = {t: i for i, t in enumerate(self.labels)}
        width = expert.config.width
        self.model = nn.ModuleDict(
            {
                "part": expert,
                "tag": nn.Linear(width, len(self.labels)),
                "attention": nn.Linear(width, len(self.labels)),
                "pitch": nn.Linear(width, PITCH_BINS + 1),
                "level": nn.Linear(width, 4),
                "mel": nn.Linear(width, 4 * expert.config.num_bands),
            }
        )

    @staticmethod
    def tags(example: Example) -> list[str]:
        """What the clip is: its sound classes, or speech with language and voice kind."""
        if example.kind == "speech":
            return ["speech", f"language_{example.language}"]
        return list(example.labels) or ([example.label] if example.label else [])

    def _target(self, example: Example) -> np.ndarray:
        target = np.zeros(len(self.labels), np.float32)
        for tag in self.tags(example):
            if tag in self.ids:
                target[self.ids[tag]] = 1
        return target

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N) and tags (B, C); every fourth clip is mixed with its neighbour."""
        rng = batch_rng(seed, step)
        rows, waves, _ = self.sampler.draw(rng)
        target = np.stack([self._target(self.train_corpus.examples[i]) for i in rows])
        for i in range(0, len(rows) - 1, 4):
            waves[i] = waves[i] + waves[i + 1] * 10 ** (rng.uniform(-6, 3) / 20)
            target[i] = np.maximum(target[i], target[i + 1])
        peak = np.abs(waves).max(1, keepdims=True)
        waves = waves / np.maximum(1.0, peak / 0.98)
        return {"audio": torch.from_numpy(waves.astype(np.float32))[:, None], "target": torch.from_numpy(target)}

    def tag_logits(self, hidden: Tensor) -> Tensor:
        """Per-class attention pooling of (B, T, D) -> (B, C)."""
        weight = self.model["attention"](hidden).float().softmax(1)
        return (weight * self.model["tag"](hidden).float()).sum(1)

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Tags + pitch + level + masked mel, with stripes of time and of bands blanked."""
        audio = batch["audio"]
        expert: Any = self.model["part"]
        mel = expert.mel(audio)
        b, t4, _ = mel.shape
        t, device = t4 // 4, mel.device
        masked = (
            torch.rand(b, -(-t // 5), 1, device=device).expand(-1, -1, 5).flatten(1)[:, :t] < 0.15
        )  # spans of 0.2 s
        heard = mel.masked_fill(masked.repeat_interleave(4, 1)[..., None], 0.0)
        band = torch.arange(mel.shape[2], device=device)
        low = torch.randint(0, mel.shape[2], (b, 1), device=device)
        stripe = (band >= low) & (band < low + torch.randint(0, 16, (b, 1), device=device))
        hidden = expert.hidden_states(heard.masked_fill(stripe[:, None], 0.0))[-1]
        pitch, level = pitch_and_level(audio)
        tag_loss = F.binary_cross_entropy_with_logits(self.tag_logits(hidden), batch["target"], reduction="sum") / b
        pitch_loss = F.cross_entropy(self.model["pitch"](hidden).float().flatten(0, 1), pitch.flatten())
        level_loss = F.mse_loss(self.model["level"](hidden).float(), level)
        guess = self.model["mel"](hidden).float()
        distance = (guess - mel.reshape(b, t, -1)).abs().mean(-1)
        mel_loss = distance[masked].mean() if bool(masked.any()) else distance.mean()
        loss = tag_loss + 0.5 * pitch_loss + level_loss + mel_loss
        parts = {"tag": tag_loss, "pitch": pitch_loss, "level": level_loss, "mel": mel_loss}
        return loss, {**{k: v.detach() for k, v in parts.items()}, "units": audio.numel() / SAMPLE_RATE}

    def evaluate(self, step: int) -> dict[str, float]:
        """Share of ESC-10 dev clips whose best sound class is right."""
        expert: Any = self.model["part"]
        right: list[bool] = []
        for example, audio in self.dev_waves(120, where=lambda e: e.source == "esc10"):
            scores = self.tag_logits(expert.hidden_states(expert.mel(audio))[-1])[0]
            right.append(self.labels[int(scores.argmax())] in self.tags(example))
        return {"esc10_accuracy": float(np.mean(right)) if right else 0.0}

    def export(self, out_dir: Path) -> None:
        """The expert."""
        self.export_part(out_dir, self.model["part"], f"encoders.{self.encoder_name}.")
        (out_dir / "labels.json").write_text(json.dumps(self.labels, ensure_ascii=False))
