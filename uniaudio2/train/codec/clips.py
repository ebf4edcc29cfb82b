"""Which audio a codec stage sees: batches of clips drawn from a corpus, cropped, sped up and augmented.

Shapes: ``B`` batch, ``N`` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from uniaudio2.codes import SAMPLE_RATE, UNIT
from uniaudio2.data.augment import augment, speed_perturb
from uniaudio2.data.corpus import Corpus
from uniaudio2.data.manifest import Example
from uniaudio2.errors import UserError


@dataclass(frozen=True)
class ClipConfig:
    """Which audio a stage sees and how it is changed."""

    corpus: str  # folder with manifest.jsonl; several separated by commas
    batch_seconds: float = 48.0  # audio per micro-batch
    max_clip_s: float = 8.0  # longer clips are left out (or cropped, where crop_s is set)
    min_clip_s: float = 0.15
    crop_s: float | None = None  # > 0: random pieces of this length instead of whole clips
    augment_probability: float = 0.6  # share of clips with noise, reverberation, band limits, …
    speed_probability: float = 0.3  # share of clips played at 0.87 to 1.15 times their speed
    real_weight: float = 4.0  # how much more often a second of a real recording is drawn than one of synthesis
    sound_weight: float = 2.0  # the same for sounds and music
    shares: dict[str, float] = field(default_factory=dict)  # further weights by source, engine or language


class ClipSampler:
    """Draws batches of clips of similar length; batch ``i`` is a function of (seed, i) alone.

    Args:
        corpus: Where the waves are.
        keep: Indices of the examples to draw from.
        config: Lengths, weights and changes.
    """

    def __init__(self, corpus: Corpus, keep: Sequence[int], config: ClipConfig) -> None:
        if not keep:
            raise UserError(
                "no clip of the corpus fits this stage: check the manifest's texts, kinds and durations; "
                "`uniaudio2 data validate CORPUS --phonemes` writes the phones that speech needs"
            )
        self.corpus, self.config = corpus, config
        self.index = np.asarray(keep)
        examples = [corpus.examples[i] for i in keep]
        self.seconds = np.asarray([e.duration for e in examples])
        length = np.minimum(self.seconds, config.crop_s or np.inf)
        weight = np.asarray([self._weight(e) for e in examples]) * (length if config.crop_s else 1.0)
        self.cumulative = np.cumsum(weight / weight.sum())

    def _weight(self, example: Example) -> float:
        config = self.config
        weight = 1.0
        if example.engine is None and example.kind == "speech":
            weight *= config.real_weight
        if example.kind != "speech":
            weight *= config.sound_weight
        for name in (example.source, example.engine, example.language):
            weight *= config.shares.get(name or "", 1.0)
        return weight

    def draw(self, rng: np.random.Generator) -> tuple[list[int], np.ndarray, list[int]]:
        """A batch: corpus indices, waves (B, N), padded to a multiple of 0.4 s or the crop, and their own lengths."""
        config = self.config
        if config.crop_s:
            size = max(1, round(config.batch_seconds / config.crop_s))
            chosen = np.searchsorted(self.cumulative, rng.random(size)).clip(max=len(self.index) - 1)
        else:
            mean = float(np.mean(self.seconds))
            pool = np.searchsorted(self.cumulative, rng.random(max(8, int(6 * config.batch_seconds / mean))))
            pool = pool.clip(max=len(self.index) - 1)
            pool = pool[np.argsort(self.seconds[pool], kind="stable")]
            start = int(rng.integers(len(pool)))
            chosen, longest = [], 0.0
            for row in pool[start:]:
                longest = max(longest, float(self.seconds[row]))
                if chosen and longest * (len(chosen) + 1) > config.batch_seconds:
                    break
                chosen.append(row)
            chosen = np.asarray(chosen)
        rows = [int(self.index[c]) for c in chosen]
        waves = [self.change(self.corpus.wave(i), rng) for i in rows]
        unit = UNIT if not config.crop_s else int(config.crop_s * SAMPLE_RATE)
        longest = max(len(w) for w in waves)
        batch = np.zeros((len(rows), -(-longest // unit) * unit), np.float32)
        for row, wave in enumerate(waves):
            batch[row, : len(wave)] = wave
        return rows, batch, [len(w) for w in waves]

    def change(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Crop, speed, gain and augment one wave (N,)."""
        config = self.config
        if config.crop_s:
            size = int(config.crop_s * SAMPLE_RATE)
            if len(wave) > size:
                start = int(rng.integers(len(wave) - size + 1))
                wave = wave[start : start + size]
        if rng.random() < config.speed_probability:
            wave = speed_perturb(wave, float(rng.uniform(0.87, 1.15)))
            if config.crop_s:
                wave = wave[: int(config.crop_s * SAMPLE_RATE)]
        elif not config.crop_s and rng.random() < 0.3:
            wave = np.pad(wave, (int(rng.integers(7200)), int(rng.integers(7200))))
        if rng.random() < config.augment_probability:
            bank = None
            if rng.random() < 0.5:
                other = self.corpus.wave(int(self.index[rng.integers(len(self.index))]))
                bank = [other]
            wave = augment(wave, rng, noise_bank=bank, strength=1.0)
        peak = float(np.abs(wave).max()) if len(wave) else 0.0
        gain = 10 ** (rng.uniform(-8, 6) / 20)
        return (wave * min(gain, 0.98 / max(peak, 1e-4))).astype(np.float32)
