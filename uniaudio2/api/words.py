"""When each word of a transcript is said.

Shapes: ``N`` samples, ``F`` frames, ``W`` words. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from torch import Tensor

from uniaudio2.api.results import Word
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.speech_text import CHARACTERS_PER_SECOND, is_han

FRAME_S = 0.02
MOST_FRAMES = 500  # of a longer stretch each frame is longer
LOUD_DB, QUIET_DB = -26.0, -30.0  # below the loudest frame: from where on something is said; where nothing is
SPREAD = 0.5  # deviation of a word's length, as a factor of e to that power
PAUSE_WEIGHT = 3.0  # what a boundary in full silence is worth; one deviation in length costs 0.5


def time_words(audio: Tensor, text: str, start_s: float) -> tuple[Word, ...]:
    """The words of a text with the seconds in which they are said; a Chinese character is a word of its own.

    Of all ways to divide the stretch into W parts the likeliest: each word takes about its share of the time in which
    anything sounds, by its letters, and words end where it is quiet. Choice: recording and text alone say that, so it
    holds for every model; the attention of nano's heads that learned to go along the recording is off by twice as
    much, and other models have none that did.

    Args:
        audio: (1, N), from the first to the last word.
        text: Its transcript.
        start_s: Of the waveform in its recording.
    """
    words = split_words(text)
    if not words or not audio.shape[1]:
        return ()
    level, step_s = _levels(audio)
    if len(words) > len(level):  # more words than frames: each gets the same
        each = len(level) * step_s / len(words)
        return tuple(Word(start_s + k * each, start_s + (k + 1) * each, word) for k, word in enumerate(words))
    said = level > LOUD_DB
    timed = []
    for word, (first, last) in zip(words, pairwise(_divide(level, said, words)), strict=True):
        loud = np.flatnonzero(said[first:last])
        begin, end = (first + loud[0], first + loud[-1] + 1) if len(loud) else (first, last)
        timed.append(Word(start_s + float(begin) * step_s, start_s + float(end) * step_s, word))
    return tuple(timed)


def split_words(text: str) -> list[str]:
    """Words between spaces, and Chinese characters one by one."""
    han = "".join(sorted({character for character in text if is_han(character)}))
    return re.findall(rf"[{han}]|[^\s{han}]+" if han else r"\S+", text)


def _levels(audio: Tensor) -> tuple[np.ndarray, float]:
    """Level of every frame, (F,), dB below the loudest one, and the length of a frame in seconds."""
    size = max(round(FRAME_S * SAMPLE_RATE), -(-audio.shape[1] // MOST_FRAMES))
    samples = audio[0].cpu().numpy().astype(np.float64)
    power = np.pad(samples**2, (0, -len(samples) % size)).reshape(-1, size).mean(1)
    return 10 * np.log10(np.maximum(power, 1e-12) / max(power.max(), 1e-12)), size / SAMPLE_RATE


def _divide(level: np.ndarray, said: np.ndarray, words: list[str]) -> list[int]:
    """The frames at which words begin, and the end, W + 1 in all; dynamic programming over every boundary."""
    seconds = [
        sum(1 / CHARACTERS_PER_SECOND["zh" if is_han(letter) else "en"] for letter in word) + 1 / 15 for word in words
    ]
    sounding = np.concatenate([[0], np.cumsum(said)]).astype(float)
    expected = np.log(np.array(seconds) / sum(seconds) * max(sounding[-1], 1.0))
    taken = np.log(np.maximum(sounding[None] - sounding[:, None], 0.5))  # of a part from frame i up to frame j
    taken[np.tril_indices(len(taken))] = np.inf  # a part has one frame or more
    quiet = np.clip(np.convolve(np.pad(level, 1, "edge"), np.ones(3) / 3, "valid") / QUIET_DB, 0, 1)
    worth = PAUSE_WEIGHT * np.append(quiet, 1.0)
    best = np.full(len(taken), -np.inf)
    best[0] = 0.0
    sources = []
    for length in expected:
        scores = best[:, None] - 0.5 * ((taken - length) / SPREAD) ** 2
        sources.append(scores.argmax(0))
        best = scores.max(0) + worth
    cuts = [len(level)]
    for source in reversed(sources):
        cuts.append(int(source[cuts[-1]]))
    return cuts[::-1]
