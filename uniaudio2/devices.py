"""Which device a model runs on."""

from __future__ import annotations

import torch

from uniaudio2.errors import UserError


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
