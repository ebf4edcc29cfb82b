"""Work that reports by calling back, as an iterator of what it reports."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def pulled(work: Callable[[Callable[[T], None]], R]) -> Iterator[T | R]:
    """What ``work`` gives to the function that it gets, as it comes, and at the end what it returns.

    It runs in a thread of its own, under this thread's cancellation; its error is raised here.
    """
    found: queue.SimpleQueue[tuple[T | R | None, BaseException | None, bool]] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put((work(lambda item: found.put((item, None, False))), None, True))
        except BaseException as error:
            found.put((None, error, True))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="reporting", daemon=True).start()
    last = False
    while not last:
        item, error, last = found.get()
        if error is not None:
            raise error
        yield item  # type: ignore[misc]
