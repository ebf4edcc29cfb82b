"""The running batch: requests wait, get slots, are stepped together, and leave; the caches stay where they are.

One batch may hold prompts of different lengths and tasks. Slot, cache row and entry of the board have one number; a
guided request takes a second row for its partner, the same prompt without the condition.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from uniaudio2.engine.guards import CHECK_EVERY, LOOP_IDS, repeats
from uniaudio2.engine.request import End, GenerationRequest, GenerationResult, StreamEvent, finished_part
from uniaudio2.engine.runner import Group, ModelRunner, decode_frame, decode_text, prefill
from uniaudio2.engine.sampling import Needs
from uniaudio2.engine.state import Board
from uniaudio2.lm.cache import KVCache
from uniaudio2.lm.model import LMCache

GRAPH_POSITIONS = 256  # a recorded CUDA graph attends to a multiple of so many positions
MOST_GRAPHS = 64
LEAST_POSITIONS = 64  # that a cache is made for
_NO_IDS = torch.zeros(0, dtype=torch.int64, device="cpu")
_ENDS: dict[int, End] = {0: "cancelled", 1: "end", 2: "length"}


class _Waiting(NamedTuple):
    """A request that has no slot yet."""

    number: int
    request: GenerationRequest
    streaming: bool


@dataclass
class _Running:
    """Host side of a slot."""

    number: int
    request: GenerationRequest
    streaming: bool
    slot: int
    partner: int | None  # cache row without the condition, when guided
    position: int  # of the row that is fed next
    reported: int = 0  # history entries already streamed
    checked: int = 0  # history entries that the loop guard has seen
    phase: int = 0  # part it was in when the device was last asked
    looped: set[int] = field(default_factory=set)  # phases ended by the loop guard

    @property
    def rows(self) -> list[int]:
        """Cache rows."""
        return [self.slot] if self.partner is None else [self.slot, self.partner]


@dataclass(frozen=True)
class _Batch:
    """The rows that are stepped and who draws what, between two changes."""

    owner: Tensor  # (n,) slot whose tokens each row is fed
    cache: LMCache  # view of these rows
    audio: Group | None
    text: Group | None
    kind: tuple[object, ...]  # what a recorded graph depends on besides lengths


def record(frame: Callable[[], None]) -> Callable[[], None]:
    """A frame as a CUDA graph. Unproven: written without a GPU at hand."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
        frame()
    return graph.replay


