"""How somebody speaks, measured: pitch, its liveliness, tempo, loudness, voicing; and whether a style was followed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from uniaudio2.eval.speech_analysis import ACTIVE_RANGE_DB, SPEECH_RATE, as_wave, pitch, to_speech_rate

JUDGE = "pitch by McLeod's method, letters a second, level, share of voiced frames"


SILENCE_DB = -60.0
"""What is softer says nothing."""


@dataclass(frozen=True)
class Manner:
    """A way of speaking.

    Attributes:
        pitch_hz: Median pitch; NaN where nothing is voiced.
        spread: Spread of the pitch, semitones (half of what lies between the 10th and the 90th percentile).
        rate: Letters or characters a second, from the first to the last sound.
        level_db: RMS of the active frames, dB relative to full scale.
        voiced: Share of the active frames that have a pitch.
    """

    pitch_hz: float
    spread: float
    rate: float
    level_db: float
    voiced: float

    def rounded(self) -> dict[str, float]:
        """The values for a list of items."""
        return {name: round(float(value), 3) for name, value in vars(self).items()}


def manner(audio: Tensor, text: str) -> Manner:
    """Measure speech (1, N) at 24 kHz that says ``text``."""
    wave = to_speech_rate(as_wave(audio))
    track = pitch(wave)
    shift = round(0.005 * SPEECH_RATE)
    squares = np.square(np.pad(wave, (0, shift)))[: len(track) * shift]
    power = np.pad(squares, (0, len(track) * shift - squares.size)).reshape(-1, shift).mean(axis=1)
    power = np.convolve(power, np.full(5, 0.2), mode="same")
    level = 10 * np.log10(power + 1e-12)
    active = level > level.max() - 0.75 * ACTIVE_RANGE_DB
    voiced = track[(track > 0) & active]
    first, last = np.flatnonzero(active)[[0, -1]]
    seconds = max((last - first + 1) * shift / SPEECH_RATE, 0.05)
    low, high = np.percentile(12 * np.log2(voiced), [10, 90]) if voiced.size > 5 else (math.nan, math.nan)
    return Manner(
        pitch_hz=float(np.median(voiced)) if voiced.size > 5 else math.nan,
        spread=float(high - low) / 2,
        rate=sum(char.isalnum() for char in text) / seconds,
        level_db=float(10 * np.log10(power[active].mean() + 1e-12)),
        voiced=voiced.size / active.sum(),
    )


def follows(style: str, found: Manner, usual: Manner) -> bool:
    """Whether speech is in a style (see `uniaudio2.data.synth.style_words`), beside the usual way of saying it.

    Choice: the bounds lie about half way between the usual way and what the training data do. Silence follows nothing.
    """
    if found.level_db < SILENCE_DB:
        return False
    higher, livelier = found.pitch_hz / usual.pitch_hz, found.spread / max(usual.spread, 0.1)
    faster, louder = found.rate / usual.rate, found.level_db - usual.level_db
    return {
        "high": higher > 1.15,
        "low": higher < 0.87,
        "fast": faster > 1.2,
        "slow": faster < 0.83,
        "loud": louder > 3,
        "quiet": louder < -3,
        "whisper": found.voiced < 0.5 * usual.voiced,
        "shout": louder > 4 and higher > 1.1,
        "excited": higher > 1.08 and livelier > 1.1,
        "sad": higher < 0.97 and faster < 0.95 and louder < 0,
        "angry": louder > 2.5,
        "bored": livelier < 0.6,
        "calm": faster < 0.95 and livelier < 1.05,
    }[style]


def whose(found: Manner) -> str:
    """A woman's, a man's or a child's voice, by its median pitch alone."""
    if not math.isfinite(found.pitch_hz):
        return ""
    return "male" if found.pitch_hz < 155 else "child" if found.pitch_hz > 248 else "female"
