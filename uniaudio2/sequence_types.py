"""What sequences of tokens consist of: values that go in, rows with masks, spans, and what generation starts from.

Shapes: S rows, K codebooks, T codec frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from uniaudio2.codes import AudioCodes
from uniaudio2.errors import UserError

# A value of a sequence: text (or its ids, begin and end of text included), or audio as AudioCodes with B = 1, or as a
# tuple of the streams' codes (K, T) in order; a voice may be codes (K, T) of the last stream alone.
Value: TypeAlias = str | Sequence[int] | AudioCodes | tuple[Tensor, ...] | Tensor


class SequenceError(UserError):
    """Values that do not make the sequence of a task."""


@dataclass(frozen=True)
class Span:
    """Where a part lies in a sequence, its special rows included."""

    kind: str  # "prompt", "text", "voice", or the name of a stream
    value: str
    start: int  # first row
    stop: int  # one behind the last row
    target: bool  # pays loss

    @property
    def codes(self) -> slice:
        """Rows of the codes proper, without begin and end frame (audio parts)."""
        return slice(self.start + 1, self.stop - 1)


@dataclass(frozen=True)
class TokenSequence:
    """One training sequence."""

    tokens: Tensor  # (S, K+1) int64
    mask: Tensor  # (S, K+1) bool: columns in use
    loss_mask: Tensor  # (S, K+1) bool: entries that are predicted
    spans: tuple[Span, ...]

    def __len__(self) -> int:
        return self.tokens.shape[0]


@dataclass(frozen=True)
class TokenBatch:
    """Sequences padded to the longest."""

    tokens: Tensor  # (B, S, K+1) int64
    mask: Tensor  # (B, S, K+1) bool
    loss_mask: Tensor  # (B, S, K+1) bool
    lengths: Tensor  # (B,) int64
    spans: tuple[tuple[Span, ...], ...]

    def to(self, device: torch.device | str) -> TokenBatch:
        """The batch on another device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            mask=self.mask.to(device),
            loss_mask=self.loss_mask.to(device),
            lengths=self.lengths.to(device),
        )


@dataclass(frozen=True)
class Phase:
    """One part that is generated: which ids may be drawn, which ends it, and what is fed after its end."""

    kind: str  # "text", or the name of a stream
    value: str
    low: int  # first allowed id (tokens: offset applied)
    high: int  # one behind the last allowed id
    eos: int  # id that ends the part
    forbidden: tuple[int, ...]  # ids in [low, high) that may not be drawn (text)
    link_tokens: Tensor  # (n, K+1) rows fed after the end: the end row itself, then the next part's begin rows
    link_mask: Tensor  # (n, K+1) bool
    offset: int  # subtracted from ids to give codes
    hop_length: int = 0  # samples per frame; 0 for text
    published: bool = False  # the published loop: any id may come, all K ids must agree to end, first frame dropped

    @property
    def is_text(self) -> bool:
        """Whether text is generated."""
        return self.kind == "text"


@dataclass(frozen=True)
class Prompt:
    """What generation starts from."""

    task: str
    tokens: Tensor  # (L, K+1) int64
    mask: Tensor  # (L, K+1) bool
    guidance_tokens: Tensor | None  # (L, K+1): the same rows without the condition; None: the task has no such form
    phases: tuple[Phase, ...]

    def __len__(self) -> int:
        return self.tokens.shape[0]
