"""The engine of a model: one running batch that requests from any number of threads join.

There is no thread of its own: whoever waits for an answer drives the batch for all, and hands over when its own is
there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, Unpack

from uniaudio2.engine.cancel import on_cancel
from uniaudio2.engine.request import GenerationRequest, GenerationResult, StreamEvent
from uniaudio2.engine.runner import ModelRunner, RunnerSettings
from uniaudio2.engine.sampling import GenerationError
from uniaudio2.engine.session import Generation
from uniaudio2.lm.model import AudioLM
from uniaudio2.sequence import SequenceBuilder


class Handle:
    """Requests on their way. Iterate for what is new; the last event of each request holds its result.

    Events number the requests 0, 1, … in the order in which they were handed in. A handle is for one thread at a time.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine = engine
        self._open = count
        self._results: dict[int, GenerationResult] = {}
        self._events: deque[StreamEvent] = deque()
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether every request has its result (or has failed)."""
        return self._error is not None or not self._open

    def cancel(self, request: int | None = None) -> None:
        """Stop one request, or all: their slots are free at the next step, their results hold what there is."""
        self._engine._cancel(self, request)

    def results(self) -> list[GenerationResult]:
        """Wait for all results, in the order of the requests.

        Raises:
            GenerationError: If the batch failed in another thread.
        """
        for _ in self:
            pass
        return [self._results[number] for number in sorted(self._results)]

    def result(self) -> GenerationResult:
        """Wait for the result of the first request."""
        return self.results()[0]

    def __iter__(self) -> Iterator[StreamEvent]:
        """New ids and frames as they are made; of requests that do not stream their last event alone.

        Leaving the loop changes nothing; closing it early is `Engine.stream`'s business.
        """
        while self._events or not self.done:
            if not self._events:
                self._engine._wait(self)
            while self._events:
                yield self._events.popleft()
        if self._error is not None:
            raise GenerationError(f"generation was stopped by another request: {self._error!r}") from self._error

    def _take(self, event: StreamEvent) -> None:
        """Keep an event."""
        if event.result is not None:
            self._results[event.request] = event.result
            self._open -= 1
        self._events.append(event)

    def _fail(self, error: BaseException) -> None:
        self._error = error


class _Order(NamedTuple):
    """What a thread asks of whoever drives the batch."""

    handle: Handle
    requests: tuple[GenerationRequest, ...] = ()  # to add
    streaming: bool = False
    cancelled: int | None = None  # without requests to add: which to stop, None: all


class Engine(ModelRunner):
    """Generation for one model, from any number of threads at once.

    A request's result depends on its seed and not on what runs beside it (but for rounding).

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

    def __init__(self, model: AudioLM, builder: SequenceBuilder, **settings: Unpack[RunnerSettings]) -> None:
        super().__init__(model, builder, **settings)
        self._session = Generation(self)
        self._news = threading.Condition()  # guards all below; the batch belongs to whoever drives
        self._driving = False
        self._orders: list[_Order] = []
        self._owners: dict[int, tuple[Handle, int]] = {}  # number in the batch: whose, and number there

    def session(self, *, streaming: bool = True) -> Generation:
        """A batch of its own that is stepped by hand; without streaming only results are reported."""
        return Generation(self, streaming=streaming)

    def submit(self, requests: GenerationRequest | Iterable[GenerationRequest], *, streaming: bool = False) -> Handle:
        """Hand in requests, which join the running batch together; nothing is waited for.

        Args:
            requests: One or several.
            streaming: Report every new id, not only results.

        Raises:
            GenerationError: If one of them cannot be served; then none is handed in.
        """
        given = (requests,) if isinstance(requests, GenerationRequest) else tuple(requests)
        for request in given:
            self.check(request)
        handle = Handle(self, len(given))
        with self._news:
            self._orders.append(_Order(handle, given, streaming))
        return handle

    def generate(self, requests: Iterable[GenerationRequest]) -> list[GenerationResult]:
        """Serve requests, as many at once as ``max_batch`` allows; results in the order of the requests."""
        handle = self.submit(requests)
        try:
            with on_cancel(handle.cancel):
                return handle.results()
        finally:
            if not handle.done:  # interrupted
                handle.cancel()

    def stream(self, requests: GenerationRequest | Iterable[GenerationRequest]) -> Generator[StreamEvent]:
        """Yield text and frames as they are made; the last event of each request holds its result.

        Closing the iterator (or leaving its loop) cancels what still runs.
        """
        handle = self.submit(requests, streaming=True)
        try:
            with on_cancel(handle.cancel):
                yield from handle
        finally:
            if not handle.done:
                handle.cancel()

    # -- between threads --------------------------------------------------------------------------------------------

    def _cancel(self, handle: Handle, request: int | None) -> None:
        with self._news:
            self._orders.append(_Order(handle, cancelled=request))

    def _wait(self, handle: Handle) -> None:
        """Return once a handle has something new: drive the batch, or let the thread that does so go on."""
        while True:
            with self._news:
                while self._driving and not (handle._events or handle.done):
                    self._news.wait()
                if handle._events or handle.done:
                    return
                self._driving = True
                orders, self._orders = self._orders, []
            self._drive(handle, orders)

    def _drive(self, handle: Handle, orders: list[_Order]) -> None:
        """Follow orders, make one step, hand out what became known; wakes the others if it is for them to act."""
        events: list[StreamEvent] = []
        error: BaseException | None = None
        try:
            for order in orders:
                self._follow(order)
            with self.threads():
                events = self._session.step()
        except BaseException as caught:
            error = caught
            raise
        finally:
            with self._news:
                self._driving = False
                others = error is not None
                for event in events:
                    owner, number = self._owners[event.request]
                    if event.result is not None:
                        del self._owners[event.request]
                    owner._take(replace(event, request=number))
                    others |= owner is not handle
                if error is not None:
                    self._start_over(error, [order.handle for order in orders if order.requests])
                if others or handle._events or handle.done:
                    self._news.notify_all()

    def _follow(self, order: _Order) -> None:
        for number, request in enumerate(order.requests):
            self._owners[self._session.add(request, streaming=order.streaming)] = (order.handle, number)
        if not order.requests:
            for known, (handle, number) in self._owners.items():
                if handle is order.handle and order.cancelled in (None, number):
                    self._session.cancel(known)

    def _start_over(self, error: BaseException, orders: Iterable[Handle]) -> None:
        """A step failed, so that nobody knows how the batch stands: tell all whose requests were in it."""
        for handle in {*(handle for handle, _ in self._owners.values()), *orders}:
            handle._fail(error)
        self._owners.clear()
        self._session = Generation(self)
