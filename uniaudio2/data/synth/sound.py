"""Procedural sounds and music: one small synthesiser for each class, with at least five phrasings of its caption.

Every recipe is a function ``(rng, num_samples) -> samples`` at 24 kHz; its parameters (pitch, tempo, colour, number
of events) are drawn, so that no two clips are alike. Classes that ESC-10 has as well carry its label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.augment import augment, speed_perturb
from uniaudio2.data.manifest import Example
from uniaudio2.data.sources import CAPTIONS
from uniaudio2.data.synth.engines import Wave
from uniaudio2.data.synth.speech import set_level

Rng = np.random.Generator
Recipe = Callable[[Rng, int], Wave]

LICENCE = "procedural, made by this package (Apache-2.0)"


@dataclass(frozen=True)
class SoundClass:
    """A class of procedural sound: its label, kind, phrasings (the first is the plainest) and recipe."""

    label: str
    phrases: tuple[str, ...]
    recipe: Recipe
    kind: str = "sound"


def _noise(rng: Rng, n: int, slope: float = 0.0) -> Wave:
    """Noise whose power falls with ``slope`` x 3 dB an octave (0 white, 1 pink, 2 brown), unit variance."""
    size = 1 << (n - 1).bit_length()
    spectrum = rng.standard_normal(size // 2 + 1) + 1j * rng.standard_normal(size // 2 + 1)
    frequency = np.maximum(np.arange(size // 2 + 1) / size * SAMPLE_RATE, 20.0)
    wave = np.fft.irfft(spectrum * frequency ** (-slope / 2), size)[:n]
    return (wave / (wave.std() + 1e-9)).astype(np.float32)


def _band(wave: Wave, low: float, high: float, order: int = 2) -> Wave:
    """Band-pass between two frequencies, Hz."""
    sos = signal.butter(order, [max(low, 15), min(high, 11800)], "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sos, wave), np.float32)


def _time(n: int) -> Wave:
    return (np.arange(n) / SAMPLE_RATE).astype(np.float32)


def _phase(frequency: Wave) -> Wave:
    """Phase of a tone with the frequency contour ``frequency`` in Hz."""
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def _slow(rng: Rng, n: int, rate_hz: float) -> Wave:
    """A random contour in [0, 1] that changes about ``rate_hz`` times a second."""
    points = max(4, int(n / SAMPLE_RATE * rate_hz) + 4)
    knots = rng.random(points)
    x = np.linspace(0, points - 1, n)
    left = np.minimum(x.astype(int), points - 2)
    blend = 0.5 - 0.5 * np.cos(np.pi * (x - left))
    return (knots[left] * (1 - blend) + knots[left + 1] * blend).astype(np.float32)


def _decay(n: int, seconds: float, attack_s: float = 0.002) -> Wave:
    """Envelope that rises in ``attack_s`` and falls by 60 dB in ``seconds``."""
    t = _time(n)
    return np.minimum(t / attack_s, 1) * 10 ** (-3 * t / seconds)


def _place(out: Wave, event: Wave, at_s: float, gain: float = 1.0) -> None:
    """Add an event to ``out`` in place, cut at its end."""
    start = int(at_s * SAMPLE_RATE)
    length = min(event.size, out.size - start)
    if length > 0 and start >= 0:
        out[start : start + length] += gain * event[:length]


def _rhythm(rng: Rng, n: int, low_s: float, high_s: float, jitter: float = 0.05) -> list[float]:
    """Event times with one drawn period and a little jitter, seconds."""
    period = rng.uniform(low_s, high_s)
    time = rng.uniform(0.02, period * 0.6)
    times = []
    while time < n / SAMPLE_RATE - 0.03:
        times.append(time)
        time += period * (1 + jitter * rng.standard_normal())
    return times


def _rain(rng: Rng, n: int) -> Wave:
    bed = _band(_noise(rng, n, rng.uniform(0.0, 0.8)), rng.uniform(300, 1200), 11500)
    out = bed * (0.8 + 0.2 * _slow(rng, n, 1))
    for _ in range(int(rng.uniform(20, 140) * n / SAMPLE_RATE)):
        frequency, length = rng.uniform(900, 7000), int(rng.uniform(0.004, 0.02) * SAMPLE_RATE)
        drop = np.sin(2 * np.pi * frequency * _time(length)) * _decay(length, 0.02, 0.0005)
        _place(out, drop, rng.uniform(0, n / SAMPLE_RATE), rng.exponential(2.0))
    return out


def _wind(rng: Rng, n: int) -> Wave:
    out = np.zeros(n, np.float32)
    for _ in range(3):
        centre = rng.uniform(150, 900)
        out += _band(_noise(rng, n, 1.0), centre * 0.6, centre * 1.5) * _slow(rng, n, rng.uniform(0.5, 1.5)) ** 2
    return out + 0.3 * _noise(rng, n, 2.0) * _slow(rng, n, 1)


def _sea_waves(rng: Rng, n: int) -> Wave:
    t, period = _time(n), rng.uniform(2.5, 5.0)
    swell = (0.5 + 0.5 * np.sin(2 * np.pi * (t / period + rng.random()))) ** rng.uniform(1.5, 3)
    wash = _band(_noise(rng, n, 0.7), 200, 9000)
    return wash * (0.08 + swell) + 0.4 * _band(_noise(rng, n, 1.5), 40, 400) * (0.3 + swell)


def _siren(rng: Rng, n: int) -> Wave:
    t = _time(n)
    rate, low, high = rng.uniform(0.3, 3.0), rng.uniform(450, 700), rng.uniform(950, 1600)
    if rng.random() < 0.4:
        sweep = (np.sin(2 * np.pi * rate * t) > 0).astype(np.float32)
    else:
        sweep = 0.5 + 0.5 * signal.sawtooth(2 * np.pi * rate * t, rng.choice([0.5, 0.8]))
    phase = _phase(low + (high - low) * sweep)
    return (np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)).astype(np.float32)


def _beep(rng: Rng, n: int) -> Wave:
    out, frequency, length = np.zeros(n, np.float32), rng.uniform(500, 3000), int(rng.uniform(0.08, 0.4) * SAMPLE_RATE)
    tone = np.sin(2 * np.pi * frequency * _time(length)) * np.minimum(
        1, 200 * np.minimum(_time(length), _time(length)[::-1])
    )
    for time in _rhythm(rng, n, length / SAMPLE_RATE + 0.1, length / SAMPLE_RATE + 1.0, 0.0):
        _place(out, tone, time)
    return out


def _alarm_clock(rng: Rng, n: int) -> Wave:
    frequency, out = rng.uniform(1500, 3200), np.zeros(n, np.float32)
    chirp = int(0.06 * SAMPLE_RATE)
    tone = signal.square(2 * np.pi * frequency * _time(chirp)).astype(np.float32) * np.minimum(
        1, 300 * _time(chirp)[::-1]
    )
    for time in _rhythm(rng, n, 0.6, 1.1, 0.0):
        for pulse in range(int(rng.integers(3, 5))):
            _place(out, tone, time + 0.11 * pulse)
    return out


def _engine(rng: Rng, n: int) -> Wave:
    rpm = rng.uniform(22, 75) * (1 + rng.uniform(0.1, 0.7) * _slow(rng, n, 0.6))
    phase = _phase(rpm)
    out = np.zeros(n, np.float32)
    for harmonic in range(1, 14):
        out += rng.uniform(0.3, 1) / harmonic**0.7 * np.sin(harmonic * phase + rng.uniform(0, 6))
    return np.tanh(out) + 0.3 * _band(_noise(rng, n, 1), 80, 3000) * (1 + 0.6 * np.sin(2 * phase))


def _white_noise(rng: Rng, n: int) -> Wave:
    return _noise(rng, n, rng.choice([0.0, 0.0, 0.3]))


def _footsteps(rng: Rng, n: int) -> Wave:
    out, hardness = np.zeros(n, np.float32), rng.uniform(300, 2500)
    for time in _rhythm(rng, n, 0.35, 0.75, 0.05):
        length = int(0.18 * SAMPLE_RATE)
        heel = _band(_noise(rng, length), 60, hardness) * _decay(length, rng.uniform(0.06, 0.15))
        _place(out, heel, time, rng.uniform(0.7, 1.1))
        _place(
            out,
            _band(_noise(rng, length), 200, hardness * 2) * _decay(length, 0.06),
            time + rng.uniform(0.06, 0.1),
            0.4,
        )
    return out


def _clapping(rng: Rng, n: int) -> Wave:
    out = np.zeros(n, np.float32)
    people = int(rng.choice([1, 2, 6, 25]))
    for _ in range(people):
        centre = rng.uniform(800, 2500)
        for time in _rhythm(rng, n, 0.2, 0.55, 0.1):
            length = int(0.08 * SAMPLE_RATE)
            _place(
                out,
                _band(_noise(rng, length), centre * 0.6, centre * 2) * _decay(length, 0.05),
                time,
                rng.uniform(0.5, 1),
            )
    return out


def _partials(rng: Rng, n: int, base: float, ratios: Sequence[float], seconds: float) -> Wave:
    """A struck object: decaying partials, the higher the shorter."""
    t, out = _time(n), np.zeros(n, np.float32)
    for index, ratio in enumerate(ratios):
        if base * ratio < 11000:
            out += (
                (rng.uniform(0.4, 1) / (1 + 0.4 * index))
                * np.sin(2 * np.pi * base * ratio * t + rng.uniform(0, 6))
                * _decay(n, seconds / (1 + 0.5 * index))
            )
    return out


def _bell(rng: Rng, n: int) -> Wave:
    out, base = np.zeros(n, np.float32), rng.uniform(250, 1400)
    strike = _partials(
        rng, int(2.5 * SAMPLE_RATE), base, (0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1), rng.uniform(1.5, 4)
    )
    for time in _rhythm(rng, n, 0.5, 1.8, 0.02):
        _place(out, strike, time)
    return out


def _drum_beat(rng: Rng, n: int) -> Wave:
    out, step = np.zeros(n, np.float32), 60 / rng.uniform(80, 160) / 2
    length = int(0.3 * SAMPLE_RATE)
    t = _time(length)
    kick = np.sin(_phase((rng.uniform(40, 60) + 110 * np.exp(-t * 35)).astype(np.float32))) * _decay(length, 0.35)
    snare = (_band(_noise(rng, length), 400, 9000) + 0.6 * np.sin(2 * np.pi * 190 * t)) * _decay(length, 0.18) * 0.6
    hat = _band(_noise(rng, length), 6000, 11700) * _decay(length, 0.06) * 0.5
    busy = rng.random(8) < 0.3
    for index in range(int(n / SAMPLE_RATE / step) + 1):
        place = index % 8
        if place in (0, 4) or (busy[place] and place % 2):
            _place(out, kick, index * step, 1.2)
        if place in (2, 6):
            _place(out, snare, index * step)
        _place(out, hat, index * step, rng.uniform(0.5, 1))
    return out


_SCALE = (0, 2, 4, 7, 9, 12, 14, 16)


def _melody(rng: Rng, n: int, note: Callable[[float, int], Wave], base: float) -> Wave:
    """Notes of a pentatonic scale at one tempo."""
    out, step = np.zeros(n, np.float32), rng.uniform(0.16, 0.45)
    degree = int(rng.integers(0, len(_SCALE)))
    for index in range(int(n / SAMPLE_RATE / step) + 1):
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, len(_SCALE) - 1))
        if rng.random() < 0.88:
            _place(out, note(base * 2 ** (_SCALE[degree] / 12), int(min(1.4, step * 3) * SAMPLE_RATE)), index * step)
    return out


def _piano(rng: Rng, n: int) -> Wave:
    def note(frequency: float, length: int) -> Wave:
        """One note of some Hz and samples."""
        t, out = _time(length), np.zeros(length, np.float32)
        for k in range(1, 9):
            out += (
                np.sin(2 * np.pi * frequency * k * np.sqrt(1 + 0.0004 * k * k) * t)
                * 10 ** (-3 * t * (0.8 + 0.35 * k))
                / k**1.2
            )
        return out * np.minimum(1, t / 0.004) * np.minimum(1, 60 * t[::-1])

    return _melody(rng, n, note, rng.uniform(180, 420))


def _flute(rng: Rng, n: int) -> Wave:
    breath = _noise(rng, 2 * SAMPLE_RATE, 0.5)

    def note(frequency: float, length: int) -> Wave:
        """One note of some Hz and samples."""
        t = _time(length)
        phase = _phase(frequency * (1 + 0.006 * np.sin(2 * np.pi * 5.2 * t)))
        tone = np.sin(phase) + 0.25 * np.sin(2 * phase) + 0.08 * np.sin(3 * phase) + 0.03 * breath[:length]
        return (tone * np.minimum(1, t / 0.05) * np.minimum(1, 12 * t[::-1])).astype(np.float32)

    return _melody(rng, n, note, rng.uniform(350, 600))


def _guitar(rng: Rng, n: int) -> Wave:
    def note(frequency: float, length: int) -> Wave:
        """One note of some Hz and samples."""
        period = max(2, round(SAMPLE_RATE / frequency))
        burst = np.zeros(length, np.float32)
        burst[:period] = _noise(rng, period + 8)[:period]
        feedback = np.zeros(period + 2)
        feedback[0], feedback[period], feedback[period + 1] = 1.0, -0.498, -0.498
        string = np.asarray(signal.lfilter([1.0], feedback, burst), np.float32)
        return string * np.minimum(1, 40 * _time(length)[::-1])

    return _melody(rng, n, note, rng.uniform(100, 220))


def _organ(rng: Rng, n: int) -> Wave:
    out, t = np.zeros(n, np.float32), _time(n)
    base, length_s = rng.uniform(110, 220), rng.uniform(0.8, 1.6)
    for index in range(int(n / SAMPLE_RATE / length_s) + 1):
        m = int(length_s * SAMPLE_RATE)
        tt, chord = t[:m], np.zeros(min(m, n), np.float32)
        root = base * 2 ** (rng.choice([0, 5, 7, 9, -3]) / 12)
        for semitone in (0, 4, 7, 12):
            for k in (1, 2, 3, 4, 6):
                chord += np.sin(2 * np.pi * root * 2 ** (semitone / 12) * k * tt) / (k * 1.5)
        edge = np.minimum(1, 30 * np.minimum(tt, tt[::-1]))
        _place(out, chord * edge, index * length_s)
    return out


def _clock_tick(rng: Rng, n: int) -> Wave:
    out, base = np.zeros(n, np.float32), rng.uniform(1500, 4500)
    length = int(0.05 * SAMPLE_RATE)
    ticks = [
        _partials(rng, length, base * ratio, (1, 1.7, 2.3), 0.03) + 0.3 * _noise(rng, length) * _decay(length, 0.008)
        for ratio in (1, rng.uniform(0.7, 1))
    ]
    for index, time in enumerate(_rhythm(rng, n, 0.25, 1.0, 0.004)):
        _place(out, ticks[index % 2], time)
    return out + 0.003 * _noise(rng, n, 1)


def _fire(rng: Rng, n: int) -> Wave:
    out = 0.25 * _noise(rng, n, 1.8) * (0.5 + 0.5 * _slow(rng, n, 3)) + 0.04 * _noise(rng, n)
    for _ in range(int(rng.uniform(8, 40) * n / SAMPLE_RATE)):
        length = int(rng.uniform(0.003, 0.03) * SAMPLE_RATE)
        low = rng.uniform(500, 3000)
        crack = _band(_noise(rng, length), low, min(low * 4, 11500)) * _decay(length, rng.uniform(0.005, 0.03), 0.0003)
        _place(out, crack, rng.uniform(0, n / SAMPLE_RATE), rng.exponential(1.5))
    return out


def _helicopter(rng: Rng, n: int) -> Wave:
    t, rate = _time(n), rng.uniform(9, 18)
    chop = (0.5 + 0.5 * np.cos(2 * np.pi * rate * t)) ** rng.uniform(2, 6)
    rumble = _band(_noise(rng, n, 1), 40, rng.uniform(400, 1200))
    whine = np.sin(2 * np.pi * rng.uniform(500, 1100) * t) * 0.1
    return (rumble * (0.25 + chop) + whine + 0.2 * _band(_noise(rng, n, 0.6), 800, 5000) * chop).astype(np.float32)


def _birds(rng: Rng, n: int) -> Wave:
    out = 0.004 * _noise(rng, n, 1)
    low, span = rng.uniform(2000, 4500), rng.uniform(500, 2500)
    for time in _rhythm(rng, n, 0.25, 0.9, 0.3):
        for call in range(int(rng.integers(1, 6))):
            length = int(rng.uniform(0.04, 0.14) * SAMPLE_RATE)
            t = np.linspace(0, 1, length, dtype=np.float32)
            contour = low + span * (t if rng.random() < 0.5 else 1 - t) + 200 * np.sin(40 * t)
            chirp = np.sin(_phase(contour)) * np.maximum(np.sin(np.pi * t), 0) ** 0.7
            _place(out, chirp, time + call * length / SAMPLE_RATE * 1.2, rng.uniform(0.5, 1))
    return out


def _water_drops(rng: Rng, n: int) -> Wave:
    out = 0.002 * _noise(rng, n, 1)
    for time in _rhythm(rng, n, 0.25, 1.1, 0.15):
        length = int(0.09 * SAMPLE_RATE)
        t = _time(length)
        start = rng.uniform(500, 1400)
        _place(
            out,
            np.sin(_phase(start + start * 8 * t)) * _decay(length, rng.uniform(0.05, 0.09)),
            time,
            rng.uniform(0.5, 1),
        )
    return out


def _thunder(rng: Rng, n: int) -> Wave:
    out = 0.02 * _noise(rng, n, 1.5)
    start = rng.uniform(0.05, 0.5)
    length = n - int(start * SAMPLE_RATE)
    roll = (
        _band(_noise(rng, length, 1.6), 25, 500)
        * _decay(length, rng.uniform(3, 7), 0.05)
        * (0.3 + _slow(rng, length, 5))
    )
    crack = _band(_noise(rng, length, 0.5), 200, 6000) * _decay(length, rng.uniform(0.3, 1))
    _place(out, roll + rng.uniform(0.1, 0.5) * crack, start)
    return out


def _phone(rng: Rng, n: int) -> Wave:
    t, rate = _time(n), rng.uniform(15, 25)
    low, high = rng.uniform(400, 900), rng.uniform(950, 1500)
    on = (np.mod(t, rng.uniform(1.2, 2.5)) < rng.uniform(0.5, 1.0)).astype(np.float32)
    ring = np.where(np.sin(2 * np.pi * rate * t) > 0, np.sin(2 * np.pi * low * t), np.sin(2 * np.pi * high * t))
    return (ring * on).astype(np.float32)


def _knock(rng: Rng, n: int) -> Wave:
    out = 0.001 * _noise(rng, n, 1)
    base, time = rng.uniform(90, 260), rng.uniform(0.1, 0.4)
    while time < n / SAMPLE_RATE - 0.3:
        for _ in range(int(rng.integers(2, 5))):
            length = int(0.15 * SAMPLE_RATE)
            hit = _partials(rng, length, base, (1, 1.6, 2.4, 3.7), 0.12) + 0.6 * _band(
                _noise(rng, length), 100, 2500
            ) * _decay(length, 0.03)
            _place(out, hit, time, rng.uniform(0.7, 1))
            time += rng.uniform(0.16, 0.26)
        time += rng.uniform(0.5, 1.2)
    return out


def _car_horn(rng: Rng, n: int) -> Wave:
    out, low = np.zeros(n, np.float32), rng.uniform(320, 460)
    for time in _rhythm(rng, n, 0.5, 1.6, 0.2):
        length = int(rng.uniform(0.2, 0.9) * SAMPLE_RATE)
        t = _time(length)
        horn = np.tanh(2 * signal.sawtooth(2 * np.pi * low * t)) + np.tanh(
            2 * signal.sawtooth(2 * np.pi * low * 1.26 * t)
        )
        _place(out, _band(horn.astype(np.float32), 250, 5000) * np.minimum(1, 60 * np.minimum(t, t[::-1])), time)
    return out


CLASSES: tuple[SoundClass, ...] = (
    SoundClass("rain", CAPTIONS["rain"], _rain),
    SoundClass(
        "wind", ("wind blowing", "the wind", "a strong wind", "wind howls", "gusts of wind", "it is windy"), _wind
    ),
    SoundClass("sea_waves", CAPTIONS["sea_waves"], _sea_waves),
    SoundClass(
        "siren",
        (
            "a siren",
            "a siren wailing",
            "an emergency siren",
            "the siren of a police car",
            "a loud siren",
            "a siren sounds",
        ),
        _siren,
    ),
    SoundClass(
        "beep", ("beeping", "a beep", "an electronic beep", "repeated beeps", "a device beeps", "short beeps"), _beep
    ),
    SoundClass(
        "alarm_clock",
        (
            "an alarm clock",
            "an alarm clock ringing",
            "the alarm goes off",
            "a digital alarm clock",
            "the beeping of an alarm clock",
        ),
        _alarm_clock,
    ),
    SoundClass(
        "engine",
        (
            "an engine running",
            "an engine",
            "a motor runs",
            "the engine of a car",
            "a running motor",
            "an engine idling",
        ),
        _engine,
    ),
    SoundClass(
        "white_noise",
        ("white noise", "static noise", "steady noise", "the hiss of static", "constant white noise"),
        _white_noise,
    ),
    SoundClass(
        "footsteps",
        (
            "footsteps",
            "someone walking",
            "steps on the floor",
            "a person walks",
            "the sound of footsteps",
            "walking steps",
        ),
        _footsteps,
    ),
    SoundClass(
        "clapping",
        ("hand clapping", "people clapping", "applause", "clapping hands", "someone claps", "the sound of clapping"),
        _clapping,
    ),
    SoundClass(
        "bell",
        ("a bell ringing", "a bell", "the ringing of a bell", "a bell rings", "a church bell", "bells ring"),
        _bell,
    ),
    SoundClass(
        "drum_beat",
        (
            "a drum beat",
            "drums playing",
            "a rhythm on drums",
            "a drum kit playing a beat",
            "someone plays the drums",
            "a steady drum beat",
        ),
        _drum_beat,
        "music",
    ),
    SoundClass(
        "piano",
        (
            "a piano melody",
            "a piano playing",
            "someone plays the piano",
            "piano music",
            "a tune on the piano",
            "notes of a piano",
        ),
        _piano,
        "music",
    ),
    SoundClass(
        "flute",
        (
            "a flute melody",
            "a flute playing",
            "someone plays the flute",
            "flute music",
            "a tune on a flute",
            "soft flute notes",
        ),
        _flute,
        "music",
    ),
    SoundClass(
        "guitar",
        (
            "a guitar melody",
            "a guitar playing",
            "someone plucks a guitar",
            "guitar music",
            "a plucked guitar",
            "plucked strings",
        ),
        _guitar,
        "music",
    ),
    SoundClass(
        "organ",
        ("organ chords", "an organ playing", "someone plays the organ", "organ music", "chords on an organ"),
        _organ,
        "music",
    ),
    SoundClass("clock_tick", CAPTIONS["clock_tick"], _clock_tick),
    SoundClass("fire_crackling", CAPTIONS["fire_crackling"], _fire),
    SoundClass("helicopter", CAPTIONS["helicopter"], _helicopter),
    SoundClass(
        "bird_chirp",
        ("birds chirping", "a bird chirps", "birds singing", "a singing bird", "the chirp of a bird", "birdsong"),
        _birds,
    ),
    SoundClass(
        "water_drops",
        ("water dripping", "drops of water", "dripping water", "a dripping tap", "water drops falling"),
        _water_drops,
    ),
    SoundClass(
        "thunder", ("thunder", "rolling thunder", "a clap of thunder", "thunder rumbles", "a thunderstorm"), _thunder
    ),
    SoundClass(
        "telephone",
        (
            "a telephone ringing",
            "a phone rings",
            "the ringing of a telephone",
            "a ringing phone",
            "an old telephone rings",
        ),
        _phone,
    ),
    SoundClass(
        "door_knock",
        ("knocking on a door", "someone knocks on the door", "a knock at the door", "door knocks", "a person knocking"),
        _knock,
    ),
    SoundClass(
        "car_horn",
        ("a car horn", "a car honking", "someone honks a horn", "the horn of a car", "a honking car"),
        _car_horn,
    ),
)
"""All procedural classes."""

_BY_LABEL = {item.label: item for item in CLASSES}


@dataclass(frozen=True)
class SoundTask:
    """One procedural clip: its id, class label, length in seconds, split."""

    id: str
    label: str
    seconds: float
    split: str = "train"


VARIED_OCTAVES = (-0.4, 0.4)
"""How much slower or faster a licensed clip of a varied mixture plays, pitch included."""


@dataclass(frozen=True)
class MixtureTask:
    """Two events in one clip: each a procedural class label, or the index of a licensed clip.

    ``varied``: licensed clips play at another speed, with another colour.
    """

    id: str
    first: str | int
    second: str | int
    seconds: float
    split: str = "train"
    varied: bool = False


def plan_sounds(minutes: float, seed: int, *, prefix: str = "sound") -> list[SoundTask]:
    """Procedural clips of 2-5 s, classes in turn; every twentieth clip of a class goes to dev."""
    rng = np.random.default_rng([seed, 11])
    tasks: list[SoundTask] = []
    total = 0.0
    while total < minutes * 60:
        index = len(tasks)
        seconds = round(float(rng.uniform(2.0, 5.0)), 2)
        split = "dev" if index // len(CLASSES) % 20 == 19 else "train"
        tasks.append(SoundTask(f"{prefix}-{index:05d}", CLASSES[index % len(CLASSES)].label, seconds, split))
        total += seconds
    return tasks


def plan_mixtures(
    minutes: float,
    licensed: Sequence[Example],
    seed: int,
    *,
    licensed_share: float = 0.5,
    varied: bool = False,
    prefix: str = "mix",
) -> list[MixtureTask]:
    """Two-event clips of 3-5 s, more than half of them of 5 s. Every twentieth clip goes to dev.

    Choice: single recordings mostly last 5 s; mixtures that do not would be told by their length (E22 in
    docs/experiments.md).

    Args:
        minutes: How much to plan.
        licensed: Licensed training clips with captions.
        seed: Seed of every choice.
        licensed_share: Share of events that are licensed clips; the others are procedural.
        varied: Change the licensed clips, so that few recordings stand for more of their kind.
        prefix: Start of the ids.
    """
    rng = np.random.default_rng([seed, 12])
    tasks: list[MixtureTask] = []
    total = 0.0
    while total < minutes * 60:
        events: list[str | int] = []
        labels: list[str | None] = []
        while len(events) < 2:
            if licensed and rng.random() < licensed_share:
                choice = int(rng.integers(len(licensed)))
                event, label = choice, licensed[choice].label
            else:
                event = label = CLASSES[int(rng.integers(len(CLASSES)))].label
            if label not in labels:
                events.append(event)
                labels.append(label)
        seconds = round(min(5.0, float(rng.uniform(3.0, 8.0))), 2)
        # Licensed dev clips stay out of mixtures; a dev mixture is a new combination of known clips.
        split = "dev" if len(tasks) % 20 == 19 else "train"
        tasks.append(MixtureTask(f"{prefix}-{len(tasks):05d}", events[0], events[1], seconds, split, varied))
        total += seconds
    return tasks


def render_sound(task: SoundTask, seed: int) -> tuple[Example, Wave]:
    """Make one procedural clip; a pure function of its arguments."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    item = _BY_LABEL[task.label]
    wave = set_level(_fade(item.recipe(rng, int(task.seconds * SAMPLE_RATE))), rng.normal(-23.0, 2.5))
    example = Example(
        id=task.id,
        path="-",
        duration=wave.size / SAMPLE_RATE,
        split=task.split,
        kind=item.kind,
        label=item.label,
        labels=(item.label,),
        caption=item.phrases[int(rng.integers(len(item.phrases)))],
        captions=item.phrases,
        engine="procedural",
        licence=LICENCE,
        source="synth_sound",
    )
    return example, wave


