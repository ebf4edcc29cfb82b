"""How fast: loading, and real-time factors (seconds of work for a second of audio) of everything a user waits for."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.eval.context import Context
from uniaudio2.eval.report import Figure

Result = tuple[list[Figure], list[dict[str, Any]]]

REPEATS = 3

TEXT = (
    "The ship was late again, so we sat in the small cafe by the harbour. We watched the rain come in over the hills. "
    "When the bell rang at last, nobody wanted to leave."
)
"""About ten seconds of speech."""

_LOAD = """
import sys, time
start = time.perf_counter()
from uniaudio2 import UniAudio2
UniAudio2.from_pretrained(sys.argv[1] or None, device=sys.argv[2])
print(time.perf_counter() - start)
"""


def speed(context: Context) -> Result:
    """Each action once to warm up, then three times; the median counts, the slowest and fastest are the interval.

    Loading is timed in a fresh process, imports of torch included. The audio is what the model speaks, or a test signal
    of 10 s for a codec alone: times do not depend on what is said.
    """
    subject = context.subject
    figures = [_load(context)]
    clip = _signal(10.0)
    items: list[dict[str, Any]] = []
    actions: list[tuple[str, str, Callable[[], Tensor | list[str] | list[Any]], float]] = []
    codes = subject.encode([clip])[0]
    actions += [
        ("encode, real-time factor", "", lambda: subject.encode([clip]), 10.0),
        ("decode, real-time factor", "", lambda: subject.decode(codes, seed=context.seed), 10.0),
    ]
    spoken = subject.speak(TEXT, language="en", voice=None, seed=context.seed)
    spoken_s = spoken.shape[-1] / SAMPLE_RATE
    actions += [
        ("speak, real-time factor", "<= 0.6",
         lambda: subject.speak(TEXT, language="en", voice=None, seed=context.seed), math.nan),
        ("transcribe, real-time factor", "<= 0.2",
         lambda: subject.transcribe([spoken], language="en", seed=context.seed), spoken_s),
        ("caption, real-time factor", "", lambda: subject.caption([clip], seed=context.seed), 10.0),
    ]  # fmt: skip
    for name, target, action, audio_s in context.track(actions, "timing"):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            result = action()
            seconds = time.perf_counter() - start
            length = result.shape[-1] / SAMPLE_RATE if isinstance(result, Tensor) else audio_s
            times.append(seconds / (audio_s if math.isfinite(audio_s) else length))
            items.append({"action": name, "seconds": seconds, "audio_s": length})
        figures.append(Figure(name, statistics.median(times), min(times), max(times), REPEATS, target=target))
    context.notes.append(
        f"torch used {torch.get_num_threads()} threads; intervals are fastest and slowest of {REPEATS}."
    )
    return figures, items


def _load(context: Context) -> Figure:
    """Time of a fresh process to import the package and load the model."""
    times = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, str(context.source or ""), context.device], capture_output=True, text=True
        )
        if done.returncode != 0:
            context.notes.append(f"loading in a fresh process failed: {done.stderr.strip().splitlines()[-1:]}")
            return Figure("load, imports included", math.nan, unit="s", target="<= 3 s")
        times.append(float(done.stdout.split()[-1]))
    return Figure("load, imports included", statistics.median(times), min(times), max(times), REPEATS, "s",
                  target="<= 3 s")  # fmt: skip


def _signal(seconds: float) -> Tensor:
    """Pulses of a changing pitch in noise, so that nothing is silent."""
    generator = torch.Generator().manual_seed(0)
    time_s = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * math.pi * (120 * time_s + 20 * torch.sin(2 * math.pi * 0.5 * time_s))
    voice = sum(torch.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * torch.sin(2 * math.pi * 3 * time_s))
    return (0.1 * torch.as_tensor(voice) + 0.01 * torch.randn(len(time_s), generator=generator))[None].float()
