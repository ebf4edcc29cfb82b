"""Waveform augmentation for real input: noise, room, band limit, tilt, gain, clipping, speed.

All linear parts (room, tilt, band limit) are one multiplication in the frequency domain, so that a second of audio
costs about a millisecond. Every choice comes from the generator that is passed in. Shape: ``N`` samples at 24 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.errors import UserError

Wave = NDArray[np.float32]

_PEAK = 0.99


def augment(
    wave: Wave,
    rng: np.random.Generator,
    *,
    noise_bank: Sequence[Wave] | None = None,
    strength: float = 1.0,
) -> Wave:
    """Make a clean clip sound like a recording made elsewhere; its length and timing stay.

    Args:
        wave: Clean samples, (N,), float32.
        rng: Source of every choice.
        noise_bank: Clips to mix in as background besides coloured noise; None uses coloured noise alone.
        strength: 0 changes nothing but the type, 1 is the full range: it scales how often each effect is used and how
            far it goes.

    Returns:
        A new array (N,), float32, |x| <= 0.99.

    Raises:
        ValueError: If ``wave`` is not one-dimensional or ``strength`` is not in [0, 1].
    """
    if wave.ndim != 1:
        raise ValueError(f"expected samples (N,), not shape {wave.shape}")
    if not 0.0 <= strength <= 1.0:
        raise UserError(f"strength must be in [0, 1], not {strength}")
    out = wave.astype(np.float32, copy=True)
    if wave.size == 0 or strength == 0.0:
        return out
    # Draws are made whether used or not, so that one effect's probability does not shift the others.
    use = rng.random(6) < strength * np.array([0.55, 0.35, 0.35, 0.5, 0.08, 0.8])
    if use[1] or use[2] or use[3]:
        out = _filter(out, rng, room=bool(use[1]), band=bool(use[2]), tilt=bool(use[3]), strength=strength)
    if use[0]:
        out = _add_noise(out, rng, noise_bank, strength)
    if use[4]:
        peak = float(np.abs(out).max()) + 1e-9
        ceiling = peak * rng.uniform(1 - 0.6 * strength, 1.0)
        out = np.clip(out, -ceiling, ceiling)
    if use[5]:
        out = out * np.float32(10 ** (rng.uniform(-14, 6) * strength / 20))
    peak = float(np.abs(out).max())
    if peak > _PEAK:
        out = out * np.float32(_PEAK / peak)
    return out.astype(np.float32, copy=False)


def _filter(wave: Wave, rng: np.random.Generator, *, room: bool, band: bool, tilt: bool, strength: float) -> Wave:
    """Room, tilt and band limit in one pass; the level is kept."""
    response = room_response(rng, strength) if room else np.ones(1, np.float32)
    # A band limit has no long ringing at these slopes; a quarter of a second of padding keeps it from wrapping.
    size = fast_fft_size(wave.size + max(response.size, SAMPLE_RATE // 4))
    spectrum = np.fft.rfft(wave, size)
    frequency = np.arange(spectrum.size, dtype=np.float32) * np.float32(SAMPLE_RATE / size)
    if room:
        spectrum *= np.fft.rfft(response, size)
    gain = np.ones(spectrum.size, np.float32)
    if tilt:
        db_per_octave = rng.uniform(-4.0, 4.0) * strength
        octaves = np.log2(np.maximum(frequency, 50.0) / 1000.0)
        gain *= 10 ** (np.clip(db_per_octave * octaves, -18, 18) / 20)
    if band:
        low, high = _band_edges(rng)
        order = 2 * int(rng.integers(3, 9))
        gain /= np.sqrt(1 + (frequency / high) ** order)
        if low > 0:
            gain /= np.sqrt(1 + (low / np.maximum(frequency, 1.0)) ** (order // 2))
    out = np.fft.irfft(spectrum * gain, size)[: wave.size].astype(np.float32)
    before, after = float(np.sqrt(np.mean(wave**2))), float(np.sqrt(np.mean(out**2)))
    return out * np.float32(before / (after + 1e-9)) if before > 0 else out


def _band_edges(rng: np.random.Generator) -> tuple[float, float]:
    """Pass band in Hz: telephone, 8 kHz recording, 16 kHz recording, or a dull microphone."""
    kind = int(rng.integers(4))
    if kind == 0:
        return rng.uniform(200, 350), rng.uniform(3200, 3600)
    if kind == 1:
        return 0.0, rng.uniform(3600, 4000)
    if kind == 2:
        return rng.uniform(0, 100), rng.uniform(7000, 8000)
    return rng.uniform(50, 200), rng.uniform(4000, 9000)


def room_response(rng: np.random.Generator, strength: float) -> Wave:
    """Impulse response of a made-up room: the direct sound, then noise that decays exponentially."""
    decay_s = rng.uniform(0.08, 0.15 + 0.55 * strength)
    size = int(min(0.5, decay_s) * SAMPLE_RATE)
    t = np.arange(size, dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(size, dtype=np.float32) * np.exp(-6.9 * t / decay_s)
    tail[: int(rng.uniform(0.001, 0.008) * SAMPLE_RATE)] = 0.0
    # Walls swallow high frequencies: a one-pole low-pass in its cheapest form.
    tail[1:] += rng.uniform(0.2, 0.9) * tail[:-1]
    direct_to_tail_db = rng.uniform(12 - 14 * strength, 15)
    tail *= 10 ** (-direct_to_tail_db / 20) / (np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def _add_noise(wave: Wave, rng: np.random.Generator, noise_bank: Sequence[Wave] | None, strength: float) -> Wave:
    """Add background at a random signal-to-noise ratio."""
    bank = noise_bank is not None and len(noise_bank) > 0 and rng.random() < 0.5
    if bank and noise_bank is not None:
        clip = noise_bank[int(rng.integers(len(noise_bank)))]
        start = int(rng.integers(max(1, clip.size - wave.size)))
        noise = np.resize(clip[start:], wave.size) if clip.size else np.zeros(wave.size, np.float32)
    else:
        noise = coloured_noise(rng, wave.size, rng.uniform(0.0, 2.0))
    signal_rms, noise_rms = float(np.sqrt(np.mean(wave**2))), float(np.sqrt(np.mean(noise**2)))
    if signal_rms <= 0 or noise_rms <= 0:
        return wave
    ratio_db = rng.uniform(30 - 27 * strength, 35)
    gain = signal_rms / noise_rms * 10 ** (-ratio_db / 20)
    return (wave + gain * noise).astype(np.float32)


def coloured_noise(rng: np.random.Generator, num_samples: int, slope: float) -> Wave:
    """Noise whose power falls by ``slope`` x 3 dB an octave (0 white, 1 pink, 2 brown), (num_samples,), variance 1."""
    size = fast_fft_size(num_samples)
    white = rng.standard_normal(size, dtype=np.float32)
    if slope == 0.0:
        return white[:num_samples]
    spectrum = np.fft.rfft(white)
    frequency = np.maximum(np.arange(spectrum.size, dtype=np.float32) * np.float32(SAMPLE_RATE / size), 40.0)
    noise = np.fft.irfft(spectrum * frequency ** np.float32(-slope / 2), size)[:num_samples]
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def fast_fft_size(minimum: int) -> int:
    """The smallest size of at least ``minimum`` that is a power of two times 1, 3, 5, 9 or 15: cheap to transform."""
    sizes = (odd << max(0, (-(-minimum // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15))
    return min(sizes)


def speed_perturb(wave: Wave, factor: float) -> Wave:
    """Play faster or slower (tempo and pitch together) by resampling.

    Args:
        wave: Samples, (N,), float32.
        factor: Speed; 1.1 is a tenth faster. In [0.5, 2].

    Returns:
        About N / factor samples, float32.

    Raises:
        ValueError: If ``factor`` is out of range.
    """
    if not 0.5 <= factor <= 2.0:
        raise UserError(f"speed factor must be in [0.5, 2], not {factor}")
    if factor == 1.0 or wave.size == 0:
        return wave.astype(np.float32, copy=True)
    return soxr.resample(wave.astype(np.float32, copy=False), SAMPLE_RATE * factor, SAMPLE_RATE, quality="MQ")
