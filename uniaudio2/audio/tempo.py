"""Faster or slower speech at its own pitch.

Source: waveform similarity overlap-add, WSOLA (Verhelst and Roelands, ICASSP 1993). Choice: a phase vocoder blurs the
beginnings of consonants and makes a single voice hollow, and the libraries for either are a binary more to install;
one speaker at a time is what this method is best at.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from uniaudio2.checks import check_number

SLOWEST, FASTEST = 0.25, 4.0
FRAME = 720  # samples of a stretch that is kept together: 30 ms, a few periods of a voice
SEARCH = 240  # samples that it may be moved either way to fit the one before: a period of the lowest voices
HOP = FRAME // 2


def change_speed(audio: Tensor, speed: float) -> Tensor:
    """Play a waveform faster or slower without changing its pitch.

    Args:
        audio: (1, N).
        speed: 0.25 is a quarter as fast, 4 four times; 1 gives the same tensor back.

    Returns:
        (1, round(N / speed)).

    Raises:
        ValueError: If the speed is out of range.
    """
    check_number("speed", speed, SLOWEST, FASTEST)
    if speed == 1 or not audio.shape[1]:
        return audio
    wanted = round(audio.shape[1] / speed)
    made = torch.cat(list(stretched([audio], speed)), dim=1)[:, :wanted]
    return torch.nn.functional.pad(made, (0, wanted - made.shape[1]))


def stretched(pieces: Iterable[Tensor], speed: float) -> Iterator[Tensor]:
    """Consecutive waveforms (1, n), ``speed`` times as fast; joined they are ``1/speed`` times as long, about.

    Stretches of the input, half overlapping in the output, are each taken from where they continue the one before
    best. A piece is worked on as soon as it is there.
    """
    window = torch.hann_window(FRAME, periodic=True, dtype=torch.float32, device="cpu")
    held = torch.zeros(SEARCH, dtype=torch.float32, device="cpu")  # input from ``start`` on
    start, number, received = -SEARCH, 0, 0
    tail = torch.zeros(HOP, dtype=torch.float32, device="cpu")  # second half of the last stretch
    follows: int | None = None  # where the input goes on from the last stretch

    def advance(*, last: bool) -> Tensor:
        """All output that the input at hand allows."""
        nonlocal held, start, number, tail, follows
        made = []
        while True:
            at = round(number * HOP * speed)
            if at >= received if last else at + FRAME + HOP + SEARCH > start + len(held):
                break
            if last and (missing := at + FRAME + HOP + SEARCH - start - len(held)) > 0:
                held = torch.nn.functional.pad(held, (0, missing))
            if follows is not None:
                at += _best_shift(held[at - SEARCH - start :], held[follows - start :])
            frame = held[at - start : at - start + FRAME] * window
            if number:
                made.append(tail + frame[:HOP])
            else:
                made.append(held[at - start : at - start + HOP])  # the beginning is not faded in
            tail, follows = frame[HOP:], at + HOP
            number += 1
            keep = min(follows, round(number * HOP * speed) - SEARCH) - start
            if keep > 0:
                held, start = held[keep:], start + keep
        return torch.cat(made) if made else torch.zeros(0, dtype=torch.float32, device="cpu")

    for piece in pieces:
        received += piece.shape[-1]
        held = torch.cat((held, piece[0].float()))
        if (audio := advance(last=False)).numel():
            yield audio[None]
    if received:
        yield torch.cat((advance(last=True), tail))[None]


def _best_shift(around: Tensor, wanted: Tensor) -> int:
    """By how many samples, within the search, ``around`` must be moved to look most like ``wanted``."""
    candidates = around[: 2 * SEARCH + HOP].unfold(0, HOP, 1)
    likeness = candidates @ wanted[:HOP] / (candidates.square().sum(1).sqrt() + 1e-6)
    return int(likeness.argmax()) - SEARCH
