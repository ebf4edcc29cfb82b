"""Operators that a frame starts, and how often the host waits for the device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from uniaudio2.bench.config import PROFILED_FRAMES
from uniaudio2.bench.inputs import start_requests
from uniaudio2.bench.plan import wait_for
from uniaudio2.engine import Engine, Generation, GenerationRequest

# Operators that only describe or reserve memory, by their names without "aten::".
_FREE_OPERATORS = re.compile(
    r"(_unsafe_)?view|_?reshape(_alias)?|as_strided|alias|detach|t|transpose|permute|expand(_as)?|select|slice|narrow"
    r"|(un)?squeeze|split(_with_sizes)?|chunk|unbind|(un)?flatten|lift_fresh|to|contiguous|empty(_like|_strided)?"
    r"|resolve_(conj|neg)|result_type|item|is_nonzero|movedim"
)
_ASKING = re.compile(r"item|tolist|cpu|numpy|nonzero|argwhere|masked_select|unique|__(bool|int|float|index|array)__")


class SyncCounter(TorchFunctionMode):
    """Counts the places where the host asks for a value that a device would hold.

    Works on any device, without compiled code (which has no such places).
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count a call and make it."""
        name = getattr(func, "__name__", "")
        by_mask = name == "__getitem__" and _has_mask(args[1])
        self.count += by_mask or _ASKING.fullmatch(name) is not None
        return func(*args, **(kwargs or {}))


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def count_operators(
    engine: Engine, plain: Engine, request: GenerationRequest, batch: int, trace: Path | None
) -> tuple[float, float]:
    """Kernels and host syncs of an average frame in the middle of a request."""
    on_gpu = engine.model.device.type == "cuda"
    frames = PROFILED_FRAMES * engine.sync_every
    session = start_requests(engine, request, batch)
    for _ in range(2 + engine.sync_every):
        session.step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        steps = _steps(session, frames)
        wait_for(engine.model.device)
    if trace is not None:
        recorded.export_chrome_trace(str(trace))
    events = recorded.events() or []
    if on_gpu:
        device_events = [event for event in events if event.device_type != torch.autograd.DeviceType.CPU]
        return len(device_events) / steps, sum("Synchronize" in event.name for event in events) / steps
    session = start_requests(plain, request, batch)
    for _ in range(2):
        session.step()
    with SyncCounter() as syncs:
        counted = _steps(session, frames)
    return sum(map(_computes, events)) / steps, syncs.count / counted


def _steps(session: Generation, most: int) -> int:
    """Run up to so many steps and return how many there were."""
    done = 0
    while session.active and done < most:
        session.step()
        done += 1
    return done


def _computes(event: Any) -> bool:
    """Whether an event of the profiler is a compiled loop, or an operator that is no view and calls no others."""
    if "_cpp_fused" in event.name:
        return True
    if not event.name.startswith("aten::") or _FREE_OPERATORS.fullmatch(event.name[6:]):
        return False
    return not any(_computes(child) for child in event.cpu_children)


# -- quality -------------------------------------------------------------------------------------------------------
