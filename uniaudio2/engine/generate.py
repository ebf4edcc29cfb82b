"""The frame loop: prompts in, text and codes out, for every task and any number of prompts at once.

One batch may hold prompts of different lengths and tasks; sequences leave when they end and waiting ones take their
place. What may be drawn, when a part ends and what is fed next is kept in tensors beside the model, so a frame needs
no answer from the device. Knows tokens and phases; names of tasks and audio are other modules' business.

Shapes: L slots (one per running request), P rows of the caches (a guided request has two), K codebooks, V ids.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.lm.model import AudioLM, LMCache
from uniaudio2.lm.quantize import BLOCK_ROWS
from uniaudio2.lm.transformer import KVCache
from uniaudio2.sequence import Phase, Prompt, SequenceBuilder

if TYPE_CHECKING:
    from uniaudio2.codes import AudioCodes

MAX_PHASES = 4  # two recordings of two streams each
MAX_LINK = 4  # end of text, end tag, begin tag, begin of text
DEFAULT_LIMITS = {"text": (0, 500), "reasoning": (1, 250), "reconstruction": (1, 625)}  # 50 s of audio
RECONSTRUCTION_PER_REASONING = 2.5  # frames: 12.5 Hz over 5 Hz
LOOP_IDS = 48  # last ids or frames that the loop guard looks at: 4 periods of 12 ids, or 40 frames
ATTEMPT_SEEDS = 1_000_003  # distance of the seeds of several attempts at one piece
GRAPH_POSITIONS = 256  # a recorded CUDA graph attends to a multiple of so many positions
_ENDS = {1: "end", 2: "length"}

End = Literal["end", "length", "loop", "cancelled"]


class GenerationError(UserError):
    """A request that cannot be served."""


@dataclass(frozen=True)
class SamplingConfig:
    """How ids are drawn."""

    temperature: float = 1.0  # 0: the likeliest id
    top_k: int | None = None  # keep this many; ties with the last are kept; None: all
    top_p: float = 1.0  # keep the likeliest ids that hold this probability

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise GenerationError(f"temperature must be in [0, 100], got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k must be at least 1, got {self.top_k}; leave it out to keep all ids")
        if not 0.0 < self.top_p <= 1.0:
            raise GenerationError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest id is always taken."""
        return self.temperature == 0.0 or self.top_k == 1


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt and how to continue it."""

    prompt: Prompt
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    sampling_by_kind: Mapping[str, SamplingConfig] = field(default_factory=dict)  # "text", "reasoning", …: overrides
    guidance_scale: float = 1.0  # 1: off; logits become u + (c - u) * scale, u without the condition
    seed: int = 0
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # least and most ids or frames per kind
    match_lengths: bool = True  # reconstruction codes as long as the reasoning codes before them say
    loop_guard: bool = True  # end a part that repeats itself

    def __post_init__(self) -> None:
        if not 1.0 <= self.guidance_scale <= 100.0:
            raise GenerationError(f"guidance_scale must be in [1, 100], got {self.guidance_scale}; 1 switches it off")
        if self.guided and self.prompt.guidance_tokens is None:
            raise GenerationError(f"task '{self.prompt.task}' has no guidance form; leave guidance_scale at 1")
        for kind in (*self.limits, *self.sampling_by_kind):
            if kind not in DEFAULT_LIMITS:
                raise GenerationError(f"unknown kind '{kind}'; use one of: {', '.join(DEFAULT_LIMITS)}")
        for kind, (least, most) in self.limits.items():
            if not 0 <= least <= most:
                raise GenerationError(f"limits of {kind} must be 0 <= least <= most, got ({least}, {most})")
        if not 1 <= len(self.prompt.phases) <= MAX_PHASES:
            raise GenerationError(f"between 1 and {MAX_PHASES} parts can be generated, got {len(self.prompt.phases)}")
        if len({phase.is_text for phase in self.prompt.phases}) != 1:
            raise GenerationError("one request generates either text or audio")

    @property
    def guided(self) -> bool:
        """Whether guidance is on."""
        return self.guidance_scale != 1.0

    def limit(self, kind: str) -> tuple[int, int]:
        """Least and most ids or frames of a part."""
        return self.limits.get(kind, DEFAULT_LIMITS[kind])

    def sampler(self, kind: str) -> SamplingConfig:
        """Sampling of a part."""
        return self.sampling_by_kind.get(kind, self.sampling)

    def phase_sampler(self, index: int) -> SamplingConfig:
        """Sampling of the part with this index; of the last part beyond it."""
        return self.sampler(self.prompt.phases[min(index, len(self.prompt.phases) - 1)].kind)

    @property
    def max_steps(self) -> int:
        """Most rows that may be fed after the prompt."""
        return sum(self.limit(phase.kind)[1] + phase.link_tokens.shape[0] for phase in self.prompt.phases)


@dataclass(frozen=True)
class GeneratedPart:
    """One finished part."""

    kind: str  # "text", "reasoning" or "reconstruction"
    value: str
    ids: Tensor  # text: (n,) ids; audio: (n, K) ids, offsets applied
    codes: Tensor | None  # audio: (K, n) codes
    text: str | None  # text, when the builder has a tokenizer
    end: End  # why it ended


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
            GenerationError: If there is no such audio, or one of its two streams is missing.
        """
        from uniaudio2.codes import AudioCodes

        value = value or next((part.value for part in self.parts if part.codes is not None), None)
        streams = {part.kind: part.codes for part in self.parts if part.value == value and part.codes is not None}
        if set(streams) != {"reasoning", "reconstruction"}:
            raise GenerationError(f"task '{self.task}' made no complete audio '{value}', only {sorted(streams)}")
        return AudioCodes(streams["reasoning"][None], streams["reconstruction"][None], None)


