"""What the trainer asks of a stage, and how a stage and its batches are moved to a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Parameters = Iterable[nn.Parameter] | Iterable[Mapping[str, Any]]


class Stage(Protocol):
    """What trains. Written once per stage; the trainer does the rest.

    A stage may also have ``identity() -> dict[str, Any]``: its settings and a fingerprint of its data, which must be
    the same when a run goes on; and ``packages``: names of packages that its evaluation imports.

    Attributes:
        name: Short name for logs.
    """

    name: str

    @property
    def model(self) -> nn.Module:
        """Everything that is checkpointed (auxiliary heads included); strict on resume."""
        ...

    def parameters_to_train(self) -> Parameters:
        """Parameters of ``model`` with ``requires_grad``, or groups as ``optim.parameter_groups`` takes them."""
        ...

    def batch(self, step: int, seed: int) -> Any:
        """Batch number ``step`` (micro-batches counted: optimiser step × accumulate + micro-step).

        Must be a pure function of its arguments (use ``batch_rng``); runs in a worker process; no tensor work on
        many threads, no accelerator. Any nesting of dict, list, tuple, dataclass, tensor and plain values.
        """
        ...

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Scalar loss of one micro-batch at optimiser step ``step``, and numbers to log (averaged over steps).

        The metric ``units`` (tokens, seconds of audio) is summed and shown per second instead.
        """
        ...

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out figures; called without gradients, in eval mode, with averaged weights if there are any."""
        ...

    def export(self, out_dir: Path) -> None:
        """Write the stage's result to ``out_dir``; called with averaged weights if there are any."""
        ...


def place(stage: Stage, device: torch.device) -> None:
    """Move the model, and every module that the stage holds beside it (frozen parts, losses with buffers)."""
    beside = [value for value in vars(stage).values() if isinstance(value, nn.Module)]
    for module in (*beside, stage.model):
        module.to(device)


def to_device(batch: T, device: torch.device) -> T:
    """Move every tensor in nested dicts, lists, tuples and dataclasses."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)  # type: ignore[return-value]
    if isinstance(batch, dict):
        return type(batch)((k, to_device(v, device)) for k, v in batch.items())  # type: ignore[return-value]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(v, device) for v in batch))  # type: ignore[return-value]
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(v, device) for v in batch)  # type: ignore[return-value]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {f.name: to_device(getattr(batch, f.name), device) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **fields)  # type: ignore[return-value]
    return batch
