"""Waveforms and plain arithmetic on them: resample, level, limit, divide at pauses.

Shapes: ``N`` samples. A waveform is a float32 tensor ``(1, N)``, mono, in [-1, 1], at 24 kHz unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import soxr
import torch
from torch import Tensor

from uniaudio2.checks import check_number
from uniaudio2.errors import UserError

SAMPLE_RATE = 24000
"""Sample rate of every waveform inside the package, Hz."""

LIMIT_THRESHOLD = 0.9
"""The limiter leaves samples up to this magnitude untouched."""

LIMIT_CEILING = 0.99
"""No limited sample is larger in magnitude than this."""

PAUSE_S = 0.2
"""Length of the stretch whose level tells a pause, seconds."""

_PAUSE_HOP_S = 0.01


class AudioError(UserError):
    """An audio file or waveform that cannot be used; the message names the file and the remedy."""


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate along the last axis (soxr, high quality).

    Args:
        audio: Waveform, (..., N).
        from_rate: Its rate, Hz.
        to_rate: Wanted rate, Hz.

    Returns:
        Waveform, (..., round(N * to_rate / from_rate)) up to one sample, float32, on the same device.
    """
    if from_rate == to_rate:
        return audio
    flat = audio.detach().to("cpu", torch.float32).reshape(-1, audio.shape[-1])
    out = soxr.resample(flat.numpy().T, from_rate, to_rate).T
    return torch.from_numpy(np.ascontiguousarray(out)).reshape(*audio.shape[:-1], -1).to(audio.device)


def rms_dbfs(audio: Tensor) -> float:
    """Root mean square level of a waveform of any shape, dB relative to full scale; -inf for silence."""
    power = float(audio.to(torch.float32).square().mean())
    return 10.0 * math.log10(power) if power > 0 else -math.inf


def limit(audio: Tensor) -> Tensor:
    """Bend samples beyond the threshold smoothly under the ceiling; leave all others as they are.

    Choice: a memoryless tanh knee, because decoded audio exceeds full scale only in short peaks (the published
    decoder's reach 1.4 on speech) and a knee needs no look-ahead, so it is the same for streams and for files.

    Args:
        audio: Waveform, any shape.

    Returns:
        Waveform of the same shape with magnitude <= 0.99.
    """
    room = LIMIT_CEILING - LIMIT_THRESHOLD
    magnitude = audio.abs()
    bent = LIMIT_THRESHOLD + room * torch.tanh((magnitude - LIMIT_THRESHOLD) / room)
    return torch.where(magnitude <= LIMIT_THRESHOLD, audio, torch.sign(audio) * bent)


def chunks_at_pauses(blocks: Iterable[Tensor], max_s: float) -> Iterator[tuple[int, Tensor]]:
    """Divide a waveform that comes block by block in chunks of at most ``max_s``; see `PauseCutter`.

    Args:
        blocks: Consecutive blocks (1, n) at 24 kHz.
        max_s: Longest chunk, seconds.

    Yields:
        First sample and waveform (1, n) of each chunk; they cover the waveform without gap or overlap.

    Raises:
        ValueError: If chunks cannot be so short: none would be cut off.
    """
    cutter = PauseCutter(max_s)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class PauseCutter:
    """Divides a waveform in chunks of at most ``max_s`` while it comes, in constant memory.

    Each chunk is cut at the quietest 0.2 s of its second half; where blocks begin does not matter.

    Args:
        max_s: Longest chunk, seconds.

    Raises:
        ValueError: If chunks cannot be so short: none would be cut off.
    """

    def __init__(self, max_s: float) -> None:
        check_number("max_s", max_s, PAUSE_S)
        self._longest = round(max_s * SAMPLE_RATE)
        self._seen = self._longest + round(PAUSE_S * SAMPLE_RATE)  # what comes soon after helps to tell a pause
        self.start = 0  # sample with which the next chunk begins
        self.waiting = torch.zeros(1, 0, dtype=torch.float32, device="cpu")  # the waveform from there on

    def push(self, block: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Take the next samples (1, n); first sample and waveform of each chunk that they complete."""
        self.waiting = torch.cat([self.waiting, block], dim=1)
        while self.waiting.shape[1] > self._seen:
            yield self._cut(self._seen)

    def finish(self) -> Iterator[tuple[int, Tensor]]:
        """The last chunks."""
        while self.waiting.shape[1] > self._longest:
            yield self._cut(self.waiting.shape[1])
        if self.waiting.shape[1]:
            yield self.start, self.waiting

    def _cut(self, seen: int) -> tuple[int, Tensor]:
        at = _quietest(self.waiting[:, :seen], self._longest)
        chunk = self.start, self.waiting[:, :at]
        self.waiting, self.start = self.waiting[:, at:], self.start + at
        return chunk


def _quietest(audio: Tensor, longest: int) -> int:
    """Sample in the second half of the first ``longest`` samples of (1, N) around which 0.2 s are quietest."""
    hop = round(_PAUSE_HOP_S * SAMPLE_RATE)
    width = round(PAUSE_S / _PAUSE_HOP_S)
    power = audio[0, : audio.shape[1] // hop * hop].reshape(1, 1, -1, hop).square().mean(3)
    smooth = torch.nn.functional.avg_pool1d(power[0], width, 1, padding=width // 2, count_include_pad=False)[0]
    low, high = longest // 2 // hop, longest // hop
    return (low + int(smooth[low:high].argmin())) * hop
