"""Requests on their way: so many are worked on, so many wait, each in a thread of its own, and each can be stopped.

The threads meet in the model's engine, whose one batch their requests join and leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from uniaudio2.engine import Cancellation, Cancelled, cancellable
from uniaudio2.server.errors import DEADLINE, GONE, APIError, as_api_error
from uniaudio2.server.metrics import Metrics
from uniaudio2.server.settings import ServerSettings

T = TypeVar("T")
HELD = 16  # results that wait for a slow reader, before the work waits for him
RETRY_AFTER_S = 2


class _End:
    """Stands behind the last result."""


class Job(Generic[T]):
    """Work in a thread, whose results come to the event loop one by one.

    Args:
        make: The work; called in the thread.
    """

    def __init__(self, make: Callable[[], Iterable[T]]) -> None:
        self.switch = Cancellation()
        self.future: Future[None] | None = None
        self._make, self._loop = make, asyncio.get_running_loop()
        self._results: asyncio.Queue[T | BaseException | _End] = asyncio.Queue()
        self._room = threading.Semaphore(HELD)
        self._watching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def allow(self, seconds: float) -> None:
        """Stop it that long from now, if it still runs; whatever was allowed before is forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.stop, DEADLINE)

    def watch(self, receive: Receive) -> None:
        """Stop when the client goes away; its request must have been read."""

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.stop(GONE)

        self._watching = asyncio.create_task(until_gone())

    def stop(self, reason: str, error: Exception | None = None) -> None:
        """Stop the work, wherever it is; whoever waits for results is told at once, by an error of its own or ours."""
        if self.switch.reason is None:
            self.switch.cancel(reason)
            self._results.put_nowait(error or Cancelled(reason))

    def close(self) -> None:
        """Stop what still runs, and watch no longer; to be called when the results are not wanted any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        self.switch.cancel(GONE)
        if self.future is not None:
            self.future.cancel()  # if no thread has taken it yet

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        result = await self._results.get()
        if isinstance(result, _End):
            raise StopAsyncIteration
        if isinstance(result, BaseException):
            raise result
        self._room.release()
        return result

    def work(self) -> None:
        """All of the work, in a thread."""
        end: BaseException | _End = _End()
        try:
            with cancellable(self.switch):
                self.switch.check()
                with contextlib.closing(self._items()) as items:
                    for item in items:
                        while not self._room.acquire(timeout=0.05):
                            self.switch.check()
                        self._tell(item)
        except BaseException as error:
            end = error
        self._tell(end)

    def _items(self) -> Generator[T]:
        """The results, as a generator that can be closed."""
        yield from self._make()

    def _tell(self, item: T | BaseException | _End) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._results.put_nowait, item)


class Jobs:
    """The threads of a server, and who waits for one."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.unfinished = 0
        self._lock = threading.Lock()
        self._threads, self._sessions = (
            ThreadPoolExecutor(number, name, initializer=torch.set_num_threads, initargs=(settings.threads,))
            for number, name in ((settings.running, "request"), (settings.sessions, "session"))
        )

    def start(self, make: Callable[[], Iterable[T]]) -> Job[T]:
        """Begin work, or let it wait for a thread.

        Raises:
            APIError: If too many wait already.
        """
        with self._lock:
            if self.unfinished >= self.settings.running + self.settings.waiting:
                self.metrics.refused.inc()
                message = f"{self.unfinished} requests are on their way, as many as this server takes: try again later"
                headers = {"Retry-After": str(RETRY_AFTER_S)}
                raise APIError(429, message, code="queue_full", headers=headers)
            self.unfinished += 1
        job = Job(make)
        job.allow(self.settings.deadline_s)
        job.future = self._threads.submit(self._work, job)
        job.future.add_done_callback(self._finished)
        return job

    def session(self, make: Callable[[], Iterable[T]]) -> Job[T]:
        """Begin the work of a session beside the queue: it lasts as long as its client speaks, mostly waiting."""
        job = Job(make)
        job.future = self._sessions.submit(job.work)
        return job

    def _work(self, job: Job[Any]) -> None:
        with self.metrics.running.track_inprogress():
            job.work()

    def _finished(self, future: Future[None]) -> None:
        """Make room for another request, whether this one was worked on or has never begun."""
        with self._lock:
            self.unfinished -= 1

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """The one result of some work; it is stopped when the client goes away."""
        job = self.start(lambda: [work()])
        job.watch(request.receive)
        try:
            return await anext(job)
        finally:
            job.close()

    async def stream(
        self,
        request: Request,
        make: Callable[[], Iterable[bytes]],
        media_type: str,
        headers: Mapping[str, str] = {},
        failed: Callable[[Exception], bytes] | None = None,
    ) -> JobResponse:
        """An answer that is sent piece by piece as it is made, once the first piece is there.

        An error before that is an answer of its own; a later one is the last piece where ``failed`` makes one of it.
        """
        job = self.start(make)
        job.watch(request.receive)
        try:
            first = await anext(job)
        except StopAsyncIteration:
            first = b""
        except BaseException:
            job.close()
            raise
        return JobResponse(job, first, media_type, headers, failed)

    def close(self) -> None:
        """Let nothing new begin; what runs is finished."""
        for threads in (self._threads, self._sessions):
            threads.shutdown(wait=False, cancel_futures=True)


class JobResponse(StreamingResponse):
    """Pieces of a job as the body of an answer; whatever ends the answer ends the job."""

    def __init__(
        self,
        job: Job[bytes],
        first: bytes,
        media_type: str,
        headers: Mapping[str, str],
        failed: Callable[[Exception], bytes] | None,
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield first
            try:
                async for piece in job:
                    yield piece
            except Exception as error:
                if failed is None:
                    raise
                yield failed(error)

        super().__init__(pieces(), media_type=media_type, headers=dict(headers))
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; without its end where the work is stopped, so that the client knows that something is missing."""
        try:
            await super().__call__(scope, receive, send)
        except Cancelled as end:
            scope["outcome"] = str(end)
        finally:
            self._job.close()


def described(error: BaseException) -> dict[str, Any]:
    """An error as the inner object of OpenAI's shape, for streams that have begun."""
    return as_api_error(error).body
