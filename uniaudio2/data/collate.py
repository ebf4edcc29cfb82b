"""Sequences to one padded batch, with what the auxiliary losses need to know about them.

Shapes: B batch, S positions, K codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.sequence import SequenceBuilder, TokenSequence


@dataclass(frozen=True)
class LMBatch:
    """A batch of the language model. Positions of ``heard``, ``aligned`` and ``attended`` are rows of ``tokens``."""

    tokens: Tensor  # (B, S, K+1) int64, text last
    mask: Tensor  # (B, S, K+1) bool: columns in use
    loss_mask: Tensor  # (B, S, K+1) bool: entries that are predicted
    heard: Tensor  # (n, 3) int64: row, first, one behind the last position of reasoning frames with known phones
    heard_phones: Tensor  # the phones of all of them one after the other, int64, from 1 on
    heard_lengths: Tensor  # (n,) phones of each
    aligned: Tensor  # (m, 6) int64: row, first and end of the predicted stretch, first and end of what it should attend
    # with the guided head whose number comes last
    attended: Tensor  # (k, 6) int64: the same, where any place will do (sounds and their caption)
    entries: tuple[str, ...]  # first entry of every row, for logs

    @property
    def num_positions(self) -> int:
        """Positions that are not padding."""
        return int(self.mask.any(dim=-1).sum())


@dataclass(frozen=True)
class Segment:
    """One built example with the phones that can be heard in it."""

    sequence: TokenSequence
    entry: str
    heard: tuple[int, ...] = ()  # phones of the value "audio"; empty when there are none or they are unknown


def collate(builder: SequenceBuilder, rows: Sequence[Sequence[Segment]], *, align_listening: bool = True) -> LMBatch:
    """Pad rows of segments to one batch.

    Args:
        builder: Knows the padding.
        rows: Segments of every row, in order.
        align_listening: Note also where transcriptions should attend, not only where speech should.

    Returns:
        The batch.
    """
    sequences = [
        row[0].sequence if len(row) == 1 else builder.concatenate([segment.sequence for segment in row]) for row in rows
    ]
    padded = builder.collate(sequences)
    heard: list[tuple[int, int, int]] = []
    spoken: list[tuple[int, ...]] = []
    aligned: list[tuple[int, int, int, int, int, int]] = []
    attended: list[tuple[int, int, int, int, int, int]] = []
    for number, row in enumerate(rows):
        start = 0
        for segment in row:
            spans = segment.sequence.spans
            audio = [s for s in spans if s.value == "audio" and s.kind in ("reasoning", "reconstruction")]
            words = [s for s in spans if s.value == "transcription"]
            for span in audio:
                frames = span.codes
                if segment.heard and span.kind == "reasoning":
                    heard.append((number, start + frames.start, start + frames.stop))
                    spoken.append(segment.heard)
            for text in words:
                inside = (text.start + 2, text.stop - 2)  # without the tag and begin of text, end of text and tag
                if inside[1] <= inside[0]:
                    continue
                if text.target and align_listening:
                    # One head listens to the sounds, one to the meaning.
                    for head, kind in enumerate(("reconstruction", "reasoning")):
                        for place in (s.codes for s in audio if s.kind == kind):
                            stretch = _shift(start, place.start, place.stop)
                            aligned.append((number, *_shift(start, *inside), *stretch, head))
                elif not text.target:
                    for span in audio:
                        if span.target:
                            stretch = _shift(start, span.codes.start, span.codes.stop)
                            aligned.append((number, *stretch, *_shift(start, *inside), 0))
            for text in (s for s in spans if s.value == "caption" and not s.target):
                for span in (s for s in audio if s.target):
                    stretch = _shift(start, span.codes.start, span.codes.stop)
                    attended.append((number, *stretch, *_shift(start, text.start + 2, text.stop - 2), 0))
            # Sound follows the meaning that was written before it, frame by frame.
            reasoning = [s.codes for s in audio if s.kind == "reasoning"]
            for place in (s.codes for s in audio if s.kind == "reconstruction" and s.target):
                for source in reasoning:
                    stretch = _shift(start, place.start, place.stop)
                    aligned.append((number, *stretch, *_shift(start, source.start, source.stop), 1))
            start += len(segment.sequence)
    return LMBatch(
        tokens=padded.tokens,
        mask=padded.mask,
        loss_mask=padded.loss_mask,
        heard=torch.tensor(heard, dtype=torch.int64).reshape(-1, 3),
        heard_phones=torch.tensor([phone for phones in spoken for phone in phones], dtype=torch.int64),
        heard_lengths=torch.tensor([len(phones) for phones in spoken], dtype=torch.int64),
        aligned=torch.tensor(aligned, dtype=torch.int64).reshape(-1, 6),
        attended=torch.tensor(attended, dtype=torch.int64).reshape(-1, 6),
        entries=tuple(row[0].entry for row in rows),
    )


def _shift(start: int, first: int, last: int) -> tuple[int, int]:
    return start + first, start + last
