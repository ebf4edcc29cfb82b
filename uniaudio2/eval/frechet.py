"""Fréchet distance between two sets of audio over frames of a feature encoder.

Source: K. Kilgour and others, 2019 (arXiv:1812.08466), whose encoder is VGGish; figures of other encoders are of
another scale. ``T`` frames, ``D`` channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.eval.text_metrics import Rate

Array = NDArray[np.float64]
Embedding = Callable[[Tensor], Array]

CHANNELS = 64
"""Choice: principal components of the real clips that are kept; a covariance of 512 channels wants hours of audio."""

DRAWS = 200


@dataclass(frozen=True)
class Moments:
    """Sums over the frames of a clip, or of several clips."""

    frames: float
    total: Array  # (D,)
    squares: Array  # (D, D)

    @classmethod
    def of(cls, frames: Array) -> Moments:
        """Of frames (T, D)."""
        return cls(float(len(frames)), frames.sum(0), frames.T @ frames)

    @property
    def mean(self) -> Array:
        """(D,)."""
        return self.total / self.frames

    @property
    def covariance(self) -> Array:
        """(D, D)."""
        return self.squares / self.frames - np.outer(self.mean, self.mean)

    def along(self, axes: Array) -> Moments:
        """In the coordinates of ``axes`` (D, d)."""
        return Moments(self.frames, self.total @ axes, axes.T @ self.squares @ axes)


def pooled(moments: Sequence[Moments], counts: Sequence[int] | None = None) -> Moments:
    """Several clips together, each as often as ``counts`` says."""
    weights = np.ones(len(moments)) if counts is None else np.asarray(counts, np.float64)
    rows = list(zip(weights, moments, strict=True))
    return Moments(
        float(sum(w * m.frames for w, m in rows)),
        np.sum([w * m.total for w, m in rows], axis=0),
        np.sum([w * m.squares for w, m in rows], axis=0),
    )


def frechet(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance between the normal distributions of two sets of frames."""
    first, second = a.covariance, b.covariance
    roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0.0))
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(first) + np.trace(second) - 2 * roots.sum()
    return float(max(0.0, distance))


def axes_of(real: Moments, channels: int = CHANNELS) -> Array:
    """The principal axes (D, d) of real audio."""
    _, vectors = np.linalg.eigh(real.covariance)
    return vectors[:, ::-1][:, :channels]


def distances(
    real: Sequence[Moments], made: Sequence[Moments], base: Sequence[Moments] | None = None, seed: int = 0
) -> Rate:
    """Distance of what was made of clips to the clips, or its difference to what another system made of them.

    Args:
        real: The clips, in the coordinates that are compared.
        made: What was made of each.
        base: The same by another system.
        seed: Of the draws of the bootstrap, which draws clips.
    """

    def value(counts: Sequence[int] | None) -> float:
        goal = pooled(real, counts)
        own = frechet(goal, pooled(made, counts))
        return own if base is None else own - frechet(goal, pooled(base, counts))

    generator, n = np.random.default_rng(seed), len(real)
    draws = [value(np.bincount(generator.integers(0, n, n), minlength=n).tolist()) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return Rate(value(None), float(low), float(high), n)


WHISPER_LAYER = "sound"


@functools.cache
def whisper_frames() -> Embedding:
    """A low layer of Whisper base's encoder, as it lies in the shipped codec: frames (T, 512), 50 a second."""
    from uniaudio2.checkpoint import load_codec

    codec: Any = load_codec("nano")
    encoder = codec.encoders["whisper_expert"].whisper.float().eval()

    @torch.inference_mode()
    def embed(wave: Tensor) -> Array:
        padded = torch.nn.functional.pad(wave, (0, max(0, SAMPLE_RATE // 10 - wave.shape[-1])))
        return encoder(padded[None].float())[WHISPER_LAYER][0].double().numpy()

    return embed
