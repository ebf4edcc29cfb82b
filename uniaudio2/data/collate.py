"""Sequences to one padded batch, with what the auxiliary losses need to know about them.

Shapes: B batch, S positions, K codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uniaudio2.sequence import SequenceBuilder, TokenSequence
from uniaudio2.tasks import Audio, Form, Source, Text

_Stretch = tuple[int, int, int, int, int]
"""First and end of a predicted stretch, first and end of what it should attend, number of the guided head."""


@dataclass(frozen=True)
class LMBatch:
    """A batch of the language model. Positions of ``heard``, ``aligned`` and ``attended`` are rows of ``tokens``."""

    tokens: Tensor  # (B, S, K+1) int64, text last
    mask: Tensor  # (B, S, K+1) bool: columns in use
    loss_mask: Tensor  # (B, S, K+1) bool: entries that are predicted
    heard: (
        Tensor  # (n, 3) int64: row, first, one behind the last position; frames of the first stream with known phones
    )
    heard_phones: Tensor  # the phones of all of them one after the other, int64, from 1 on
    heard_lengths: Tensor  # (n,) phones of each
    aligned: Tensor  # (m, 6) int64: row, first and end of the predicted stretch, first and end of what it should attend
    # with the guided head whose number comes last
    attended: Tensor  # (k, 6) int64: the same, where any place will do (sounds and their caption)
    entries: tuple[str, ...]  # name of the first form of every row, for logs

    @property
    def num_positions(self) -> int:
        """Positions that are not padding."""
        return int(self.mask.any(dim=-1).sum())


@dataclass(frozen=True)
class Segment:
    """One built example with the phones that can be heard in it."""

    sequence: TokenSequence
    form: Form
    heard: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # value -> phones said in it, where known


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
    streams = [stream.name for stream in builder.audio.streams]
    heard: list[tuple[int, int, int]] = []
    spoken: list[tuple[int, ...]] = []
    aligned: list[tuple[int, int, int, int, int, int]] = []
    attended: list[tuple[int, int, int, int, int, int]] = []
    for number, row in enumerate(rows):
        start = 0
        for segment in row:
            for span in segment.sequence.spans:
                if span.kind == streams[0] and segment.heard.get(span.value):
                    heard.append((number, start + span.codes.start, start + span.codes.stop))
                    spoken.append(segment.heard[span.value])
            said, described = _attention(segment, streams, align_listening)
            for places, found in ((aligned, said), (attended, described)):
                places += [(number, start + a, start + b, start + c, start + d, head) for a, b, c, d, head in found]
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
        entries=tuple(row[0].form.name for row in rows),
    )


def _attention(
    segment: Segment, streams: Sequence[str], align_listening: bool
) -> tuple[list[_Stretch], list[_Stretch]]:
    """Where predicted parts should attend: along a text or audio that they follow, and anywhere in other texts."""
    sources, coarse, fine = segment.form.sources, streams[0], streams[-1]
    tags = {part.value: part.tag for part in (*segment.form.inputs, *segment.form.task.outputs)}
    spans = segment.sequence.spans
    audio = [s for s in spans if s.kind in streams and isinstance(sources[s.value], Audio)]
    said: list[_Stretch] = []
    described: list[_Stretch] = []
    for text in (s for s in spans if s.kind == "text"):
        source, edge = sources[text.value], 1 + bool(tags[text.value])  # begin and end of text, and the tags
        if not isinstance(source, Text) or text.stop - text.start <= 2 * edge:
            continue
        inside = (text.start + edge, text.stop - edge)
        saying = [s for s in audio if _says(sources[s.value], source)]
        if text.target and align_listening:
            # One head listens to the sounds, one to the meaning.
            for head, kind in enumerate(dict.fromkeys((fine, coarse))):
                said += [(*inside, s.codes.start, s.codes.stop, head) for s in saying if s.kind == kind]
        elif not text.target:
            for span in (s for s in audio if s.target):
                places = said if span in saying else described
                places.append((span.codes.start, span.codes.stop, *inside, 0))
    for span in (s for s in audio if s.target and s.kind == fine != coarse):
        # Sound follows the meaning that was written before it, frame by frame.
        meaning = [s.codes for s in audio if s.kind == coarse and s.value == span.value]
        said += [(span.codes.start, span.codes.stop, codes.start, codes.stop, 1) for codes in meaning]
    return said, described


def _says(audio: Source, text: Text) -> bool:
    return isinstance(audio, Audio) and audio.says == text.name
