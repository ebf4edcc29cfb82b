"""Which device a model runs on, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from uniaudio2.errors import UserError

ONE_THREAD_WIDTH = 512
"""Models up to this width generate on one thread.

Choice: the matrices of one step are so small that a second thread gains nothing, but each of a step's hundred barriers
waits for it, which beside other busy processes makes generation several times slower (docs/use/speed.md).
"""


@contextmanager
def threads_for(width: int, device: torch.device) -> Iterator[None]:
    """Run the small steps of a model of this width on one thread of a CPU; only the calling thread's steps."""
    before = torch.get_num_threads()
    if device.type != "cpu" or width > ONE_THREAD_WIDTH or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: If the name is unknown or the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: choose auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(f"device {name!r} is not there: torch sees {count} CUDA devices; use --device cpu")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there: this is no Apple GPU or torch was built without it; use cpu")
    elif device.type not in ("cpu", "mps"):
        raise UserError(f"unknown device {name!r}: choose auto, cpu, cuda, cuda:N or mps")
    return device
