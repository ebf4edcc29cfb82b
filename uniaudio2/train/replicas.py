"""Processes that share the micro-steps of one optimiser step on a CPU.

A small model on a CPU gains little from threads inside its operators, and almost all from a second copy of the whole
step. Here the parameters lie in shared memory: a replica is a forked process that reads them, makes its own
micro-batch, and leaves its gradients in shared memory too. The trainer adds them in the order of the micro-steps, so
the sum is that of the same micro-steps done one after another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import torch
from torch import nn

MicroStep = Callable[[int, int], dict[str, float]]
"""(optimiser step, micro-step) -> metrics; leaves gradients on the parameters."""


class ReplicaError(RuntimeError):
    """A replica ended or failed."""


class Replicas:
    """``count`` forked processes, each ready to do one micro-step at a time.

    Args:
        parameters: What gets gradients. Their storage is moved to shared memory.
        micro_step: Runs in the replica; must depend on its arguments and the parameters alone.
        count: Number of processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], micro_step: MicroStep, count: int) -> None:
        self.parameters = list(parameters)
        self._gradients = [[torch.zeros_like(p).share_memory_() for p in self.parameters] for _ in range(count)]
        for parameter in self.parameters:
            parameter.data.share_memory_()
        context = multiprocessing.get_context("fork")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, micro_step, self.parameters, self._gradients[number]), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def start(self, step: int, micro_steps: Sequence[int]) -> None:
        """Begin one micro-step on each of the first ``len(micro_steps)`` replicas."""
        for pipe, micro in zip(self._pipes, micro_steps, strict=False):
            pipe.send((step, micro))

    def collect(self, count: int) -> list[dict[str, float]]:
        """Wait for the first ``count`` replicas and add their gradients to the parameters', in order.

        Raises:
            ReplicaError: If one of them failed.
        """
        found = []
        for pipe, gradients in zip(self._pipes[:count], self._gradients, strict=False):
            try:
                result = pipe.recv()
            except EOFError:
                raise ReplicaError("a training replica ended; start again to go on from the last checkpoint") from None
            if isinstance(result, str):
                raise ReplicaError(result)
            metrics, present = result
            for parameter, gradient, there in zip(self.parameters, gradients, present, strict=True):
                if not there:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient.clone()
                else:
                    parameter.grad.add_(gradient)
            found.append(metrics)
        return found

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()
        for process in self._processes:
            process.join(timeout=2)
            if process.is_alive():
                process.terminate()


def _work(
    pipe: Connection, micro_step: MicroStep, parameters: Sequence[nn.Parameter], gradients: Sequence[torch.Tensor]
) -> None:
    """Body of a replica: micro-steps until the pipe is closed or the trainer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    parent = os.getppid()
    while True:
        while not pipe.poll(1.0):
            if os.getppid() != parent:
                return
        try:
            step, micro = pipe.recv()
        except EOFError:
            return
        try:
            metrics = micro_step(step, micro)
            present = []
            for parameter, gradient in zip(parameters, gradients, strict=True):
                present.append(parameter.grad is not None)
                if parameter.grad is not None:
                    gradient.copy_(parameter.grad)
                    parameter.grad = None
            pipe.send((metrics, present))
        except Exception:  # the trainer raises it again, with this text
            pipe.send(traceback.format_exc().strip().splitlines()[-1])
