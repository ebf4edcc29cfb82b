"""Procedural sounds and music: one small synthesiser for each class, with at least five phrasings of its caption.

Every recipe is a function ``(rng, num_samples) -> samples`` at 24 kHz; its parameters (pitch, tempo, colour, number
of events) are drawn, so that no two clips are alike. Classes that ESC-10 has as well carry its label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.sources import CAPTIONS
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.dsp import Rng
from uniaudio2.data.synth.voices import Wave

Recipe = Callable[[Rng, int], Wave]


@dataclass(frozen=True)
class SoundClass:
    """A class of procedural sound: its label, kind, phrasings (the first is the plainest) and recipe."""

    label: str
    phrases: tuple[str, ...]
    recipe: Recipe
    kind: str = "sound"


CLASSES: dict[str, SoundClass] = {}
"""All procedural classes by label, in the order of this file, which plans depend on."""


def sound_class(label: str, phrases: str | tuple[str, ...], *, kind: str = "sound") -> Callable[[Recipe], Recipe]:
    """Register the recipe below as a class of sound; phrasings in one string have ``" | "`` between them."""

    def register(recipe: Recipe) -> Recipe:
        options = tuple(phrases.split(" | ")) if isinstance(phrases, str) else phrases
        CLASSES[label] = SoundClass(label, options, recipe, kind)
        return recipe

    return register


@sound_class("rain", CAPTIONS["rain"])
def _rain(rng: Rng, n: int) -> Wave:
    bed = dsp.band(dsp.noise(rng, n, rng.uniform(0.0, 0.8)), rng.uniform(300, 1200), 11500)
    out = bed * (0.8 + 0.2 * dsp.slow(rng, n, 1))
    for _ in range(int(rng.uniform(20, 140) * n / SAMPLE_RATE)):
        frequency, length = rng.uniform(900, 7000), int(rng.uniform(0.004, 0.02) * SAMPLE_RATE)
        drop = np.sin(2 * np.pi * frequency * dsp.time(length)) * dsp.decay(length, 0.02, 0.0005)
        dsp.place(out, drop, rng.uniform(0, n / SAMPLE_RATE), rng.exponential(2.0))
    return out


@sound_class("wind", "wind blowing | the wind | a strong wind | wind howls | gusts of wind | it is windy")
def _wind(rng: Rng, n: int) -> Wave:
    out = np.zeros(n, np.float32)
    for _ in range(3):
        centre = rng.uniform(150, 900)
        out += (
            dsp.band(dsp.noise(rng, n, 1.0), centre * 0.6, centre * 1.5) * dsp.slow(rng, n, rng.uniform(0.5, 1.5)) ** 2
        )
    return out + 0.3 * dsp.noise(rng, n, 2.0) * dsp.slow(rng, n, 1)


@sound_class("sea_waves", CAPTIONS["sea_waves"])
def _sea_waves(rng: Rng, n: int) -> Wave:
    t, period = dsp.time(n), rng.uniform(2.5, 5.0)
    swell = (0.5 + 0.5 * np.sin(2 * np.pi * (t / period + rng.random()))) ** rng.uniform(1.5, 3)
    wash = dsp.band(dsp.noise(rng, n, 0.7), 200, 9000)
    return wash * (0.08 + swell) + 0.4 * dsp.band(dsp.noise(rng, n, 1.5), 40, 400) * (0.3 + swell)


@sound_class(
    "siren",
    "a siren | a siren wailing | an emergency siren | the siren of a police car | a loud siren | a siren sounds",
)
def _siren(rng: Rng, n: int) -> Wave:
    from scipy import signal

    t = dsp.time(n)
    rate, low, high = rng.uniform(0.3, 3.0), rng.uniform(450, 700), rng.uniform(950, 1600)
    if rng.random() < 0.4:
        sweep = (np.sin(2 * np.pi * rate * t) > 0).astype(np.float32)
    else:
        sweep = 0.5 + 0.5 * signal.sawtooth(2 * np.pi * rate * t, rng.choice([0.5, 0.8]))
    phase = dsp.phase(low + (high - low) * sweep)
    return (np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)).astype(np.float32)


@sound_class("beep", "beeping | a beep | an electronic beep | repeated beeps | a device beeps | short beeps")
def _beep(rng: Rng, n: int) -> Wave:
    out, frequency, length = np.zeros(n, np.float32), rng.uniform(500, 3000), int(rng.uniform(0.08, 0.4) * SAMPLE_RATE)
    tone = np.sin(2 * np.pi * frequency * dsp.time(length)) * np.minimum(
        1, 200 * np.minimum(dsp.time(length), dsp.time(length)[::-1])
    )
    for time in dsp.rhythm(rng, n, length / SAMPLE_RATE + 0.1, length / SAMPLE_RATE + 1.0, 0.0):
        dsp.place(out, tone, time)
    return out


@sound_class(
    "alarm_clock",
    "an alarm clock | an alarm clock ringing | the alarm goes off | a digital alarm clock | "
    "the beeping of an alarm clock",
)
def _alarm_clock(rng: Rng, n: int) -> Wave:
    from scipy import signal

    frequency, out = rng.uniform(1500, 3200), np.zeros(n, np.float32)
    chirp = int(0.06 * SAMPLE_RATE)
    tone = signal.square(2 * np.pi * frequency * dsp.time(chirp)).astype(np.float32) * np.minimum(
        1, 300 * dsp.time(chirp)[::-1]
    )
    for time in dsp.rhythm(rng, n, 0.6, 1.1, 0.0):
        for pulse in range(int(rng.integers(3, 5))):
            dsp.place(out, tone, time + 0.11 * pulse)
    return out


@sound_class(
    "engine",
    "an engine running | an engine | a motor runs | the engine of a car | a running motor | an engine idling",
)
def _engine(rng: Rng, n: int) -> Wave:
    rpm = rng.uniform(22, 75) * (1 + rng.uniform(0.1, 0.7) * dsp.slow(rng, n, 0.6))
    phase = dsp.phase(rpm)
    out = np.zeros(n, np.float32)
    for harmonic in range(1, 14):
        out += rng.uniform(0.3, 1) / harmonic**0.7 * np.sin(harmonic * phase + rng.uniform(0, 6))
    return np.tanh(out) + 0.3 * dsp.band(dsp.noise(rng, n, 1), 80, 3000) * (1 + 0.6 * np.sin(2 * phase))


@sound_class("white_noise", "white noise | static noise | steady noise | the hiss of static | constant white noise")
def _white_noise(rng: Rng, n: int) -> Wave:
    return dsp.noise(rng, n, rng.choice([0.0, 0.0, 0.3]))


@sound_class(
    "footsteps",
    "footsteps | someone walking | steps on the floor | a person walks | the sound of footsteps | walking steps",
)
def _footsteps(rng: Rng, n: int) -> Wave:
    out, hardness = np.zeros(n, np.float32), rng.uniform(300, 2500)
    for time in dsp.rhythm(rng, n, 0.35, 0.75, 0.05):
        length = int(0.18 * SAMPLE_RATE)
        heel = dsp.band(dsp.noise(rng, length), 60, hardness) * dsp.decay(length, rng.uniform(0.06, 0.15))
        dsp.place(out, heel, time, rng.uniform(0.7, 1.1))
        dsp.place(
            out,
            dsp.band(dsp.noise(rng, length), 200, hardness * 2) * dsp.decay(length, 0.06),
            time + rng.uniform(0.06, 0.1),
            0.4,
        )
    return out


@sound_class(
    "clapping",
    "hand clapping | people clapping | applause | clapping hands | someone claps | the sound of clapping",
)
def _clapping(rng: Rng, n: int) -> Wave:
    out = np.zeros(n, np.float32)
    people = int(rng.choice([1, 2, 6, 25]))
    for _ in range(people):
        centre = rng.uniform(800, 2500)
        for time in dsp.rhythm(rng, n, 0.2, 0.55, 0.1):
            length = int(0.08 * SAMPLE_RATE)
            dsp.place(
                out,
                dsp.band(dsp.noise(rng, length), centre * 0.6, centre * 2) * dsp.decay(length, 0.05),
                time,
                rng.uniform(0.5, 1),
            )
    return out


@sound_class("bell", "a bell ringing | a bell | the ringing of a bell | a bell rings | a church bell | bells ring")
def _bell(rng: Rng, n: int) -> Wave:
    out, base = np.zeros(n, np.float32), rng.uniform(250, 1400)
    strike = dsp.partials(
        rng, int(2.5 * SAMPLE_RATE), base, (0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1), rng.uniform(1.5, 4)
    )
    for time in dsp.rhythm(rng, n, 0.5, 1.8, 0.02):
        dsp.place(out, strike, time)
    return out


@sound_class(
    "drum_beat",
    "a drum beat | drums playing | a rhythm on drums | a drum kit playing a beat | someone plays the drums | "
    "a steady drum beat",
    kind="music",
)
def _drum_beat(rng: Rng, n: int) -> Wave:
    out, step = np.zeros(n, np.float32), 60 / rng.uniform(80, 160) / 2
    length = int(0.3 * SAMPLE_RATE)
    t = dsp.time(length)
    kick = np.sin(dsp.phase((rng.uniform(40, 60) + 110 * np.exp(-t * 35)).astype(np.float32))) * dsp.decay(length, 0.35)
    snare = (
        (dsp.band(dsp.noise(rng, length), 400, 9000) + 0.6 * np.sin(2 * np.pi * 190 * t))
        * dsp.decay(length, 0.18)
        * 0.6
    )
    hat = dsp.band(dsp.noise(rng, length), 6000, 11700) * dsp.decay(length, 0.06) * 0.5
    busy = rng.random(8) < 0.3
    for index in range(int(n / SAMPLE_RATE / step) + 1):
        place = index % 8
        if place in (0, 4) or (busy[place] and place % 2):
            dsp.place(out, kick, index * step, 1.2)
        if place in (2, 6):
            dsp.place(out, snare, index * step)
        dsp.place(out, hat, index * step, rng.uniform(0.5, 1))
    return out


_SCALE = (0, 2, 4, 7, 9, 12, 14, 16)


def _melody(rng: Rng, n: int, note: Callable[[float, int], Wave], base: float) -> Wave:
    """Notes of a pentatonic scale at one tempo."""
    out, step = np.zeros(n, np.float32), rng.uniform(0.16, 0.45)
    degree = int(rng.integers(0, len(_SCALE)))
    for index in range(int(n / SAMPLE_RATE / step) + 1):
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, len(_SCALE) - 1))
        if rng.random() < 0.88:
            dsp.place(out, note(base * 2 ** (_SCALE[degree] / 12), int(min(1.4, step * 3) * SAMPLE_RATE)), index * step)
    return out


@sound_class(
    "piano",
    "a piano melody | a piano playing | someone plays the piano | piano music | a tune on the piano | notes of a piano",
    kind="music",
)
def _piano(rng: Rng, n: int) -> Wave:
    def note(frequency: float, length: int) -> Wave:
        """One note of some Hz and samples."""
        t, out = dsp.time(length), np.zeros(length, np.float32)
        for k in range(1, 9):
            out += (
                np.sin(2 * np.pi * frequency * k * np.sqrt(1 + 0.0004 * k * k) * t)
                * 10 ** (-3 * t * (0.8 + 0.35 * k))
                / k**1.2
            )
        return out * np.minimum(1, t / 0.004) * np.minimum(1, 60 * t[::-1])

    return _melody(rng, n, note, rng.uniform(180, 420))


@sound_class(
    "flute",
    "a flute melody | a flute playing | someone plays the flute | flute music | a tune on a flute | soft flute notes",
    kind="music",
)
def _flute(rng: Rng, n: int) -> Wave:
    breath = dsp.noise(rng, 2 * SAMPLE_RATE, 0.5)

    def note(frequency: float, length: int) -> Wave:
        """One note of some Hz and samples."""
        t = dsp.time(length)
        phase = dsp.phase(frequency * (1 + 0.006 * np.sin(2 * np.pi * 5.2 * t)))
        tone = np.sin(phase) + 0.25 * np.sin(2 * phase) + 0.08 * np.sin(3 * phase) + 0.03 * breath[:length]
        return (tone * np.minimum(1, t / 0.05) * np.minimum(1, 12 * t[::-1])).astype(np.float32)

    return _melody(rng, n, note, rng.uniform(350, 600))


@sound_class(
    "guitar",
    "a guitar melody | a guitar playing | someone plucks a guitar | guitar music | a plucked guitar | plucked strings",
    kind="music",
)
def _guitar(rng: Rng, n: int) -> Wave:
    from scipy import signal

    def note(frequency: float, length: int) -> Wave:
        """One note of some Hz and samples."""
        period = max(2, round(SAMPLE_RATE / frequency))
        burst = np.zeros(length, np.float32)
        burst[:period] = dsp.noise(rng, period + 8)[:period]
        feedback = np.zeros(period + 2)
        feedback[0], feedback[period], feedback[period + 1] = 1.0, -0.498, -0.498
        string = np.asarray(signal.lfilter([1.0], feedback, burst), np.float32)
        return string * np.minimum(1, 40 * dsp.time(length)[::-1])

    return _melody(rng, n, note, rng.uniform(100, 220))


@sound_class(
    "organ",
    "organ chords | an organ playing | someone plays the organ | organ music | chords on an organ",
    kind="music",
)
def _organ(rng: Rng, n: int) -> Wave:
    out, t = np.zeros(n, np.float32), dsp.time(n)
    base, length_s = rng.uniform(110, 220), rng.uniform(0.8, 1.6)
    for index in range(int(n / SAMPLE_RATE / length_s) + 1):
        m = int(length_s * SAMPLE_RATE)
        tt, chord = t[:m], np.zeros(min(m, n), np.float32)
        root = base * 2 ** (rng.choice([0, 5, 7, 9, -3]) / 12)
        for semitone in (0, 4, 7, 12):
            for k in (1, 2, 3, 4, 6):
                chord += np.sin(2 * np.pi * root * 2 ** (semitone / 12) * k * tt) / (k * 1.5)
        edge = np.minimum(1, 30 * np.minimum(tt, tt[::-1]))
        dsp.place(out, chord * edge, index * length_s)
    return out


@sound_class("clock_tick", CAPTIONS["clock_tick"])
def _clock_tick(rng: Rng, n: int) -> Wave:
    out, base = np.zeros(n, np.float32), rng.uniform(1500, 4500)
    length = int(0.05 * SAMPLE_RATE)
    ticks = [
        dsp.partials(rng, length, base * ratio, (1, 1.7, 2.3), 0.03)
        + 0.3 * dsp.noise(rng, length) * dsp.decay(length, 0.008)
        for ratio in (1, rng.uniform(0.7, 1))
    ]
    for index, time in enumerate(dsp.rhythm(rng, n, 0.25, 1.0, 0.004)):
        dsp.place(out, ticks[index % 2], time)
    return out + 0.003 * dsp.noise(rng, n, 1)


@sound_class("fire_crackling", CAPTIONS["fire_crackling"])
def _fire(rng: Rng, n: int) -> Wave:
    out = 0.25 * dsp.noise(rng, n, 1.8) * (0.5 + 0.5 * dsp.slow(rng, n, 3)) + 0.04 * dsp.noise(rng, n)
    for _ in range(int(rng.uniform(8, 40) * n / SAMPLE_RATE)):
        length = int(rng.uniform(0.003, 0.03) * SAMPLE_RATE)
        low = rng.uniform(500, 3000)
        crack = dsp.band(dsp.noise(rng, length), low, min(low * 4, 11500)) * dsp.decay(
            length, rng.uniform(0.005, 0.03), 0.0003
        )
        dsp.place(out, crack, rng.uniform(0, n / SAMPLE_RATE), rng.exponential(1.5))
    return out


@sound_class("helicopter", CAPTIONS["helicopter"])
def _helicopter(rng: Rng, n: int) -> Wave:
    t, rate = dsp.time(n), rng.uniform(9, 18)
    chop = (0.5 + 0.5 * np.cos(2 * np.pi * rate * t)) ** rng.uniform(2, 6)
    rumble = dsp.band(dsp.noise(rng, n, 1), 40, rng.uniform(400, 1200))
    whine = np.sin(2 * np.pi * rng.uniform(500, 1100) * t) * 0.1
    return (rumble * (0.25 + chop) + whine + 0.2 * dsp.band(dsp.noise(rng, n, 0.6), 800, 5000) * chop).astype(
        np.float32
    )


@sound_class(
    "bird_chirp",
    "birds chirping | a bird chirps | birds singing | a singing bird | the chirp of a bird | birdsong",
)
def _birds(rng: Rng, n: int) -> Wave:
    out = 0.004 * dsp.noise(rng, n, 1)
    low, span = rng.uniform(2000, 4500), rng.uniform(500, 2500)
    for time in dsp.rhythm(rng, n, 0.25, 0.9, 0.3):
        for call in range(int(rng.integers(1, 6))):
            length = int(rng.uniform(0.04, 0.14) * SAMPLE_RATE)
            t = np.linspace(0, 1, length, dtype=np.float32)
            contour = low + span * (t if rng.random() < 0.5 else 1 - t) + 200 * np.sin(40 * t)
            chirp = np.sin(dsp.phase(contour)) * np.maximum(np.sin(np.pi * t), 0) ** 0.7
            dsp.place(out, chirp, time + call * length / SAMPLE_RATE * 1.2, rng.uniform(0.5, 1))
    return out


@sound_class("water_drops", "water dripping | drops of water | dripping water | a dripping tap | water drops falling")
def _water_drops(rng: Rng, n: int) -> Wave:
    out = 0.002 * dsp.noise(rng, n, 1)
    for time in dsp.rhythm(rng, n, 0.25, 1.1, 0.15):
        length = int(0.09 * SAMPLE_RATE)
        t = dsp.time(length)
        start = rng.uniform(500, 1400)
        dsp.place(
            out,
            np.sin(dsp.phase(start + start * 8 * t)) * dsp.decay(length, rng.uniform(0.05, 0.09)),
            time,
            rng.uniform(0.5, 1),
        )
    return out


@sound_class("thunder", "thunder | rolling thunder | a clap of thunder | thunder rumbles | a thunderstorm")
def _thunder(rng: Rng, n: int) -> Wave:
    out = 0.02 * dsp.noise(rng, n, 1.5)
    start = rng.uniform(0.05, 0.5)
    length = n - int(start * SAMPLE_RATE)
    roll = (
        dsp.band(dsp.noise(rng, length, 1.6), 25, 500)
        * dsp.decay(length, rng.uniform(3, 7), 0.05)
        * (0.3 + dsp.slow(rng, length, 5))
    )
    crack = dsp.band(dsp.noise(rng, length, 0.5), 200, 6000) * dsp.decay(length, rng.uniform(0.3, 1))
    dsp.place(out, roll + rng.uniform(0.1, 0.5) * crack, start)
    return out


@sound_class(
    "telephone",
    "a telephone ringing | a phone rings | the ringing of a telephone | a ringing phone | an old telephone rings",
)
def _phone(rng: Rng, n: int) -> Wave:
    t, rate = dsp.time(n), rng.uniform(15, 25)
    low, high = rng.uniform(400, 900), rng.uniform(950, 1500)
    on = (np.mod(t, rng.uniform(1.2, 2.5)) < rng.uniform(0.5, 1.0)).astype(np.float32)
    ring = np.where(np.sin(2 * np.pi * rate * t) > 0, np.sin(2 * np.pi * low * t), np.sin(2 * np.pi * high * t))
    return (ring * on).astype(np.float32)


@sound_class(
    "door_knock",
    "knocking on a door | someone knocks on the door | a knock at the door | door knocks | a person knocking",
)
def _knock(rng: Rng, n: int) -> Wave:
    out = 0.001 * dsp.noise(rng, n, 1)
    base, time = rng.uniform(90, 260), rng.uniform(0.1, 0.4)
    while time < n / SAMPLE_RATE - 0.3:
        for _ in range(int(rng.integers(2, 5))):
            length = int(0.15 * SAMPLE_RATE)
            hit = dsp.partials(rng, length, base, (1, 1.6, 2.4, 3.7), 0.12) + 0.6 * dsp.band(
                dsp.noise(rng, length), 100, 2500
            ) * dsp.decay(length, 0.03)
            dsp.place(out, hit, time, rng.uniform(0.7, 1))
            time += rng.uniform(0.16, 0.26)
        time += rng.uniform(0.5, 1.2)
    return out


@sound_class("car_horn", "a car horn | a car honking | someone honks a horn | the horn of a car | a honking car")
def _car_horn(rng: Rng, n: int) -> Wave:
    from scipy import signal

    out, low = np.zeros(n, np.float32), rng.uniform(320, 460)
    for time in dsp.rhythm(rng, n, 0.5, 1.6, 0.2):
        length = int(rng.uniform(0.2, 0.9) * SAMPLE_RATE)
        t = dsp.time(length)
        horn = np.tanh(2 * signal.sawtooth(2 * np.pi * low * t)) + np.tanh(
            2 * signal.sawtooth(2 * np.pi * low * 1.26 * t)
        )
        dsp.place(out, dsp.band(horn.astype(np.float32), 250, 5000) * np.minimum(1, 60 * np.minimum(t, t[::-1])), time)
    return out
