"""Faster or slower speech at the same pitch.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio.wave import SAMPLE_RATE
from uniaudio2.checks import check_number

SLOWEST, FASTEST = 0.5, 2.0
_HOP = round(0.016 * SAMPLE_RATE)  # of the output; frames are two of them long
_REACH = round(0.012 * SAMPLE_RATE)  # how far a frame may be moved: more than half a period of the deepest voice


def change_speed(audio: Tensor, speed: float) -> Tensor:
    """Play a waveform faster or slower without changing its pitch.

    Frames are taken from the input ``speed`` times as far apart as they are laid in the output; each is moved to where
    it goes on most like the one before, so that periods of the voice meet.

    Source: waveform similarity overlap-add, WSOLA (Verhelst and Roelands, ICASSP 1993). Choice: a phase vocoder blurs
    the beginnings of consonants and makes a single voice hollow, and the libraries for either are a binary more to
    install; one speaker at a time is what this method is best at.

    Args:
        audio: (1, N).
        speed: 0.5 is half as fast, 2 twice; 1 gives the same tensor back.

    Returns:
        (1, round(N / speed)).

    Raises:
        ValueError: If the speed is out of range.
    """
    check_number("speed", speed, SLOWEST, FASTEST)
    if speed == 1 or not audio.shape[1]:
        return audio
    wanted, length = round(audio.shape[1] / speed), 2 * _HOP
    count = -(-wanted // _HOP) + 1  # the first frame begins one hop before the output
    ahead = round(FASTEST * _HOP) + _REACH
    behind = int(count * _HOP * speed) + length + 2 * _REACH - audio.shape[1]
    source = np.pad(audio[0].numpy().astype(np.float64), (ahead, max(0, behind)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)  # two that overlap by half add up to 1
    made = np.zeros((count + 1) * _HOP)
    before = None  # where the frame before was taken from
    for index in range(count):
        start = round((index - 1) * _HOP * speed) + ahead  # as the output is laid; moved by up to _REACH to either side
        if before is not None:
            near = source[start - _REACH : start + _REACH + length]
            start += _likest(near, source[before + _HOP : before + _HOP + length]) - _REACH
        made[index * _HOP : index * _HOP + length] += window * source[start : start + length]
        before = start
    return torch.from_numpy(made[_HOP : _HOP + wanted].astype(np.float32))[None]


def _likest(near: np.ndarray, wanted: np.ndarray) -> int:
    """Where a stretch most like ``wanted`` begins in ``near``: the largest normalised correlation."""
    products = np.correlate(near, wanted)
    energy = np.concatenate([[0.0], np.cumsum(near**2)])
    return int(np.argmax(products / np.sqrt(energy[len(wanted) :] - energy[: -len(wanted)] + 1e-9)))
