"""What is asked of the engine and what it answers: requests, finished parts, results, events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from torch import Tensor

from uniaudio2.codes import SAMPLE_RATE, AudioCodes
from uniaudio2.engine.guards import without_repeats
from uniaudio2.engine.sampling import GenerationError, SamplingConfig
from uniaudio2.sequence import Phase, Prompt, SequenceBuilder

MAX_PHASES = 8  # such as two recordings of four streams each
MAX_LINK = 4  # end of text, end tag, begin tag, begin of text
DEFAULT_TEXT = (0, 500)  # least and most ids
DEFAULT_AUDIO_S = 50.0  # most seconds

End = Literal["end", "length", "loop", "cancelled"]


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt and how to continue it."""

    prompt: Prompt
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    sampling_by_kind: Mapping[str, SamplingConfig] = field(default_factory=dict)  # "text", "reasoning", …: overrides
    guidance_scale: float = 1.0  # 1: off; logits become u + (c - u) * scale, u without the condition
    seed: int = 0
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # least and most ids or frames per kind
    match_lengths: bool = True  # a recording's further streams are as long as its first
    loop_guard: bool = True  # end a part that repeats itself

    def __post_init__(self) -> None:
        phases = self.prompt.phases
        if not 1.0 <= self.guidance_scale <= 100.0:
            raise GenerationError(f"guidance_scale must be in [1, 100], got {self.guidance_scale}; 1 switches it off")
        if self.guided and self.prompt.guidance_tokens is None:
            raise GenerationError(f"task '{self.prompt.task}' has no guidance form; leave guidance_scale at 1")
        known = dict.fromkeys(["text", "reasoning", "reconstruction", *(phase.kind for phase in phases)])
        for kind in (*self.limits, *self.sampling_by_kind):
            if kind not in known:
                raise GenerationError(f"unknown kind '{kind}'; use one of: {', '.join(known)}")
        for kind, (least, most) in self.limits.items():
            if not 0 <= least <= most:
                raise GenerationError(f"limits of {kind} must be 0 <= least <= most, got ({least}, {most})")
        if not 1 <= len(phases) <= MAX_PHASES:
            raise GenerationError(f"between 1 and {MAX_PHASES} parts can be generated, got {len(phases)}")
        if len({phase.is_text for phase in phases}) != 1:
            raise GenerationError("one request generates either text or audio")

    @property
    def guided(self) -> bool:
        """Whether guidance is on."""
        return self.guidance_scale != 1.0

    @property
    def is_text(self) -> bool:
        """Whether text is generated, not audio."""
        return self.prompt.phases[0].is_text

    @property
    def rows(self) -> int:
        """Cache rows that it takes."""
        return 1 + self.guided

    def limit(self, kind: str) -> tuple[int, int]:
        """Least and most ids or frames of a part."""
        if kind in self.limits:
            return self.limits[kind]
        hop = next((phase.hop_length for phase in self.prompt.phases if phase.kind == kind), 0)
        return (1, math.ceil(DEFAULT_AUDIO_S * SAMPLE_RATE / hop)) if hop else DEFAULT_TEXT

    def sampler(self, kind: str) -> SamplingConfig:
        """Sampling of a part."""
        return self.sampling_by_kind.get(kind, self.sampling)

    def frame_ratio(self, index: int) -> Fraction:
        """Frames of the part with this index for each frame of the part before it; 0: its length is its own."""
        if index == 0 or not self.match_lengths:
            return Fraction(0)
        before, phase = self.prompt.phases[index - 1 : index + 1]
        tied = before.value == phase.value and not phase.is_text and not phase.published
        return Fraction(before.hop_length, phase.hop_length) if tied else Fraction(0)

    @property
    def max_steps(self) -> int:
        """Most rows that may be fed after the prompt."""
        return sum(self.limit(phase.kind)[1] + phase.link_tokens.shape[0] for phase in self.prompt.phases)


@dataclass(frozen=True)
class GeneratedPart:
    """One finished part."""

    kind: str  # "text", or the name of a stream
    value: str
    ids: Tensor  # text: (n,) ids; audio: (n, K) ids, offsets applied
    codes: Tensor | None  # audio: (K, n) codes
    text: str | None  # text, when the builder has a tokenizer
    end: End  # why it ended
    hop_length: int = 0  # audio: samples of a frame
    log_probability: float | None = None  # text: mean per drawn id, the end included, nats; guided ones count so
    empty_probability: float | None = None  # text: of the end in the place of the first id


@dataclass(frozen=True)
class GenerationResult:
    """Everything one request made."""

    task: str
    parts: tuple[GeneratedPart, ...]

    @property
    def text(self) -> str:
        """All generated text, parts joined by line ends."""
        return "\n".join(part.text for part in self.parts if part.text is not None)

    @property
    def complete(self) -> bool:
        """Whether every part ended by itself or by its length limit."""
        return all(part.end != "cancelled" for part in self.parts)

    def codes(self, value: str | None = None) -> AudioCodes:
        """Generated codes of a value (the first audio value by default), batch of one.

        Raises:
            GenerationError: If there is no such audio.
        """
        value = value or next((part.value for part in self.parts if part.codes is not None), None)
        parts = [part for part in self.parts if part.value == value]
        streams = {part.kind: part.codes[None] for part in parts if part.codes is not None}
        if not streams:
            raise GenerationError(f"task '{self.task}' made no audio '{value}'")
        return AudioCodes.of(streams, {part.kind: part.hop_length for part in parts})


@dataclass(frozen=True)
class StreamEvent:
    """Something new of one request."""

    request: int  # number of the request
    kind: str
    value: str
    ids: Tensor  # new text ids (n,) or audio ids (n, K)
    codes: Tensor | None  # new codes (K, n)
    text: str | None  # the part's whole text so far
    result: GenerationResult | None = None  # set on the last event of the request


def finished_part(
    builder: SequenceBuilder, phase: Phase, ids: Tensor, end: End, **scores: float | None
) -> GeneratedPart:
    """A finished part from its ids: text (n,), audio (n, K); the scores are those of a text."""
    if not phase.is_text:
        codes = builder.ids_to_codes(phase, ids)
        return GeneratedPart(phase.kind, phase.value, ids, codes, None, end, phase.hop_length)
    if end == "loop":
        ids = ids[: len(without_repeats(ids.tolist()))]
    text = builder.ids_to_text(ids.tolist()) if builder.tokenizer is not None else None
    return GeneratedPart(phase.kind, phase.value, ids, None, text, end, 0, **scores)
