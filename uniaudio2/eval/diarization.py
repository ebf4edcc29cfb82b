"""Who speaks when: turns as text, and the diarization error rate between two lists of turns."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from uniaudio2.data.example import Turn

STEP_S = 0.01
"""Times are compared on a grid of this many seconds."""

_TURN = re.compile(r"^\s*(\w+)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s*$")


def read_turns(text: str) -> list[Turn]:
    """Turns from text such as ``1 0.0 1.4; 2 1.6 3.0``; what is no turn is left out."""
    turns: list[Turn] = []
    for piece in text.split(";"):
        match = _TURN.match(piece)
        if match and float(match[2]) < float(match[3]):
            turns.append(Turn(float(match[2]), float(match[3]), speaker=match[1]))
    return turns


def diarization_error(reference: Sequence[Turn], found: Sequence[Turn]) -> tuple[float, float]:
    """Seconds in error, and seconds of speech in the reference; their ratio over clips is the diarization error rate.

    Missed speech, false alarms and confusions of speakers under the best assignment of one to the other, overlaps
    included, without a collar around boundaries. Source: NIST's definition (Rich Transcription 2006).
    """
    from scipy.optimize import linear_sum_assignment

    end = max((turn.end for turn in (*reference, *found)), default=0.0)
    a, b = (_activity(turns, end) for turns in (reference, found))
    speaking, heard = a.sum(0), b.sum(0)
    both = a @ b.T
    correct = both[linear_sum_assignment(both, maximize=True)].sum() if both.size else 0.0
    errors = np.maximum(speaking, heard).sum() - correct
    return float(errors * STEP_S), float(speaking.sum() * STEP_S)


def _activity(turns: Sequence[Turn], end: float) -> np.ndarray:
    """Who speaks in each step: (speakers, steps), 0 or 1."""
    names = list(dict.fromkeys(turn.speaker for turn in turns))
    active = np.zeros((len(names), round(end / STEP_S) + 1))
    for turn in turns:
        active[names.index(turn.speaker), round(turn.start / STEP_S) : round(turn.end / STEP_S)] = 1.0
    return active
