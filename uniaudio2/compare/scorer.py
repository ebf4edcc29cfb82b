"""What is the same for every system: where its outputs go, who judges them, and how its work is timed."""

from __future__ import annotations

import math
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniaudio2.audio import read_audio, write_audio
from uniaudio2.eval.caption_metrics import Cider
from uniaudio2.eval.context import Clip
from uniaudio2.eval.judges import Score

Record = dict[str, Any]
"""What is kept of a clip: numbers and texts by name."""


@dataclass
class Scorer:
    """What scores all systems.

    Attributes:
        place: Folder for what the systems make.
        clips: All clips that are compared on.
        seed: Of every random choice.
        normaliser: Of texts.
        judges: Further judges by name.
    """

    place: Path
    clips: tuple[Clip, ...] = ()
    seed: int = 0
    normaliser: str = "whisper"
    judges: Mapping[str, Score] = field(default_factory=dict)

    def keep(self, wave: Tensor, rate: int, label: str, clip: Clip) -> tuple[Tensor, str]:
        """A waveform as it is after being written as a 16-bit file, at 24 kHz, and the file's name in the report."""
        name = f"audio/{file_name(label)}/{file_name(clip.example.id)}.wav"
        write_audio(self.place / name, wave, rate)
        return read_audio(self.place / name), name

    def judged(self, wave: Tensor, clip: Clip, like: Tensor | None = None) -> Record:
        """What the further judges say of a waveform, which should sound like another one where that is given."""
        return {key: value for judge in self.judges.values() for key, value in judge(wave, clip, like).items()}

    @cached_property
    def cider(self) -> Cider:
        """CIDEr-D over the captions of all clips."""
        return Cider([captions_of(clip) for clip in self.clips])


def captions_of(clip: Clip) -> tuple[str, ...]:
    """The right captions of a clip, each once."""
    own = clip.example
    return tuple(dict.fromkeys((*([own.caption] if own.caption else []), *own.captions)))


def file_name(text: str) -> str:
    """A text as a file name; of long texts, which may begin alike, with a checksum."""
    name = re.sub(r"[^\w.-]+", "_", text)
    return name if len(name) <= 120 else f"{name[:111]}-{zlib.crc32(text.encode()):08x}"


class _Clock:
    seconds: float = math.nan
    cpu_s: float = math.nan


@contextmanager
def timed() -> Iterator[_Clock]:
    """Seconds of a block, and those that the cores of this process worked on it."""
    clock = _Clock()
    start, worked = time.perf_counter(), time.process_time()
    yield clock
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock.seconds, clock.cpu_s = time.perf_counter() - start, time.process_time() - worked
