"""Batches made ahead of the training step by worker processes or a thread, in a fixed order.

Knows nothing of models: it calls one function of the batch index and hands the results over in order.
"""

from __future__ import annotations

import itertools
import pickle
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

MakeBatch = Callable[[int], Any]
PrefetchMode = Literal["process", "thread", "none"]


def batch_rng(seed: int, index: int, *, stream: int = 0) -> np.random.Generator:
    """A generator for batch ``index`` of a run with ``seed``: the only randomness a batch may use."""
    return np.random.default_rng((seed, index, stream))


class _Batches(Dataset[tuple[bool, Any]]):
    """Batch by index, as (True, batch) or (False, what went wrong)."""

    def __init__(self, make: MakeBatch) -> None:
        self.make = make

    def __getitem__(self, index: int) -> tuple[bool, Any]:
        try:
            return True, self.make(index)
        except Exception:
            return False, traceback.format_exc()


def _as_it_is(item: Any) -> Any:
    """The library would turn arrays into tensors."""
    return item


def _start_worker(_number: int) -> None:
    """Signals to the whole group are the trainer's business: it saves, and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _in_processes(batches: _Batches, start: int, workers: int, depth: int) -> Iterator[tuple[bool, Any]]:
    """Choice: forked processes, which share datasets held in memory without copies; once CUDA is up a fork is unsafe,
    and fresh processes get a pickled copy.

    Raises:
        pickle.PicklingError, AttributeError, TypeError: If fresh processes are needed and ``make`` cannot be pickled.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        collate_fn=_as_it_is,
        sampler=itertools.count(start),  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        prefetch_factor=depth,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its seed for the workers is not drawn from the run's
        multiprocessing_context="spawn" if torch.cuda.is_initialized() else "fork",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got pickle error")  # a thread takes over
        return iter(loader)


class _Thread:
    """The results of ``batches`` from ``start`` on, made by one thread."""

    def __init__(self, batches: _Batches, start: int, depth: int) -> None:
        self._ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, args=(batches, start), daemon=True)
        self._thread.start()

    def _produce(self, batches: _Batches, start: int) -> None:
        for index in itertools.count(start):
            item = batches[index]
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set():
                return

    def __next__(self) -> tuple[bool, Any]:
        return self._ready.get()

    def close(self) -> None:
        """End the thread: one that is still inside of torch when the interpreter ends would abort the process."""
        self._closed.set()
        self._thread.join(timeout=5)


class Prefetcher:
    """Iterates over ``make(start)``, ``make(start + 1)``, … computed ahead.

    Processes by default (torch's DataLoader), because batches are Python and NumPy work that would hold the interpreter
    lock of the training process. Where the platform cannot fork, or what makes the batches cannot be handed to a fresh
    process, a thread is used.

    Args:
        make: Function of the batch index alone.
        start: First index.
        mode: ``process``, ``thread`` or ``none`` (in the caller, when asked).
        workers: Number of processes (1 is used for a thread).
        depth: Finished batches held per worker.
    """

    def __init__(
        self, make: MakeBatch, start: int = 0, *, mode: PrefetchMode = "process", workers: int = 1, depth: int = 2
    ) -> None:
        batches = _Batches(make)
        self._next = start
        self._threads = set(threading.enumerate())
        self._source: Any = None
        if mode == "process" and sys.platform in ("linux", "darwin"):
            try:
                self._source = _in_processes(batches, start, workers, depth)
            except (pickle.PicklingError, AttributeError, TypeError):
                mode = "thread"
        elif mode == "process":
            mode = "thread"
        if mode == "thread":
            self._source = _Thread(batches, start, depth)
        elif mode == "none":
            self._source = ((True, make(index)) for index in itertools.count(start))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        index, self._next = self._next, self._next + 1
        try:
            good, item = next(self._source)
        except RuntimeError as error:
            good, item = False, f"the worker process died (killed, or out of memory): {error}"
        if not good:
            raise RuntimeError(f"batch {index} could not be made:\n{item}")
        return item

    def close(self) -> None:
        """Stop the workers; no batch can be had afterwards."""
        source, self._source = self._source, iter(())
        stop = getattr(source, "_shutdown_workers", None) or getattr(source, "close", None)
        if stop is not None:
            stop()
        for thread in set(threading.enumerate()) - self._threads:
            if thread.name == "QueueFeederThread":  # of the library, on its way out
                thread.join(timeout=5)