@dataclass(frozen=True)
class StreamEvent:
    """Something new of one request."""

    request: int  # number of the request, from :meth:`Generation.add`
    kind: str
    value: str
    ids: Tensor  # new text ids (n,) or audio ids (n, K)
    codes: Tensor | None  # new codes (K, n)
    text: str | None  # the part's whole text so far
    result: GenerationResult | None = None  # set on the last event of the request


def derive_seed(seed: int, piece: int, attempt: int = 0) -> int:
    """Seed of one attempt at one piece of a longer request, such as a sentence of a text.

    The first piece has the request's own seed; the others' are hashed, so that no piece draws what a piece of another
    seed draws, as it would if the number of the piece were added. Attempts lie further apart than users' seeds.
    """
    if piece:
        seed = int.from_bytes(hashlib.sha256(f"{seed}/{piece}".encode()).digest()[:7], "big")
    return seed + attempt * ATTEMPT_SEEDS


# -- drawing ids ---------------------------------------------------------------------------------------------------


def filter_probabilities(
    logits: Tensor, temperature: Tensor, top_k: Tensor | None, top_p: Tensor | None, *, most: int | None = None
) -> Tensor:
    """Probabilities after temperature, top-k and top-p.

    Entries below the k-th largest are removed, ties with it are kept. Source: ARCHITECTURE section 1.4.

    Args:
        logits: (n, V); forbidden ids are -inf.
        temperature: (n,), above 0.
        top_k: (n,), at least 1; None: all.
        top_p: (n,) in (0, 1]; None: all.
        most: Largest entry of ``top_k``; None: it is read from there, which waits for the device.

    Returns:
        (n, V), rows sum to one.
    """
    logits = logits.float() / temperature[:, None]
    if top_k is not None:
        most = min(int(top_k.max()) if most is None else most, logits.shape[-1])
        best = logits.topk(most, dim=-1).values
        logits = logits.masked_fill(logits < best.gather(1, (top_k - 1).clamp(max=most - 1)[:, None]), -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if top_p is not None:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        dropped = ordered.cumsum(dim=-1) - ordered >= top_p[:, None]
        probabilities = probabilities.masked_fill(dropped.gather(1, order.argsort(dim=-1)), 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


@dataclass(frozen=True)
class Sampler:
    """Sampling settings of a group of rows, (n,) each; None where no row uses the filter."""

    greedy: Tensor | None  # bool; None: all rows are greedy
    temperature: Tensor
    top_k: Tensor | None
    top_p: Tensor | None
    most: int | None = None  # largest top_k

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig], vocab_size: int, device: torch.device) -> Sampler:
        """Settings of rows that draw from ``vocab_size`` ids."""
        if all(config.greedy for config in configs):
            return cls(None, torch.ones(len(configs), device=device), None, None)
        top_k = [min(config.top_k or vocab_size, vocab_size) for config in configs]
        top_p = [config.top_p for config in configs]
        return cls(
            greedy=torch.tensor([config.greedy for config in configs], device=device),
            temperature=torch.tensor([config.temperature or 1.0 for config in configs], device=device),
            top_k=torch.tensor(top_k, device=device) if min(top_k) < vocab_size else None,
            top_p=torch.tensor(top_p, device=device) if min(top_p) < 1.0 else None,
            most=max(top_k),
        )

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Draw one id per row by inverting the cumulative distribution.

        Choice: one uniform number per drawn id, made in advance from the request's seed, so that a draw depends
        neither on the batch around it nor on the device.

        Args:
            logits: (n, V), forbidden ids -inf.
            uniform: (n,) in [0, 1).

        Returns:
            (n,) int64.
        """
        likeliest = logits.argmax(dim=-1)
        if self.greedy is None:
            return likeliest
        probabilities = filter_probabilities(logits, self.temperature, self.top_k, self.top_p, most=self.most)
        cumulative = probabilities.double().cumsum(dim=-1)
        level = uniform.double()[:, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, level, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)
        return torch.where(self.greedy, likeliest, drawn)


def guide(logits: Tensor, pair: Tensor | None, scale: Tensor | None, count: int) -> Tensor:
    """Apply guidance: u + (c - u) * scale.

    Args:
        logits: (count + guided, V): conditional rows first, then the unconditional rows of the guided ones.
        pair: (count,) row of the unconditional partner (its own row when not guided); None: nothing is guided.
        scale: (count,).
        count: Conditional rows.

    Returns:
        (count, V).
    """
    if pair is None or scale is None:
        return logits[:count]
    without = logits[pair]
    return without + (logits[:count] - without) * scale[:, None]


# -- state of the running requests --------------------------------------------------------------------------------


class _Board:
    """Where every running request stands, as tensors with one entry per slot.

    A slot draws ids in its phase until the phase ends; then the rows that link to the next phase are fed one by one;
    after the last phase the slot is done.
    """

    def __init__(self, slots: int, capacity: int, num_codebooks: int, device: torch.device) -> None:
        def make(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            """Zeros for every slot."""
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        columns = num_codebooks + 1
        self.num_codebooks = num_codebooks
        self.device = device
        self.is_text = make(dtype=torch.bool)
        self.published = make(dtype=torch.bool)
        self.num_phases = make() + 1
        self.low, self.high, self.eos = make(MAX_PHASES), make(MAX_PHASES), make(MAX_PHASES)
        self.least, self.most = make(MAX_PHASES), make(MAX_PHASES)
        self.tied = make(MAX_PHASES, dtype=torch.bool)  # this phase's length follows from the phase before
        self.link_tokens = make(MAX_PHASES, MAX_LINK, columns)
        self.link_mask = make(MAX_PHASES, MAX_LINK, columns, dtype=torch.bool)
        self.link_length = make(MAX_PHASES) + 1
        self.phase, self.count, self.step = make(), make(), make()
        self.link = make() - 1  # next link row to feed; -1: drawing
        self.position = make()  # of the row that is fed next
        self.done = ~make(dtype=torch.bool)
        self.ended_by = make(MAX_PHASES)
        self.tokens, self.mask = make(columns), make(columns, dtype=torch.bool)  # row that is fed next
        self.history = make(capacity + 1, columns)  # drawn ids; the last entry takes what is not kept
        self.history_phase = make(capacity + 1)
        self.written = make()
        self.uniform = make(capacity + 1, columns, dtype=torch.float32)

    @property
    def slots(self) -> int:
        """Number of slots, L."""
        return self.phase.shape[0]

    @property
    def capacity(self) -> int:
        """Steps that fit."""
        return self.history.shape[1] - 1

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def select(self, slots: Tensor) -> None:
        """Keep these slots in this order; they may repeat."""
        for name, value in self._tensors().items():
            setattr(self, name, value[slots].clone())

    def grow(self, capacity: int) -> None:
        """Room for more steps."""
        for name in ("history", "history_phase", "uniform"):
            old = getattr(self, name)
            new = old.new_zeros(old.shape[0], capacity + 1, *old.shape[2:])
            new[:, : old.shape[1] - 1] = old[:, :-1]
            setattr(self, name, new)

    def place(self, slot: int, request: GenerationRequest) -> None:
        """Put a request into a slot; its prompt is expected to be prefilled but for the last row."""
        prompt, phases = request.prompt, request.prompt.phases
        count = len(phases)
        self.is_text[slot] = phases[0].is_text
        self.published[slot] = phases[0].published
        self.num_phases[slot] = count
        for name in ("low", "high", "eos"):
            getattr(self, name)[slot, :count] = torch.tensor([getattr(phase, name) for phase in phases])
        limits = [request.limit(phase.kind) for phase in phases]
        self.least[slot, :count] = torch.tensor([least for least, _ in limits])
        self.most[slot, :count] = torch.tensor([most for _, most in limits])
        self.tied[slot] = False
        for index, (before, phase) in enumerate(itertools.pairwise(phases), start=1):
            follows = (before.kind, phase.kind) == ("reasoning", "reconstruction") and before.value == phase.value
            self.tied[slot, index] = follows and request.match_lengths and not phase.published
        for index, phase in enumerate(phases):
            rows = phase.link_tokens.shape[0]
            self.link_tokens[slot, index, :rows] = phase.link_tokens.to(self.device)
            self.link_mask[slot, index, :rows] = phase.link_mask.to(self.device)
            self.link_length[slot, index] = rows
        for name, value in (("phase", 0), ("count", 0), ("step", 0), ("link", -1), ("written", 0), ("ended_by", 0)):
            getattr(self, name)[slot] = value
        self.position[slot] = len(prompt) - 1
        self.done[slot] = False
        self.tokens[slot] = prompt.tokens[-1].to(self.device)
        self.mask[slot] = prompt.mask[-1].to(self.device)
        # Numbers come in order of steps, so a request draws the same ones however large the board is.
        generator = torch.Generator().manual_seed(request.seed)
        steps = min(request.max_steps + 1, self.capacity)
        drawn = torch.rand(steps, self.num_codebooks + 1, generator=generator)
        self.uniform[slot, :steps] = drawn.to(self.device)

    def current(self, name: str, slots: Tensor) -> Tensor:
        """Entry of a per-phase table for the phase that each of ``slots`` is in."""
        return getattr(self, name)[slots, self.phase[slots]]

    def numbers(self, slots: Tensor) -> Tensor:
        """Uniform numbers of this step, (n, K+1)."""
        return self.uniform[slots, self.step[slots].clamp(max=self.capacity)]

    def advance(self, ids: Tensor) -> None:
        """Take one drawn row per slot, (L, K+1) with text last, and work out what is fed next.

        All is changed in place, so that a recorded CUDA graph finds it where it was.
        """
        slots = torch.arange(self.slots, device=self.device)
        phase, forced = self.phase, self.link >= 0
        eos = self.eos[slots, phase]
        single = torch.where(self.is_text, ids[:, -1], ids[:, 0]) == eos
        agreed = (ids[:, :-1] == eos[:, None]).all(dim=1)
        ended = torch.where(self.published & ~self.is_text, agreed, single) & ~forced & ~self.done
        kept = ~forced & ~ended & ~self.done
        index = torch.where(kept, self.written, self.capacity)
        self.history[slots, index] = ids
        self.history_phase[slots, index] = phase
        full = self.count >= self.most[slots, phase]
        self.ended_by[slots, phase] = torch.where(ended, 1 + full.long(), self.ended_by[slots, phase])
        self.written += kept
        self.count += kept

        self.done |= ended & (phase + 1 == self.num_phases)
        link = torch.where(ended, 0, self.link)
        linking = (link >= 0) & ~self.done
        row, used = slots, link.clamp(min=0)
        drawn = torch.where(self.is_text[:, None], 0, ids)
        drawn[:, -1] = torch.where(self.is_text, ids[:, -1], 0)
        drawn_mask = (~self.is_text)[:, None].expand_as(self.mask).clone()
        drawn_mask[:, -1] = self.is_text
        self.tokens.copy_(torch.where(linking[:, None], self.link_tokens[row, phase, used], drawn))
        self.mask.copy_(torch.where(linking[:, None], self.link_mask[row, phase, used], drawn_mask))
        link = torch.where(linking, link + 1, link)
        through = linking & (link >= self.link_length[slots, phase])
        self.link.copy_(torch.where(through | self.done, -1, link))
        self._enter(slots, phase + through, through)
        self.position += ~self.done
        self.step += 1

    def _enter(self, slots: Tensor, phase: Tensor, through: Tensor) -> None:
        """Start the next phase where the link is through; tied lengths follow from the phase before.

        n reasoning frames stand for (n-1)/5 s up to n/5 s of audio, hence for int(2.5 (n-1)) + 1 up to ceil(2.5 n)
        reconstruction frames.
        """
        tied = through & self.tied[slots, phase]
        frames = self.count.float() * RECONSTRUCTION_PER_REASONING
        most = torch.minimum(frames.ceil().long(), self.most[slots, phase])
        least = ((frames - RECONSTRUCTION_PER_REASONING).floor().long() + 1).clamp(min=1)
        self.most[slots, phase] = torch.where(tied, most, self.most[slots, phase])
        self.least[slots, phase] = torch.where(tied, torch.minimum(least, most), self.least[slots, phase])
        self.count.masked_fill_(through, 0)
        self.phase.copy_(phase)


@dataclass
class _Running:
    """Host side of a slot."""

    number: int
    request: GenerationRequest
    row: int  # cache row with the condition
    partner: int | None  # cache row without it, when guided
    position: int  # of the row that is fed next
    reported: int = 0  # history entries already streamed
    phase: int = 0  # part it was in when the device was last asked
    looped: set[int] = field(default_factory=set)  # phases ended by the loop guard


@dataclass(frozen=True)
class _Group:
    """Slots that make the same kind of output, with fixed indices between changes of the batch."""

    slots: Tensor  # (n,)
    rows: Tensor  # (n + guided,) cache rows, conditional ones first
    owner: Tensor  # (n + guided,) index into slots
    pair: Tensor | None  # (n,) see :func:`guide`
    scale: Tensor | None  # (n,)
    samplers: tuple[Sampler, ...]  # one per phase index
    blocked: Tensor | None  # (n, V) text ids that may not be drawn
    cache: KVCache | None  # local decoder's cache of audio slots


class Generation:
    """Running requests: add, step, cancel. :class:`Engine` makes and drives these.

    Args:
        engine: Model and settings.
        streaming: Report every new id, not only results.
    """

    def __init__(self, engine: Engine, *, streaming: bool = True) -> None:
        self._engine = engine
        self._streaming = streaming
        self._waiting: deque[tuple[int, GenerationRequest]] = deque()
        self._running: list[_Running | None] = []
        self._numbers = itertools.count()
        self._cache: LMCache | None = None
        self._board: _Board | None = None
        self._groups: tuple[_Group | None, _Group | None] = (None, None)  # audio, text
        self._owner = torch.zeros(0, dtype=torch.int64)  # (P,) slot of every cache row
        self._cancelled: set[int] = set()
        self._graphs: dict[int, torch.cuda.CUDAGraph | None] = {}  # by cache positions that are read
        self._since_sync = 0

    # -- outside ----------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything is running or waiting."""
        return bool(self._waiting) or any(slot is not None for slot in self._running)

    def add(self, request: GenerationRequest) -> int:
        """Queue a request and return its number.

        Raises:
            GenerationError: If prompt and limits together are longer than the model allows.
        """
        limit = self._engine.model.config.max_positions
        needed = len(request.prompt) + request.max_steps
        if needed > limit:
            raise GenerationError(
                f"the prompt has {len(request.prompt)} positions and up to {request.max_steps} may follow, but the "
                f"model is made for {limit}; shorten the input or lower the limits"
            )
        number = next(self._numbers)
        self._waiting.append((number, request))
        return number

    def cancel(self, number: int) -> None:
        """Stop a request; its place is free at the next step. Unknown or finished numbers are ignored."""
        self._cancelled.add(number)

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        """Run one frame of everything that runs; returns what became known."""
        events = self._stop_cancelled()
        self._admit()
        if not any(slot is not None for slot in self._running):
            return events
        self._frame()
        self._since_sync += 1
        if self._since_sync >= self._engine.sync_every:
            events += self._collect()
        return events

    # -- the batch --------------------------------------------------------------------------------------------------

    def _stop_cancelled(self) -> list[StreamEvent]:
        events = []
        waiting = [(number, request) for number, request in self._waiting if number in self._cancelled]
        for number, request in waiting:
            self._waiting.remove((number, request))
            result = GenerationResult(request.prompt.task, ())
            events.append(StreamEvent(number, "", "", torch.zeros(0), None, None, result))
        if self._cancelled and self._board is not None:
            for index, slot in enumerate(self._running):
                if slot is not None and slot.number in self._cancelled:
                    events.append(self._finish(index, cancelled=True))
        self._cancelled.clear()
        return events

    def _admit(self) -> None:
        """Give waiting requests free slots and rows, and prefill their prompts."""
        running = [slot for slot in self._running if slot is not None]
        used = sum(1 + slot.request.guided for slot in running)
        joining: list[tuple[int, GenerationRequest]] = []
        while self._waiting:
            rows = 1 + self._waiting[0][1].guided
            if used + rows > self._engine.max_batch and (used or joining):
                break
            used += rows
            joining.append(self._waiting.popleft())
        if not joining and not self._mostly_idle(len(running)):
            return
        self._make_room(joining)
        if joining:
            self._prefill(joining)
        self._regroup()

    def _mostly_idle(self, running: int) -> bool:
        return 0 < running <= len(self._running) * 3 // 4

    def _make_room(self, joining: list[tuple[int, GenerationRequest]]) -> None:
        """Drop idle slots and rows, then append room for the joining requests."""
        margin = self._engine.sync_every
        needed = max((len(request.prompt) + request.max_steps + margin for _, request in joining), default=0)
        steps = max((request.max_steps + margin for _, request in joining), default=0)
        rows = sum(1 + request.guided for _, request in joining)
        engine, kept = self._engine, [index for index, slot in enumerate(self._running) if slot is not None]
        if self._cache is None or self._board is None or not kept:
            positions = -(-needed // 64) * 64
            self._cache = engine.model.new_cache(rows, positions, dtype=engine.cache_dtype)
            self._board = _Board(len(joining), steps, engine.model.config.audio.num_codebooks, engine.model.device)
            self._running = []
            return
        old: list[int] = []
        slots = [self._running[index] for index in kept]
        for slot in slots:
            assert slot is not None
            old.append(slot.row)
            slot.row = len(old) - 1
            if slot.partner is not None:
                old.append(slot.partner)
                slot.partner = len(old) - 1
        positions = max(-(-needed // 64) * 64, self._cache.max_positions)
        device = engine.model.device
        self._cache.resize(torch.tensor(old + [0] * rows, device=device), positions)
        self._board.select(torch.tensor(kept + [0] * len(joining), device=device))
        self._board.done[len(kept) :] = True
        if steps > self._board.capacity:
            self._board.grow(steps)
        self._running = list(slots)

    def _prefill(self, joining: list[tuple[int, GenerationRequest]]) -> None:
        """Fill the caches with all rows of the new prompts but the last, in chunks; no head runs."""
        assert self._cache is not None and self._board is not None
        model, device = self._engine.model, self._engine.model.device
        row = sum(1 + slot.request.guided for slot in self._running if slot is not None)
        first = row
        tokens, masks = [], []
        for number, request in joining:
            prompt = request.prompt
            slot = _Running(number, request, row, row + 1 if request.guided else None, len(prompt) - 1)
            row += 1 + request.guided
            self._running.append(slot)
            self._board.place(len(self._running) - 1, request)
            tokens.append(prompt.tokens)
            masks.append(prompt.mask)
            if request.guided:
                assert prompt.guidance_tokens is not None
                tokens.append(prompt.guidance_tokens)
                masks.append(prompt.mask)
        rows = torch.arange(first, row, device=device)
        prefill(
            model,
            torch.nn.utils.rnn.pad_sequence([each[:-1] for each in tokens], batch_first=True).to(device),
            torch.nn.utils.rnn.pad_sequence([each[:-1] for each in masks], batch_first=True).to(device),
            self._cache,
            rows,
            chunk=self._engine.prefill_chunk,
        )

    def _regroup(self) -> None:
        """Index tensors of the batch as it is now."""
        owner: dict[int, int] = {}
        for index, slot in enumerate(self._running):
            if slot is not None:
                owner[slot.row] = index
                if slot.partner is not None:
                    owner[slot.partner] = index
        device = self._engine.model.device
        assert self._cache is not None
        self._owner = torch.tensor([owner.get(row, 0) for row in range(self._cache.batch_size)], device=device)
        self._groups = (self._group(text=False), self._group(text=True))
        self._graphs.clear()

    def _group(self, *, text: bool) -> _Group | None:
        chosen = [
            (index, slot)
            for index, slot in enumerate(self._running)
            if slot is not None and slot.request.prompt.phases[0].is_text == text
        ]
        if not chosen:
            return None
        model, device = self._engine.model, self._engine.model.device
        rows, owner, pair = [slot.row for _, slot in chosen], list(range(len(chosen))), list(range(len(chosen)))
        for index, (_, slot) in enumerate(chosen):
            if slot.partner is not None:
                pair[index] = len(rows)
                rows.append(slot.partner)
                owner.append(index)
        guided = len(rows) > len(chosen)
        size = model.config.text_vocab_size if text else model.config.audio.size
        samplers: dict[tuple[SamplingConfig, ...], Sampler] = {}
        by_phase = []
        for phase in range(MAX_PHASES):
            configs = tuple(slot.request.phase_sampler(phase) for _, slot in chosen)
            if configs not in samplers:
                samplers[configs] = Sampler.of(configs, size, device)
            by_phase.append(samplers[configs])
        blocked = None
        if text:
            blocked = torch.zeros(len(chosen), size, dtype=torch.bool, device=device)
            for index, (_, slot) in enumerate(chosen):
                forbidden = [token for token in slot.request.prompt.phases[0].forbidden if token < size]
                blocked[index, forbidden] = True
        scales = [slot.request.guidance_scale for _, slot in chosen]
        dtype = self._engine.cache_dtype or model.dtype
        return _Group(
            slots=torch.tensor([index for index, _ in chosen], device=device),
            rows=torch.tensor(rows, device=device),
            owner=torch.tensor(owner, device=device),
            pair=torch.tensor(pair, device=device) if guided else None,
            scale=torch.tensor(scales, device=device) if guided else None,
            samplers=tuple(by_phase),
            blocked=blocked,
            cache=None if text else model.depth.new_cache(len(rows), device=device, dtype=dtype),
        )

    # -- one frame --------------------------------------------------------------------------------------------------

    def _frame(self) -> None:
        """Feed one row per slot and draw the next one."""
        assert self._cache is not None
        positions = [slot.position for slot in self._running if slot is not None]
        longest = max(positions) + 1
        if not self._engine.cuda_graphs:
            self._run_frame(longest, exact=min(positions) + 1 == longest)
        else:
            self._replay_frame(min(-(-longest // GRAPH_POSITIONS) * GRAPH_POSITIONS, self._cache.max_positions))
        for slot in self._running:
            if slot is not None:
                slot.position += 1

    def _run_frame(self, length: int, *, exact: bool) -> None:
        """One frame as work for the device alone; ``length`` and ``exact`` as in :meth:`AudioLM.step`."""
        assert self._cache is not None and self._board is not None
        engine, board = self._engine, self._board
        audio, text = self._groups
        hidden = engine.model_step(
            board.tokens[self._owner][:, None],
            board.mask[self._owner][:, None],
            self._cache,
            board.position[self._owner][:, None],
            length=length,
            exact=exact,
            experts=audio is not None,
        )[:, 0]
        ids = torch.zeros_like(board.tokens)
        if audio is not None:
            ids[audio.slots, :-1] = decode_frame(engine, hidden[audio.rows], audio, board, self._window())
        if text is not None:
            ids[text.slots, -1] = decode_text(engine.model, hidden[text.rows], text, board)
        board.advance(ids)

    def _replay_frame(self, length: int) -> None:
        """One frame as a CUDA graph: run plainly at first, recorded the second time, replayed from then on.

        Nothing in a frame depends on the host but ``length``, so a graph serves until the batch changes or its
        positions are used up. Unproven: written without a GPU at hand.
        """
        if length not in self._graphs:
            self._graphs[length] = None
            self._run_frame(length, exact=False)
            return
        graph = self._graphs[length]
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._run_frame(length, exact=False)
            self._graphs[length] = graph
        graph.replay()

    def _window(self) -> tuple[int, int]:
        """Audio ids that any running request can draw now."""
        windows = [
            self._engine.window(slot.request.prompt.phases[min(slot.phase, len(slot.request.prompt.phases) - 1)])
            for slot in self._running
            if slot is not None and not slot.request.prompt.phases[0].is_text
        ]
        return min(start for start, _ in windows), max(stop for _, stop in windows)

    # -- results ----------------------------------------------------------------------------------------------------

    def _collect(self) -> list[StreamEvent]:
        """Read what the device knows: new ids, finished requests, loops."""
        assert self._board is not None
        self._since_sync = 0
        board, events = self._board, []
        done, written, phases, links = torch.stack((board.done.long(), board.written, board.phase, board.link)).tolist()
        for index, slot in enumerate(self._running):
            if slot is None:
                continue
            slot.phase = phases[index]
            if done[index]:
                events += self._news(index, slot, written[index])
                events.append(self._finish(index))
                continue
            if written[index] > slot.reported:
                events += self._news(index, slot, written[index])
                if slot.request.loop_guard and written[index] % 4 == 0 and links[index] < 0:
                    self._guard(index, slot, written[index])
        return events

    def _guard(self, index: int, slot: _Running, written: int) -> None:
        """End a part that repeats itself, by lowering its length limit to what it has."""
        assert self._board is not None
        board, phase = self._board, slot.phase
        if phase in slot.looped:
            return
        recent = slice(max(0, written - LOOP_IDS), written)
        ids = board.history[index, recent][board.history_phase[index, recent] == phase]
        text = slot.request.prompt.phases[0].is_text
        if repeats((ids[:, -1] if text else ids[:, :-1]).tolist(), text=text):
            slot.looped.add(phase)
            board.most[index, phase] = board.count[index]
            board.least[index, phase] = 0

    def _news(self, index: int, slot: _Running, written: int) -> list[StreamEvent]:
        """Events for history entries that were not reported yet."""
        if not self._streaming or written <= slot.reported:
            slot.reported = written
            return []
        assert self._board is not None
        ids = self._board.history[index, :written].cpu()
        phases = self._board.history_phase[index, :written].cpu()
        events = []
        for number, phase in enumerate(slot.request.prompt.phases):
            new = (phases == number) & (torch.arange(written) >= slot.reported)
            if not bool(new.any()):
                continue
            text, codes = None, None
            drawn = ids[new][:, -1] if phase.is_text else ids[new][:, :-1]
            if phase.is_text and self._engine.builder.tokenizer is not None:
                text = self._engine.builder.ids_to_text(ids[phases == number][:, -1].tolist())
            elif not phase.is_text and not phase.published:
                codes = self._engine.builder.ids_to_codes(phase, drawn)
            events.append(StreamEvent(slot.number, phase.kind, phase.value, drawn, codes, text))
        slot.reported = written
        return events

    def _finish(self, index: int, *, cancelled: bool = False) -> StreamEvent:
        """Take a slot's result and free it."""
        assert self._board is not None
        slot, board = self._running[index], self._board
        assert slot is not None
        written = int(board.written[index])
        ids, phases = board.history[index, :written].cpu(), board.history_phase[index, :written].cpu()
        ends, builder = board.ended_by[index].tolist(), self._engine.builder
        parts = []
        for number, phase in enumerate(slot.request.prompt.phases):
            drawn = ids[phases == number]
            end: End = "cancelled" if ends[number] == 0 else _ENDS[ends[number]]  # type: ignore[assignment]
            if cancelled and ends[number] == 0 and drawn.shape[0] == 0:
                continue
            end = "loop" if number in slot.looped else end
            parts.append(_part(builder, phase, drawn, end))
        board.done[index] = True
        self._running[index] = None
        result = GenerationResult(slot.request.prompt.task, tuple(parts))
        last = parts[-1] if parts else None
        return StreamEvent(
            slot.number,
            last.kind if last else "",
            last.value if last else "",
            torch.zeros(0, dtype=torch.int64),
            None,
            last.text if last else None,
            result,
        )


def _part(builder: SequenceBuilder, phase: Phase, drawn: Tensor, end: End) -> GeneratedPart:
    """A finished part from its drawn rows (n, K+1)."""
    if phase.is_text:
        ids = drawn[:, -1]
        if end == "loop":
            ids = ids[: len(without_repeats(ids.tolist()))]
        return text_part(builder, phase, ids, end)
    ids = drawn[:, :-1]
    return GeneratedPart(phase.kind, phase.value, ids, builder.ids_to_codes(phase, ids), None, end)


def text_part(builder: SequenceBuilder, phase: Phase, ids: Tensor, end: End) -> GeneratedPart:
    """A finished text from its ids (n,)."""
    text = builder.ids_to_text(ids.tolist()) if builder.tokenizer is not None else None
    return GeneratedPart(phase.kind, phase.value, ids, None, text, end)


def prefill(model: AudioLM, tokens: Tensor, mask: Tensor, cache: LMCache, rows: Tensor, *, chunk: int = 256) -> None:
    """Fill the caches with prompts, hidden states only.

    Prompts shorter than the longest are padded behind; what padding writes is overwritten before it is attended to.

    Args:
        model: The language model.
        tokens: (n, S, K+1).
        mask: Bool, (n, S, K+1).
        cache: Caches; positions 0..S-1 of ``rows`` are filled.
        rows: (n,) cache rows.
        chunk: Most positions per step.
    """
    length = tokens.shape[1]
    heard = False  # audio seen so far; before it the experts' entries are zero, see LMCache.forget_experts
    whole = rows.shape[0] == cache.batch_size
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        heard = heard or bool(mask[:, start:stop, 0].any())
        if not heard:
            cache.forget_experts(rows, start, stop)
        model.step(
            tokens[:, start:stop],
            mask[:, start:stop],
            cache,
            torch.arange(start, stop, device=tokens.device).expand(tokens.shape[0], -1),
            length=stop,
            rows=None if whole else rows,
            experts=heard,
        )


def decode_frame(engine: Engine, hidden: Tensor, group: _Group, board: _Board, window: tuple[int, int]) -> Tensor:
    """Draw the K ids of one audio frame per slot.

    The first codebook decides the end of a part: when it draws the end id, the others follow. Inside a part only codes
    of its stream can be drawn. Source of the steps: ARCHITECTURE section 1.4; the range rules repair section 5.1, 11.

    Args:
        engine: Its model draws.
        hidden: (n + guided, D).
        group: Audio slots.
        board: State.
        window: First and one past the last id that may be drawn by any slot.

    Returns:
        (n, K).
    """
    assert group.cache is not None
    model = engine.model
    slots, count = group.slots, group.slots.shape[0]
    tokens = torch.arange(*window, device=hidden.device)
    low, high, eos = (board.current(name, slots)[:, None] for name in ("low", "high", "eos"))
    inside = (tokens >= low) & (tokens < high)
    frames, published = board.count[slots], board.published[slots]
    full = frames >= board.current("most", slots)
    may_end = (frames >= board.current("least", slots)) | published
    is_end = tokens == eos
    first = (inside & ~(full & ~published)[:, None]) | (is_end & (may_end | full)[:, None])
    numbers = board.numbers(slots)
    ended = torch.zeros(count, dtype=torch.bool, device=hidden.device)
    inputs, drawn = hidden, []
    for codebook in range(model.config.audio.num_codebooks):
        logits = engine.codebook_logits(inputs, codebook, group.cache, window).float()
        logits = guide(logits[:, : tokens.shape[0]], group.pair, group.scale, count)
        logits = logits.masked_fill(~(first if codebook == 0 else inside), -torch.inf)
        ids = window[0] + _draw(group, board, logits, numbers[:, codebook])
        if codebook == 0:
            ended = (ids == eos[:, 0]) & ~published
        else:
            ids = torch.where(ended, eos[:, 0], ids)
        drawn.append(ids)
        if codebook + 1 < model.config.audio.num_codebooks:
            inputs = model.embed_codebook(ids[group.owner], codebook)
    frame = torch.stack(drawn, dim=1)
    return torch.where((full & published)[:, None], eos, frame)


def decode_text(model: AudioLM, hidden: Tensor, group: _Group, board: _Board) -> Tensor:
    """Draw one text id per slot, (n,); special ids other than the end are never drawn.

    Args:
        model: The language model.
        hidden: (n + guided, D).
        group: Text slots.
        board: State.
    """
    assert group.blocked is not None
    slots = group.slots
    logits = guide(model.text_head(hidden).float(), group.pair, group.scale, slots.shape[0])
    is_end = torch.arange(logits.shape[-1], device=hidden.device) == board.current("eos", slots)[:, None]
    frames = board.count[slots]
    early = frames < board.current("least", slots)
    full = frames >= board.current("most", slots)
    blocked = group.blocked | (is_end & early[:, None])
    logits = logits.masked_fill(blocked, -torch.inf)
    ids = _draw(group, board, logits, board.numbers(slots)[:, -1])
    return torch.where(full, board.current("eos", slots), ids)


def _draw(group: _Group, board: _Board, logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw with the settings of the phase each slot is in."""
    if all(sampler is group.samplers[0] for sampler in group.samplers):
        return group.samplers[0].draw(logits, uniform)
    each = torch.stack([sampler.draw(logits, uniform) for sampler in group.samplers])
    return each[board.phase[group.slots], torch.arange(logits.shape[0], device=logits.device)]


def repeats(items: Sequence[object], *, text: bool = True) -> int:
    """Length of the period with which the end of a sequence repeats itself, 0 when it does not.

    Choice: for text a run of 1 to 12 ids said at least four times and over at least 12 ids; for audio one whole frame
    40 times on end (3.2 s at 12.5 Hz), since silence and hums repeat a little by nature.
    """
    for period in range(1, 13 if text else 2):
        length = period * (max(4, -(-12 // period)) if text else 40)
        tail = items[-length:]
        if len(items) >= length and tail[period:] == tail[:-period]:
            return period
    return 0


def without_repeats(ids: Sequence[int]) -> list[int]:
    """Cut a repeating end down to its first round."""
    period, stop = repeats(ids), len(ids)
    if not period:
        return list(ids)
    while stop > period and ids[stop - 1] == ids[stop - 1 - period]:
        stop -= 1
    return list(ids[:stop])


def _check_compiler(device: torch.device) -> None:
    """Raise a :class:`GenerationError` if ``torch.compile`` lacks what it needs here."""
    if device.type == "cpu" and not any(
        shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name
    ):
        raise GenerationError("compiling for a CPU needs a C++ compiler: install g++, or generate without compiling")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise GenerationError("compiling for a GPU needs the package triton: install it, or generate without compiling")


def _compiled(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """Compiled form of a step: any batch size and length share the code; a part that cannot be compiled is an error.

    Choice for a CPU: an intermediate result of more than six operations is written down, else a norm or an activation
    would be worked out again for every row of the matrix behind it, which halves the speed of 8-bit weights. Kernels
    carry names that a profiler shows, which costs nothing measurable.
    """
    limit = torch._dynamo.config.recompile_limit  # one variant or more per model, kind of batch and type
    torch._dynamo.config.recompile_limit = max(limit, 64)
    on_cpu: dict[str, str | int | bool | Callable[..., Any]] = {
        "realize_opcount_threshold": 6,
        "cpp.enable_kernel_profile": True,
    }
    return torch.compile(function, dynamic=True, fullgraph=True, options=on_cpu if device.type == "cpu" else None)


class Engine:
    """Generation for one model.

    Args:
        model: The language model, in evaluation mode.
        builder: Turns ids into codes and text.
        max_batch: Most cache rows at once; a guided request takes two.
        prefill_chunk: Most prompt positions per prefill step.
        cache_dtype: Type of the caches; None: that of the activations.
        sync_every: Frames between two looks at what the device did; 1 on a CPU, more on a GPU.
        compile: Run frames as compiled code (``torch.compile``). It takes a minute or two at first, is kept on disk
            for the next time, and pays for models whose weights do not fit the processor's cache. On a CPU the heads'
            weights are stored in another order for it, see :meth:`DepthDecoder.store_heads_by_id`.
        cuda_graphs: Record a whole frame as one CUDA graph; None: on a GPU when compiled.

    Raises:
        GenerationError: If a setting makes no sense or there is nothing to compile with.
    """

    def __init__(
        self,
        model: AudioLM,
        builder: SequenceBuilder,
        *,
        max_batch: int = 16,
        prefill_chunk: int = 256,
        cache_dtype: torch.dtype | None = None,
        sync_every: int | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
    ) -> None:
        if max_batch < 1 or prefill_chunk < 1:
            raise GenerationError("max_batch and prefill_chunk must be at least 1")
        on_gpu = model.device.type == "cuda"
        if cuda_graphs and not on_gpu:
            raise GenerationError(f"the model is on {model.device}: CUDA graphs need it on a CUDA device")
        self.model = model
        self.builder = builder
        self.max_batch = max_batch
        self.prefill_chunk = prefill_chunk
        self.cache_dtype = cache_dtype
        self.sync_every = sync_every if sync_every is not None else (8 if on_gpu else 1)
        self.cuda_graphs = (compile and on_gpu) if cuda_graphs is None else cuda_graphs
        self.compiled = compile
        self.model_step, self._read = model.step, model.depth.read
        if compile:
            _check_compiler(model.device)
            if not on_gpu:
                model.depth.store_heads_by_id()
            self.model_step, self._read = (_compiled(each, model.device) for each in (model.step, model.depth.read))

    def window(self, phase: Phase) -> tuple[int, int]:
        """Audio ids that can be drawn in a part, first and one past the last, in whole blocks: no others need logits.

        Where the host does not see every frame it cannot tell the part: all ids.
        """
        size = self.model.config.audio.size
        if self.sync_every > 1:
            return 0, size
        start = min(phase.low, phase.eos) // BLOCK_ROWS * BLOCK_ROWS
        return start, min(-(-max(phase.high, phase.eos + 1) // BLOCK_ROWS) * BLOCK_ROWS, size)

    def codebook_logits(self, inputs: Tensor, codebook: int, cache: KVCache, window: tuple[int, int]) -> Tensor:
        """Logits of the ids in ``window`` (and up to a block more) of one codebook, see :meth:`DepthDecoder.read`."""
        positions = torch.full((inputs.shape[0], 1), codebook, device=inputs.device)
        # Compiled code must not depend on the codebook; otherwise attention over fewer positions is cheaper.
        length = None if self.compiled else codebook + 1
        return self._read(inputs, self.model.depth.head(codebook, *window), positions, cache, length=length)

    def session(self, *, streaming: bool = True) -> Generation:
        """An empty batch that requests can join at any time; without streaming only results are reported."""
        if self.model.training:
            raise GenerationError("the model is in training mode; call model.eval() first")
        return Generation(self, streaming=streaming)

    def generate(self, requests: Iterable[GenerationRequest]) -> list[GenerationResult]:
        """Serve requests, as many at once as ``max_batch`` allows; results in the order of the requests."""
        results: dict[int, GenerationResult] = {}
        session = self.session(streaming=False)
        numbers = [session.add(request) for request in requests]
        while session.active:
            for event in session.step():
                if event.result is not None:
                    results[event.request] = event.result
        return [results[number] for number in numbers]

    def stream(self, requests: GenerationRequest | Iterable[GenerationRequest]) -> Iterator[StreamEvent]:
        """Yield text and frames as they are made; the last event of each request holds its result.

        Closing the iterator (or leaving its loop) cancels what still runs.
        """
        session = self.session()
        for request in [requests] if isinstance(requests, GenerationRequest) else requests:
            session.add(request)
        while session.active:
            yield from session.step()