def render_mixture(task: MixtureTask, licensed: Sequence[Example], seed: int) -> tuple[Example, Wave]:
    """Make one two-event clip, the second event softer or later; a pure function of its arguments and the clips."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    n = int(task.seconds * SAMPLE_RATE)
    out = np.zeros(n, np.float32)
    labels: list[str] = []
    phrases: list[tuple[str, ...]] = []
    licences: list[str] = []
    credits: list[str] = []
    for place, event in enumerate((task.first, task.second)):
        if isinstance(event, int):
            source = licensed[event]
            wave = source.audio().numpy()[0]
            if task.varied:
                wave = augment(speed_perturb(wave, 2.0 ** rng.uniform(*VARIED_OCTAVES)), rng, strength=0.5)
            if wave.size > n:
                wave = _loudest(wave, n)
            labels.append(source.label or "")
            phrases.append(source.captions)
            licences.append(source.licence or "")
            credits.append(source.attribution or "")
        else:
            item = _BY_LABEL[event]
            wave = item.recipe(rng, n)
            labels.append(item.label)
            phrases.append(item.phrases)
            licences.append(LICENCE)
        wave = set_level(_fade(wave), -23.0 + float(rng.uniform(-3, 3)))
        latest = max(0, n - max(wave.size, n // 2))
        _place(out, wave, (rng.uniform(0, latest / SAMPLE_RATE) if latest else 0.0) if place else 0.0)

    def pick(options: tuple[str, ...]) -> str:
        """One of the options."""
        return options[int(rng.integers(len(options)))]

    pairs = [f"{pick(phrases[a])} and {pick(phrases[1 - a])}" for a in (0, 0, 1, 0, 1, 0)]
    captions = tuple(dict.fromkeys(pairs))
    wave = set_level(out, rng.normal(-23.0, 2.0))
    example = Example(
        id=task.id,
        path="-",
        duration=wave.size / SAMPLE_RATE,
        split=task.split,
        kind="sound",
        label=" and ".join(labels),
        labels=tuple(labels),
        caption=captions[0],
        captions=captions,
        engine="mixture",
        licence=" + ".join(dict.fromkeys(licences)),
        attribution="; ".join(dict.fromkeys(credit for credit in credits if credit)) or None,
        source="synth_mixture",
    )
    return example, wave


def _fade(wave: Wave, seconds: float = 0.01) -> Wave:
    """Soft edges, and no value that is not finite."""
    n = min(int(seconds * SAMPLE_RATE), wave.size // 2)
    if n == 0:
        return wave
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    out = np.array(wave, np.float32)
    out[:n] *= ramp
    out[-n:] *= ramp[::-1]
    return out


def _loudest(wave: Wave, n: int) -> Wave:
    """The stretch of ``n`` samples with most energy, on a 0.25 s grid."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    starts = np.arange(0, wave.size - n + 1, SAMPLE_RATE // 4)
    return wave[int(starts[np.argmax(energy[starts + n] - energy[starts])]) :][:n]
