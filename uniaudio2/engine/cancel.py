"""Stopping, from another thread, what one caller has asked for: its requests leave the batch at the next step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Cancelled(Exception):  # noqa: N818 (it is no error)
    """What was asked for is not wanted any more; the message says why."""


class Cancellation:
    """A switch that stops all that runs under it, see `cancellable`; any thread may throw it, once."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []

    def cancel(self, reason: str = "cancelled") -> None:
        """Stop what runs; a second call changes nothing."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            stops = list(self._stops)
        for stop in stops:
            stop()

    def check(self) -> None:
        """Raise `Cancelled` once it is thrown."""
        if self.reason is not None:
            raise Cancelled(self.reason)

    @contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have ``stop`` called when the switch is thrown inside the block, whose end is then `Cancelled`."""
        with self._lock:
            self._stops.append(stop)
        try:
            self.check()
            yield
            self.check()
        finally:
            with self._lock:
                self._stops.remove(stop)


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


@contextmanager
def cancellable(switch: Cancellation) -> Iterator[None]:
    """Work of this thread that ends in `Cancelled`, at the next step of the model, once the switch is thrown."""
    token = _current.set(switch)
    try:
        yield
    finally:
        _current.reset(token)


def check_cancelled() -> None:
    """Raise `Cancelled` if this thread's work is not wanted any more."""
    switch = _current.get()
    if switch is not None:
        switch.check()


@contextmanager
def on_cancel(stop: Callable[[], None]) -> Iterator[None]:
    """Have ``stop`` called when this thread's work is cancelled; nothing where nobody can cancel it."""
    switch = _current.get()
    if switch is None:
        yield
        return
    with switch.calling(stop):
        yield
