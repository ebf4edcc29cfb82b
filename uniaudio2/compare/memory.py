"""Most memory while a system works."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch


class PeakMemory:
    """Counts from its making: peak resident memory of the process, and peak allocation of the CUDA device.

    Linux lets a process reset its own peak; elsewhere the peak is that of the process since it began.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # "reset the peak resident set size", man 5 proc
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, int]:
        """Bytes by place, ``ram`` and ``cuda``; what cannot be read is left out."""
        found: dict[str, int] = {}
        status = Path("/proc/self/status")
        if status.is_file():
            lines = {key: value for key, _, value in (line.partition(":") for line in status.read_text().splitlines())}
            found["ram"] = int(lines["VmHWM"].split()[0]) * 1024
        elif sys.platform == "darwin":
            import resource

            found["ram"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.max_memory_allocated()
        return found