def _power_of_two(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << (number - 1).bit_length()


class Generation:
    """Running requests: add, step, cancel; for one thread at a time.

    Caches and board are made for the first requests, grow in powers of two when more or longer ones come, and are
    never copied otherwise.

    Args:
        runner: Model and settings.
        streaming: Report every new id, not only results, unless :meth:`add` says otherwise.
    """

    def __init__(self, runner: ModelRunner, *, streaming: bool = True) -> None:
        self._runner = runner
        self._streaming = streaming
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Running] = {}  # by slot
        self._numbers = itertools.count()
        self._cancelled: set[int] = set()
        self._cache: LMCache | None = None
        self._depth: KVCache | None = None  # of the local decoder
        self._board: Board | None = None
        self._batch: _Batch | None = None  # None: to be put together
        self._graphs: dict[tuple[object, ...], Callable[[], None] | None] = {}
        self._since_sync = 0

    @property
    def active(self) -> bool:
        """Whether anything is running or waiting."""
        return bool(self._waiting or self._running)

    def add(self, request: GenerationRequest, *, streaming: bool | None = None) -> int:
        """Queue a request and return its number.

        Raises:
            GenerationError: If prompt and limits together are longer than the model allows.
        """
        self._runner.check(request)
        number = next(self._numbers)
        self._waiting.append(_Waiting(number, request, self._streaming if streaming is None else streaming))
        return number

    def cancel(self, number: int) -> None:
        """Stop a request; its place is free at the next step. Unknown or finished numbers are ignored."""
        self._cancelled.add(number)

    @torch.inference_mode()
    def step(self) -> list[StreamEvent]:
        """Run one frame of everything that runs; returns what became known."""
        events = self._stop_cancelled()
        self._admit()
        if not self._running:
            return events
        self._frame()
        self._since_sync += 1
        if self._since_sync >= self._runner.sync_every:
            events += self._collect()
        return events

    # -- who is in the batch ----------------------------------------------------------------------------------------

    def _stop_cancelled(self) -> list[StreamEvent]:
        events = []
        for waiting in [each for each in self._waiting if each.number in self._cancelled]:
            self._waiting.remove(waiting)
            result = GenerationResult(waiting.request.prompt.task, ())
            events.append(StreamEvent(waiting.number, "", "", _NO_IDS, None, None, result))
        for running in [each for each in self._running.values() if each.number in self._cancelled]:
            events.append(self._finish(running, cancelled=True))
        self._cancelled.clear()
        return events

    def _admit(self) -> None:
        """Give waiting requests free slots and rows, and prefill their prompts."""
        used = sum(each.request.rows for each in self._running.values())
        joining: list[_Waiting] = []
        while self._waiting and (not used or used + self._waiting[0].request.rows <= self._runner.max_batch):
            joining.append(self._waiting.popleft())
            used += joining[-1].request.rows
        if joining:
            self._make_room(joining, used)
            self._prefill(joining)
            self._batch = None

    def _make_room(self, joining: list[_Waiting], rows: int) -> None:
        """Let so many rows and the joining requests' positions fit."""
        runner, margin = self._runner, self._runner.sync_every
        steps = max(each.request.max_steps for each in joining) + margin
        positions = max(len(each.request.prompt) + each.request.max_steps for each in joining) + margin
        longest = runner.model.config.max_positions + margin
        rows = min(_power_of_two(rows), max(rows, runner.max_batch))
        positions = min(max(_power_of_two(positions), LEAST_POSITIONS), longest)
        steps = min(_power_of_two(steps), longest)
        cache, board = self._cache, self._board
        if cache is not None and board is not None:
            rows, steps = max(rows, board.slots), max(steps, board.capacity)
            positions = max(positions, cache.max_positions)
            if (rows, steps, positions) == (board.slots, board.capacity, cache.max_positions):
                return
        self._batch = self._depth = None
        self._graphs.clear()
        model = runner.model
        if cache is None or board is None or not self._running:
            self._cache = self._board = cache = board = None  # freed before more is taken
            self._cache = model.new_cache(rows, positions, dtype=runner.cache_dtype)
            size = model.config.text_vocab_size
            self._board = Board(rows, steps, model.config.audio.num_codebooks, model.device, size)
        else:
            cache.resize(torch.arange(rows, device=model.device).clamp(max=board.slots - 1), positions)
            self._board = board.grown(rows, steps)
        self._depth = model.depth.new_cache(rows, device=model.device, dtype=runner.cache_dtype or model.dtype)

    def _prefill(self, joining: list[_Waiting]) -> None:
        """Fill the caches with all rows of the new prompts but the last, in chunks; no head runs."""
        assert self._cache is not None and self._board is not None
        taken = {row for each in self._running.values() for row in each.rows}
        free = (row for row in range(self._board.slots) if row not in taken)
        model = self._runner.model
        rows, tokens, masks = [], [], []
        for number, request, streaming in joining:
            prompt, slot = request.prompt, next(free)
            partner = next(free) if request.guided else None
            running = _Running(number, request, streaming, slot, partner, len(prompt) - 1)
            self._running[slot] = running
            self._board.place(slot, request, partner)
            rows += running.rows
            for each in (prompt.tokens, prompt.guidance_tokens)[: request.rows]:
                assert each is not None
                tokens.append(each[:-1])
                masks.append(prompt.mask[:-1])
        prefill(
            model,
            torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True).to(model.device),
            torch.nn.utils.rnn.pad_sequence(masks, batch_first=True).to(model.device),
            self._cache,
            torch.tensor(rows, device="cpu"),
            chunk=self._runner.prefill_chunk,
        )

    def _put_together(self) -> _Batch:
        """The batch as it is now."""
        assert self._cache is not None and self._board is not None
        board, runner = self._board, self._runner
        rows = sorted(row for each in self._running.values() for row in each.rows)
        if runner.fixed_shapes:
            rows = list(range(min(_power_of_two(rows[-1] + 1), board.slots)))
        elif runner.compiled:  # idle rows cost less than code for every pattern of gaps, those in front included
            rows = list(range(rows[-1] + 1))
        audio, text = self._group(rows, text=False), self._group(rows, text=True)
        kind = tuple((each.needs, each.pair is None) if each is not None else None for each in (audio, text))
        owner = (
            board.owner[: len(rows)] if runner.fixed_shapes else board.owner[torch.tensor(rows, device=board.device)]
        )
        return _Batch(owner, self._cache.pick(rows), audio, text, (len(rows), *kind))

    def _group(self, rows: list[int], *, text: bool) -> Group | None:
        assert self._board is not None and self._depth is not None
        board, device = self._board, self._board.device
        chosen = sorted((each for each in self._running.values() if each.request.is_text == text), key=lambda e: e.slot)
        if not chosen:
            return None
        samplers = [each.request.sampler(phase.kind) for each in chosen for phase in each.request.prompt.phases]
        needs, guided = Needs.of(samplers), any(each.partner is not None for each in chosen)
        if self._runner.fixed_shapes:  # tables of all rows, changed in place
            size = len(rows)
            tables = [table[:size] for table in (board.numbers, board.numbers, board.owner, board.pair, board.scale)]
        else:
            partners = [(index, each.partner) for index, each in enumerate(chosen) if each.partner is not None]
            pair = list(range(len(chosen)))
            for place, (index, _) in enumerate(partners, start=len(chosen)):
                pair[index] = place
            members = [each.slot for each in chosen] + [partner for _, partner in partners]
            where = {row: index for index, row in enumerate(rows)}
            size = len(members)
            lists = (
                [each.slot for each in chosen],
                [where[row] for row in members],
                [*range(len(chosen)), *(index for index, _ in partners)],
                pair,
                [each.request.guidance_scale for each in chosen],
            )
            tables = [torch.tensor(each, device=device) for each in lists]
        slots, hidden, owner, *partnered = tables
        pairs, scale = partnered if guided else (None, None)
        return Group(slots, hidden, owner, pairs, scale, needs, None if text else self._depth.pick(range(size)))

    # -- one frame --------------------------------------------------------------------------------------------------

    def _frame(self) -> None:
        """Feed one row per slot and draw the next one."""
        assert self._cache is not None
        batch = self._batch = self._batch or self._put_together()
        positions = [each.position for each in self._running.values()]
        longest, window = max(positions) + 1, self._window()
        if self._runner.cuda_graphs:
            length = min(-(-longest // GRAPH_POSITIONS) * GRAPH_POSITIONS, self._cache.max_positions)
            self._replay_frame(batch, length, window)
        else:
            self._run_frame(batch, longest, window, exact=min(positions) + 1 == longest)
        for each in self._running.values():
            each.position += 1

    def _run_frame(self, batch: _Batch, length: int, window: tuple[int, int], *, exact: bool) -> None:
        """One frame as work for the device alone; ``length`` and ``exact`` as in :meth:`AudioLM.step`."""
        assert self._board is not None
        runner, board = self._runner, self._board
        hidden = runner.model_step(
            board.tokens[batch.owner][:, None],
            board.mask[batch.owner][:, None],
            batch.cache,
            board.position[batch.owner][:, None],
            length=length,
            exact=exact,
            experts=batch.audio is not None,
        )[:, 0]
        ids = torch.zeros_like(board.tokens)
        if batch.audio is not None:
            ids[batch.audio.slots, :-1] = decode_frame(runner, hidden[batch.audio.rows], batch.audio, board, window)
        if batch.text is not None:
            ids[batch.text.slots, -1] = decode_text(runner.model, hidden[batch.text.rows], batch.text, board)
        board.advance(ids)

    def _replay_frame(self, batch: _Batch, length: int, window: tuple[int, int]) -> None:
        """One frame as a CUDA graph: run plainly at first, recorded the second time, replayed from then on.

        Nothing in a frame depends on the host but what the key holds, so a graph serves whoever is in the batch.
        """
        key = (length, window, *batch.kind)
        if key not in self._graphs:
            if len(self._graphs) == MOST_GRAPHS:
                self._graphs.clear()
            self._graphs[key] = None
            self._run_frame(batch, length, window, exact=False)
            return
        replay = self._graphs[key] or record(lambda: self._run_frame(batch, length, window, exact=False))
        self._graphs[key] = replay
        replay()

    def _window(self) -> tuple[int, int]:
        """Audio ids that any running request can draw now."""
        windows = [
            self._runner.window(each.request.prompt.phases[min(each.phase, len(each.request.prompt.phases) - 1)])
            for each in self._running.values()
            if not each.request.is_text
        ]
        return min((start for start, _ in windows), default=0), max((stop for _, stop in windows), default=0)

    # -- results ----------------------------------------------------------------------------------------------------

    def _collect(self) -> list[StreamEvent]:
        """Read what the device knows: new ids, finished requests, loops."""
        assert self._board is not None
        self._since_sync = 0
        board, events = self._board, []
        done, written, phases, links = torch.stack((board.done.long(), board.written, board.phase, board.link)).tolist()
        for slot, running in list(self._running.items()):
            running.phase = phases[slot]
            events += self._news(running, written[slot])
            if done[slot]:
                events.append(self._finish(running))
            elif written[slot] // CHECK_EVERY > running.checked // CHECK_EVERY:
                running.checked = written[slot]
                if running.request.loop_guard and links[slot] < 0:
                    self._guard(running, written[slot])
        return events

    def _guard(self, running: _Running, written: int) -> None:
        """End a part that repeats itself, by lowering its length limit to what it has."""
        assert self._board is not None
        board, phase, slot = self._board, running.phase, running.slot
        if phase in running.looped:
            return
        recent = slice(max(0, written - LOOP_IDS), written)
        ids = board.history[slot, recent][board.history_phase[slot, recent] == phase]
        text = running.request.is_text
        if repeats((ids[:, -1] if text else ids[:, :-1]).tolist(), text=text):
            running.looped.add(phase)
            board.most[slot, phase] = board.count[slot]
            board.least[slot, phase] = 0

    def _news(self, running: _Running, written: int) -> list[StreamEvent]:
        """Events for history entries that were not reported yet."""
        reported, running.reported = running.reported, written
        if not running.streaming or written <= reported:
            return []
        assert self._board is not None
        ids = self._board.history[running.slot, :written].cpu()
        phases = self._board.history_phase[running.slot, :written].cpu()
        builder, events = self._runner.builder, []
        for number, phase in enumerate(running.request.prompt.phases):
            new = (phases == number) & (torch.arange(written, device="cpu") >= reported)
            if not bool(new.any()):
                continue
            codes = text = None
            drawn = ids[new][:, -1] if phase.is_text else ids[new][:, :-1]
            if phase.is_text and builder.tokenizer is not None:
                text = builder.ids_to_text(ids[phases == number][:, -1].tolist())
            elif not phase.is_text and not phase.published:
                codes = builder.ids_to_codes(phase, drawn)
            events.append(StreamEvent(running.number, phase.kind, phase.value, drawn, codes, text))
        return events

    def _finish(self, running: _Running, *, cancelled: bool = False) -> StreamEvent:
        """Take a slot's result and free it."""
        assert self._board is not None
        slot, board, builder = running.slot, self._board, self._runner.builder
        written = int(board.written[slot])
        ids, phases = board.history[slot, :written].cpu(), board.history_phase[slot, :written].cpu()
        ends = board.ended_by[slot].tolist()
        scores: dict[str, float] = {}
        if running.request.is_text:
            scores["log_probability"] = float(board.log_probability[slot]) / max(1, written + ends.count(1))
            scores["empty_probability"] = float(board.empty_probability[slot])
        parts = []
        for number, phase in enumerate(running.request.prompt.phases):
            drawn = ids[phases == number]
            if cancelled and ends[number] == 0 and drawn.shape[0] == 0:
                continue
            end = "loop" if number in running.looped else _ENDS[ends[number]]
            drawn = drawn[:, -1] if phase.is_text else drawn[:, :-1]
            parts.append(finished_part(builder, phase, drawn, end, **scores))
        board.done[slot] = True
        del self._running[slot]
        self._batch = None
        result = GenerationResult(running.request.prompt.task, tuple(parts))
        last = parts[-1] if parts else None
        kind, value, text = (last.kind, last.value, last.text) if last else ("", "", None)
        return StreamEvent(running.number, kind, value, _NO_IDS, None, text, result)
