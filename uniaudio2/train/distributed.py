"""Several processes that train one model: the process group, ranks, and what the processes tell each other.

Start a stage under ``torchrun --nproc-per-node N -m uniaudio2 train STAGE …``. The micro-batches of an optimiser step
are dealt out to the processes and their gradients summed, so a run with N processes takes the steps of one process
with the same ``train.accumulate``, up to the order of floating-point sums. Codebooks sum their statistics over the
group by themselves (`uniaudio2.codec.quantize`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine: the number of its accelerator

    @property
    def leads(self) -> bool:
        """Whether this process logs, evaluates and saves."""
        return self.rank == 0

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """The place that the launcher describes in the environment; without one this process is alone."""
        names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
        return cls(**{field: int(os.environ[name]) for field, name in names.items() if name in os.environ})

    def join(self, device: torch.device, timeout_minutes: float) -> None:
        """Meet the other processes.

        Args:
            device: Where the model trains: decides the backend.
            timeout_minutes: How long one process waits for another before it fails.
        """
        if self.size == 1:
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))

    def leave(self) -> None:
        """Part from the other processes; alone or not yet joined, nothing is done.

        Without it the threads of the group outlive the interpreter, which now and then aborts a finished process.
        """
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def micro_steps(self, accumulate: int) -> range:
        """Micro-steps of one optimiser step of ``accumulate`` that fall to this process."""
        return range(self.rank, accumulate, self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; one that a process lacks counts as zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        # Choice: one flat tensor per type, because many small messages cost more than the copy.
        for dtype in {g.dtype for g in gradients}:
            part = [g for g in gradients if g.dtype == dtype]
            flat = torch.cat([g.reshape(-1) for g in part])
            dist.all_reduce(flat)
            for gradient, value in zip(part, flat.split([g.numel() for g in part]), strict=True):
                gradient.copy_(value.view_as(gradient))

    def largest(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Elementwise maximum over the processes; what only the leader knows is 0 elsewhere."""
        return self._reduce(values, device, dist.ReduceOp.MAX)

    def sum(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Elementwise sum over the processes."""
        return self._reduce(values, device, dist.ReduceOp.SUM)

    def _reduce(self, values: Sequence[float], device: torch.device, how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(told, how)
        return told.tolist()
