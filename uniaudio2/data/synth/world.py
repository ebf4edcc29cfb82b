"""Speech taken apart into pitch, spectral envelope and aperiodicity, and put together otherwise.

Source: WORLD (Morise et al., IEICE Trans. 2016) through the package ``pyworld``: F0 by DIO and StoneMask, envelope by
CheapTrick, aperiodicity by D4C. Shapes: F frames of 5 ms, K frequencies from 0 to 12 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.synth import vocoder
from uniaudio2.data.synth.renderer import Material
from uniaudio2.data.synth.voices import SynthesiserMissing, Wave
from uniaudio2.errors import UserError

FRAME_MS = 5.0
FLOOR_HZ, CEILING_HZ = 65.0, 620.0
"""Where F0 is looked for."""

Array = NDArray[np.float64]


def has_pyworld(material: Material) -> bool:
    """Whether speech can be changed here."""
    try:
        vocoder.world()
    except SynthesiserMissing as error:
        material.left_out[str(error)] = None
        return False
    return True


@dataclass(frozen=True)
class World:
    """Speech in parts.

    Attributes:
        f0: Fundamental frequency, Hz, 0 where unvoiced, (F,).
        envelope: Power spectrum without harmonics, (F, K).
        aperiodicity: Share of noise, 0 to 1, (F, K).
    """

    f0: Array
    envelope: Array
    aperiodicity: Array

    @property
    def median_f0(self) -> float:
        """Hz; 0 where nothing is voiced."""
        voiced = self.f0[self.f0 > 0]
        return float(np.median(voiced)) if voiced.size else 0.0


def analyse(wave: Wave) -> World:
    """Take speech (N,) at 24 kHz apart.

    Raises:
        UserError: If it is shorter than a tenth of a second.
    """
    if wave.size < SAMPLE_RATE // 10:
        raise UserError("speech shorter than 0.1 s cannot be changed")
    pyworld = vocoder.world()
    samples = np.ascontiguousarray(wave, np.float64)
    f0, times = pyworld.dio(samples, SAMPLE_RATE, f0_floor=FLOOR_HZ, f0_ceil=CEILING_HZ, frame_period=FRAME_MS)
    f0 = pyworld.stonemask(samples, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
    return World(f0, envelope, pyworld.d4c(samples, f0, times, SAMPLE_RATE))


def synthesise(parts: World) -> Wave:
    """Put the parts together: samples (N,) at 24 kHz."""
    f0, envelope, aperiodicity = (np.ascontiguousarray(x, np.float64) for x in (parts.f0, parts.envelope,
                                                                                parts.aperiodicity))  # fmt: skip
    return vocoder.world().synthesize(f0, envelope, aperiodicity, SAMPLE_RATE, FRAME_MS).astype(np.float32)


def with_pitch(parts: World, factor: float, spread: float = 1.0) -> World:
    """Another median F0, and ``spread`` times the distance from it in octaves; kept between 50 and 700 Hz."""
    voiced, middle = parts.f0 > 0, max(parts.median_f0, 1.0)
    f0 = np.zeros_like(parts.f0)
    f0[voiced] = np.clip(middle * factor * (parts.f0[voiced] / middle) ** spread, 50.0, 700.0)
    return replace(parts, f0=f0)


def with_formants(parts: World, factor: float) -> World:
    """All resonances ``factor`` times as high: a shorter or longer vocal tract."""
    at = np.arange(parts.envelope.shape[1]) / factor
    return replace(parts, envelope=_columns(parts.envelope, at), aperiodicity=_columns(parts.aperiodicity, at))


def with_times(parts: World, at: Array) -> World:
    """Another course of time: frame ``i`` is what was at frame ``at[i]`` (fractions are interpolated)."""
    at = np.clip(at, 0, len(parts.f0) - 1)
    f0 = parts.f0[np.round(at).astype(int)]
    return World(f0, _columns(parts.envelope.T, at).T, _columns(parts.aperiodicity.T, at).T)


def with_rate(parts: World, factor: float) -> World:
    """``factor`` times as fast, with the same pitch."""
    return with_times(parts, np.arange(0, len(parts.f0) - 1, factor))


def with_gain(parts: World, frequencies: list[float], gains_db: list[float]) -> World:
    """Louder or softer by frequency; between the given ones (Hz) along straight lines."""
    at = np.linspace(0, SAMPLE_RATE / 2, parts.envelope.shape[1])
    return replace(parts, envelope=parts.envelope * 10 ** (np.interp(at, frequencies, gains_db) / 10))


def whispered(parts: World) -> World:
    """No voice, breath alone: less below 1 kHz, resonances a little higher."""
    breath = with_gain(with_formants(parts, 1.06), [0, 300, 1000, 3000], [-22, -16, -3, 3])
    return replace(breath, f0=np.zeros_like(parts.f0), aperiodicity=np.ones_like(parts.aperiodicity))


def shouted(parts: World) -> World:
    """Effort: higher, livelier, with a flatter spectrum."""
    return with_gain(with_pitch(with_formants(parts, 1.04), 1.38, 1.2), [0, 250, 1000, 2500, 6000], [-6, -4, 3, 9, 7])


def _columns(matrix: Array, at: Array) -> Array:
    """Columns of a matrix at fractional places, clipped to its ends."""
    at = np.clip(at, 0, matrix.shape[1] - 1)
    left = np.minimum(at.astype(int), matrix.shape[1] - 2) if matrix.shape[1] > 1 else at.astype(int)
    share = at - left
    return matrix[:, left] * (1 - share) + matrix[:, np.minimum(left + 1, matrix.shape[1] - 1)] * share
