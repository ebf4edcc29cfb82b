"""Helpers for all tests: tones, files and the optional reference data that lies beside the repository."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before torch is loaded, and for the processes that tests start: several workers share the cores. Nothing may look for
# files on a hub, and the package is found from any folder without being installed.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "COLUMNS", "UNIAUDIO2_DATA"):
    os.environ.pop(name, None)  # would colour or wrap what commands print, or bring other data
REPOSITORY = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

SHARED = Path(os.environ.get("UNIAUDIO2_SHARED", REPOSITORY.parent / "shared"))
SAMPLE_RATE = 24000


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # before every test: commands under test may choose another number


@pytest.fixture
def tone() -> Callable[..., torch.Tensor]:
    """A function that makes a tone: ``tone(seconds, hz)`` -> (1, N) at 24 kHz, peak 0.5."""

    def make(seconds: float = 1.0, hz: float = 440.0, sample_rate: int = SAMPLE_RATE) -> torch.Tensor:
        time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
        return (0.5 * torch.sin(2 * math.pi * hz * time)).float()[None]

    return make


@pytest.fixture
def wav(tmp_path: Path, tone: Callable[..., torch.Tensor]) -> Callable[..., Path]:
    """A function that writes a tone to a wav file: ``wav("a.wav", seconds, channels=2)`` -> path."""
    import soundfile

    def write(
        name: str = "tone.wav",
        seconds: float = 1.0,
        *,
        hz: float = 440.0,
        sample_rate: int = SAMPLE_RATE,
        channels: int = 1,
        subtype: str = "PCM_16",
    ) -> Path:
        mono = tone(seconds, hz, sample_rate)[0].numpy()
        path = tmp_path / name
        soundfile.write(path, np.stack([mono] * channels, axis=1), sample_rate, subtype=subtype)
        return path

    return write


@pytest.fixture
def shared() -> Path:
    """The folder of reference data and recordings beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference data in {SHARED} (or UNIAUDIO2_SHARED)")
    return SHARED


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs Python code in a fresh process of this environment."""

    def run(code: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s)

    return run
