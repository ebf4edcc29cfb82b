"""Building blocks of made sounds, and the ends and levels of every clip; all at 24 kHz."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.synth.voices import Wave

Rng = np.random.Generator


def noise(rng: Rng, n: int, slope: float = 0.0) -> Wave:
    """Noise whose power falls with ``slope`` x 3 dB an octave (0 white, 1 pink, 2 brown), unit variance."""
    size = 1 << (n - 1).bit_length()
    spectrum = rng.standard_normal(size // 2 + 1) + 1j * rng.standard_normal(size // 2 + 1)
    frequency = np.maximum(np.arange(size // 2 + 1) / size * SAMPLE_RATE, 20.0)
    wave = np.fft.irfft(spectrum * frequency ** (-slope / 2), size)[:n]
    return (wave / (wave.std() + 1e-9)).astype(np.float32)


def band(wave: Wave, low: float, high: float, order: int = 2) -> Wave:
    """Band-pass between two frequencies, Hz."""
    from scipy import signal

    sos = signal.butter(order, [max(low, 15), min(high, 11800)], "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sos, wave), np.float32)


def time(n: int) -> Wave:
    """Time of each sample, seconds."""
    return (np.arange(n) / SAMPLE_RATE).astype(np.float32)


def phase(frequency: Wave) -> Wave:
    """Phase of a tone with the frequency contour ``frequency`` in Hz."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def slow(rng: Rng, n: int, rate_hz: float) -> Wave:
    """A random contour in [0, 1] that changes about ``rate_hz`` times a second."""
    points = max(4, int(n / SAMPLE_RATE * rate_hz) + 4)
    knots = rng.random(points)
    x = np.linspace(0, points - 1, n)
    left = np.minimum(x.astype(int), points - 2)
    blend = 0.5 - 0.5 * np.cos(np.pi * (x - left))
    return (knots[left] * (1 - blend) + knots[left + 1] * blend).astype(np.float32)


def decay(n: int, seconds: float, attack_s: float = 0.002) -> Wave:
    """Envelope that rises in ``attack_s`` and falls by 60 dB in ``seconds``."""
    t = time(n)
    return np.minimum(t / attack_s, 1) * 10 ** (-3 * t / seconds)


def place(out: Wave, event: Wave, at_s: float, gain: float = 1.0) -> None:
    """Add an event to ``out`` in place, cut at its end."""
    start = int(at_s * SAMPLE_RATE)
    length = min(event.size, out.size - start)
    if length > 0 and start >= 0:
        out[start : start + length] += gain * event[:length]


def rhythm(rng: Rng, n: int, low_s: float, high_s: float, jitter: float = 0.05) -> list[float]:
    """Event times with one drawn period and a little jitter, seconds."""
    period = rng.uniform(low_s, high_s)
    at = rng.uniform(0.02, period * 0.6)
    times = []
    while at < n / SAMPLE_RATE - 0.03:
        times.append(at)
        at += period * (1 + jitter * rng.standard_normal())
    return times


def partials(rng: Rng, n: int, base: float, ratios: Sequence[float], seconds: float) -> Wave:
    """A struck object: decaying partials, the higher the shorter."""
    t, out = time(n), np.zeros(n, np.float32)
    for index, ratio in enumerate(ratios):
        if base * ratio < 11000:
            out += (
                (rng.uniform(0.4, 1) / (1 + 0.4 * index))
                * np.sin(2 * np.pi * base * ratio * t + rng.uniform(0, 6))
                * decay(n, seconds / (1 + 0.5 * index))
            )
    return out


def fade(wave: Wave, seconds: float = 0.01) -> Wave:
    """Soft edges, and no value that is not finite."""
    n = min(int(seconds * SAMPLE_RATE), wave.size // 2)
    if n == 0:
        return wave
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    out = np.array(wave, np.float32)
    out[:n] *= ramp
    out[-n:] *= ramp[::-1]
    return out


def loudest(wave: Wave, n: int) -> Wave:
    """The stretch of ``n`` samples with most energy, on a 0.25 s grid."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    starts = np.arange(0, wave.size - n + 1, SAMPLE_RATE // 4)
    return wave[int(starts[np.argmax(energy[starts + n] - energy[starts])]) :][:n]


def finish(wave: Wave, rate: int, *, margin_s: float = 0.1) -> Wave:
    """Resample to 24 kHz and trim silence at both ends, leaving ``margin_s`` of it where there was any."""
    if wave.size == 0:
        return wave
    if rate != SAMPLE_RATE:
        wave = soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32)
    return trim_silence(wave, margin_s=margin_s)


def trim_silence(wave: Wave, *, margin_s: float = 0.1, floor_db: float = -42.0) -> Wave:
    """Cut both ends where 10 ms frames lie ``floor_db`` below the loudest frame; empty if all is silent."""
    frame = SAMPLE_RATE // 100
    usable = wave.size // frame * frame
    if usable == 0:
        return wave[:0]
    level = np.sqrt(np.mean(wave[:usable].reshape(-1, frame) ** 2, axis=1))
    loud = np.flatnonzero(level > max(float(level.max()), 1e-6) * 10 ** (floor_db / 20))
    if level.max() < 1e-5 or loud.size == 0:
        return wave[:0]
    margin = round(margin_s * SAMPLE_RATE)
    return wave[max(0, loud[0] * frame - margin) : (loud[-1] + 1) * frame + margin]


def set_level(wave: Wave, level_dbfs: float, *, ceiling: float = 0.95) -> Wave:
    """Scale to an RMS level (dB relative to full scale), but never above ``ceiling``."""
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    peak = float(np.abs(wave).max(initial=0.0))
    if rms <= 0 or peak <= 0:
        return wave
    return (wave * min(10 ** (level_dbfs / 20) / rms, ceiling / peak)).astype(np.float32)
