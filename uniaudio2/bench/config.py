"""What is measured: the settings of one measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from uniaudio2.config import load_config, preset_path
from uniaudio2.errors import UserError
from uniaudio2.lm import LMConfig
from uniaudio2.lm.quantize import QUANTIZED_TYPES

PROFILED_FRAMES = 2  # times the frames between two looks at the device
WARM_FRAMES = 3  # frames before the timed run: compiling, first allocations
DTYPES = ("float32", "bfloat16", *QUANTIZED_TYPES)


class BenchError(UserError):
    """Settings that cannot be measured."""


@dataclass(frozen=True)
class BenchConfig:
    """One measurement."""

    preset: str = "mid"
    model: Path | None = None  # a model folder in the preset's place
    dtype: str = "float32"  # of the weights, one of DTYPES
    batch: int = 1  # requests at once
    device: str = "cpu"
    prompt_rows: int = 200
    frames: int = 50  # audio frames, and text ids, that each request generates
    compile: bool = True
    cpu_clock: bool = False  # count CPU seconds of this process: fair on a busy machine, with a single thread only
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BenchError(f"unknown dtype {self.dtype!r}; use one of: {', '.join(DTYPES)}")
        for name, least in (("batch", 1), ("prompt_rows", 20), ("frames", 6)):
            if getattr(self, name) < least:
                raise BenchError(f"{name} must be at least {least}, got {getattr(self, name)}")

        if self.cpu_clock and (self.device != "cpu" or torch.get_num_threads() > 1):
            raise BenchError(
                "the CPU clock tells the time of one thread on a CPU: use it with --device cpu --threads 1"
            )

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since some moment."""
        return time.process_time if self.cpu_clock else time.perf_counter

    def lm_config(self) -> LMConfig:
        """Sizes of the model; raises ConfigError for an unknown preset."""
        return load_config(LMConfig, preset_path("lm", self.preset))


# -- arithmetic ----------------------------------------------------------------------------------------------------
