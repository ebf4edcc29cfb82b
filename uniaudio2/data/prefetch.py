"""Batches made ahead of the training step by worker processes or a thread, in a fixed order.

Knows nothing of models: it calls one function of the batch index and hands the results over in order.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

MakeBatch = Callable[[int], Any]
PrefetchMode = Literal["process", "thread", "none"]


def batch_rng(seed: int, index: int, *, stream: int = 0) -> np.random.Generator:
    """A generator for batch ``index`` of a run with ``seed``: the only randomness a batch may use."""
    return np.random.default_rng((seed, index, stream))


class _BatchPickler(pickle.Pickler):
    """Pickles tensors as NumPy arrays: fast, and without file descriptors shared between processes."""

    def reducer_override(self, obj: Any) -> Any:
        """How an object is pickled; tensors as arrays."""
        if isinstance(obj, Tensor):
            if obj.dtype == torch.bfloat16:
                return _bfloat16_from_int16, (obj.detach().contiguous().view(torch.int16).numpy(),)
            return torch.from_numpy, (obj.detach().contiguous().numpy(),)
        return NotImplemented


def _bfloat16_from_int16(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).view(torch.bfloat16)


def _dump(item: Any) -> bytes:
    buffer = io.BytesIO()
    _BatchPickler(buffer, protocol=5).dump(item)
    return buffer.getvalue()


def _work(make: MakeBatch, start: int, stride: int, sender: Connection, foreign: list[Connection]) -> None:
    """Body of a worker process: batches start, start + stride, … until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for connection in foreign:  # otherwise this process would keep its siblings' pipes open after the trainer's death
        connection.close()
    torch.set_num_threads(1)
    for index in itertools.count(start, stride):
        try:
            payload = _dump((True, make(index)))
        except Exception:
            payload = _dump((False, traceback.format_exc()))
        try:
            sender.send_bytes(payload)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)


class Prefetcher:
    """Iterates over ``make(start)``, ``make(start + 1)``, … computed ahead.

    Choice: forked processes by default, because batches are Python and NumPy work that would hold the interpreter
    lock of the training process; forking shares datasets held in memory without copies. Where the platform cannot
    fork, a thread is used.

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
        if mode == "process" and sys.platform not in ("linux", "darwin"):
            mode = "thread"
        self._make, self._next, self._mode = make, start, mode
        self._closed = False
        self._processes: list[Any] = []
        self._queues: list[queue.Queue[tuple[bool, Any]]] = []
        self._receivers: list[Connection] = []
        self._threads: list[threading.Thread] = []
        if mode == "process":
            context = multiprocessing.get_context("fork")
            for worker in range(workers):
                receiver, sender = context.Pipe(duplex=False)
                self._receivers.append(receiver)
                process = context.Process(
                    target=_work, args=(make, start + worker, workers, sender, list(self._receivers)), daemon=True
                )
                process.start()
                sender.close()
                self._processes.append(process)
            # Threads start after the last fork: a fork in a process with running threads can deadlock.
            for receiver in self._receivers:
                self._queues.append(queue.Queue(maxsize=depth))
                self._start_thread(self._receive, receiver, self._queues[-1])
        elif mode == "thread":
            self._queues.append(queue.Queue(maxsize=depth))
            self._start_thread(self._produce, start, self._queues[0])
        self._start = start

    def _start_thread(self, target: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def _put(self, target: queue.Queue[tuple[bool, Any]], item: tuple[bool, Any]) -> None:
        while not self._closed:
            try:
                return target.put(item, timeout=0.5)
            except queue.Full:
                continue

    def _receive(self, receiver: Connection, target: queue.Queue[tuple[bool, Any]]) -> None:
        while not self._closed:
            try:
                item = pickle.loads(receiver.recv_bytes())  # noqa: S301 (bytes of our own child process)
            except (EOFError, OSError):
                item = (False, "the worker process died (killed, or out of memory)")
            self._put(target, item)
            if not item[0]:
                return

    def _produce(self, start: int, target: queue.Queue[tuple[bool, Any]]) -> None:
        for index in itertools.count(start):
            if self._closed:
                return
            try:
                item = (True, self._make(index))
            except Exception:
                item = (False, traceback.format_exc())
            self._put(target, item)
            if not item[0]:
                return

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        index, self._next = self._next, self._next + 1
        if self._mode == "none":
            return self._make(index)
        good, item = self._queues[(index - self._start) % len(self._queues)].get()
        if not good:
            raise RuntimeError(f"batch {index} could not be made:\n{item}")
        return item

    def close(self) -> None:
        """Stop the workers; no batch can be had afterwards."""
        self._closed = True
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=5)
        # A thread that is still inside of torch when the interpreter ends would abort the process.
        for thread in self._threads:
            thread.join(timeout=5)
        for receiver in self._receivers:
            with contextlib.suppress(OSError):
                receiver.close()
