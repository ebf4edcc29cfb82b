"""When somebody begins and stops to speak, in audio that comes in pieces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import soxr
import torch

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.voice_activity import CONTEXT, FRAME, RATE, load_detector

FRAME_MS = 1000 * FRAME // RATE


class Turn(NamedTuple):
    """Somebody has begun (or stopped) to speak."""

    started: bool
    at_ms: int  # since the first sample


class TurnDetector:
    """Finds turns by silero-vad, as OpenAI's ``server_vad`` does.

    Args:
        threshold: Least probability of speech of a frame that counts as speech.
        prefix_ms: How much before the first frame of speech a turn begins.
        silence_ms: How long it must be quiet for a turn to end.
    """

    def __init__(self, threshold: float = 0.5, prefix_ms: int = 300, silence_ms: int = 500) -> None:
        self.threshold, self.prefix_ms, self.silence_ms = threshold, prefix_ms, silence_ms
        self._detector, self._state = load_detector(), None
        self._resampler = soxr.ResampleStream(SAMPLE_RATE, RATE, 1, dtype="float32")
        self._waiting = np.zeros(CONTEXT, np.float32)
        self._now_ms, self._quiet_ms, self._least_ms = 0, 0, 0
        self.speaking = False

    def push(self, samples: np.ndarray) -> list[Turn]:
        """What more audio, (n,) float32 at 24 kHz, tells."""
        self._waiting = np.concatenate([self._waiting, self._resampler.resample_chunk(samples)])
        count = (len(self._waiting) - CONTEXT) // FRAME
        if not count:
            return []
        audio = torch.from_numpy(self._waiting[: CONTEXT + count * FRAME])[None]
        probabilities, self._state = self._detector(audio, self._state)
        self._waiting = self._waiting[count * FRAME :]
        return [turn for each in probabilities[0].tolist() for turn in self._frame(each >= self.threshold)]

    def _frame(self, speech: bool) -> list[Turn]:
        """One more frame."""
        start, self._now_ms = self._now_ms, self._now_ms + FRAME_MS
        if speech:
            self._quiet_ms = 0
            if not self.speaking:
                self.speaking = True
                return [Turn(True, max(self._least_ms, start - self.prefix_ms))]
        elif self.speaking:
            self._quiet_ms += FRAME_MS
            if self._quiet_ms >= self.silence_ms:
                self.speaking, self._quiet_ms, self._least_ms = False, 0, self._now_ms
                return [Turn(False, self._now_ms)]
        return []
