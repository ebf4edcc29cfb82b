"""What a page can show: sounds and texts that a model is given, and what should come of them. No model code here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, read_audio


@dataclass(frozen=True)
class Layer:
    """A stretch of an audio file in a sound."""

    path: Path
    start_s: float = 0.0  # where it starts in the file
    duration_s: float | None = None  # None: to the end of the file
    at_s: float = 0.0  # where it starts in the sound
    gain_db: float = 0.0
    as_is: bool = False  # samples above full scale are kept until they are written, and limited then

    def read(self) -> Tensor:
        """The waveform (1, N) at 24 kHz, silence in front of it.

        Raises:
            AudioError: If the file cannot be read.
        """
        if self.as_is:
            from uniaudio2.eval.reconstruction import read_unlimited

            audio = read_unlimited(self.path)
        else:
            audio = read_audio(self.path, SAMPLE_RATE, self.start_s, self.duration_s)
        return torch.nn.functional.pad(audio * 10 ** (self.gain_db / 20), (round(self.at_s * SAMPLE_RATE), 0))


@dataclass(frozen=True)
class Sound:
    """A file, a stretch of one, or several laid over each other."""

    layers: tuple[Layer, ...]

    @classmethod
    def of(
        cls, path: str | Path, start_s: float = 0.0, duration_s: float | None = None, *, as_is: bool = False
    ) -> Sound:
        """A file or a stretch of it; arguments as for `Layer`."""
        return cls((Layer(Path(path), start_s, duration_s, as_is=as_is),))

    def moved(self, at_s: float = 0.0, gain_db: float = 0.0) -> Sound:
        """Later by so many seconds, and louder by so many decibels."""
        own = (replace(one, at_s=one.at_s + at_s, gain_db=one.gain_db + gain_db) for one in self.layers)
        return Sound(tuple(own))

    def __add__(self, other: Sound) -> Sound:
        return Sound((*self.layers, *other.layers))

    def read(self) -> Tensor:
        """The waveform (1, N) at 24 kHz, as long as its longest layer.

        Raises:
            AudioError: If a file cannot be read.
        """
        waves = [layer.read() for layer in self.layers]
        longest = max(wave.shape[-1] for wave in waves)
        padded = [torch.nn.functional.pad(wave, (0, longest - wave.shape[-1])) for wave in waves]
        return torch.stack(padded).sum(0)

    def identity(self) -> list[Any]:
        """Plain values that differ where the sound may: its layers, and the files' sizes and times."""
        own: list[Any] = []
        for layer in self.layers:
            stat = layer.path.stat() if layer.path.exists() else None
            size = [stat.st_size, stat.st_mtime_ns] if stat is not None else []
            own.append([str(layer.path), layer.start_s, layer.duration_s, layer.at_s, layer.gain_db, *size])
        return own


Value: TypeAlias = "str | Sound"
Values: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True)
class Item:
    """One thing to do in a section.

    Attributes:
        id: Unique in its section.
        given: Inputs of the section's row by name.
        truth: Right outputs by name, where they are known.
        peers: What other systems made, by system.
        shots: Examples of the task that come first: inputs and outputs.
        says: What is to be said in an output, by its name.
        language: Told to the model.
        draw: Added to the seed.
        note: Whose recordings these are.
        speech: Whether its sounds are speech, which some figures are about.
        private: Whether the recordings may be listened to but not passed on.
    """

    id: str
    given: Values = field(default_factory=dict)
    truth: Values = field(default_factory=dict)
    peers: Values = field(default_factory=dict)
    shots: tuple[tuple[Values, Values], ...] = ()
    says: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    draw: int = 0
    note: str = ""
    speech: bool = True
    private: bool = False

    @property
    def file_name(self) -> str:
        """The id as a part of file names."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.id).strip("-")[-80:]

    def identity(self) -> list[Any]:
        """Plain values that differ where something else would be made or shown."""

        def plain(values: Values) -> dict[str, Any]:
            """Values by name."""
            return {name: one.identity() if isinstance(one, Sound) else one for name, one in values.items()}

        sides = [[plain(given), plain(made)] for given, made in self.shots]
        own = [plain(self.given), plain(self.truth), plain(self.peers), sides, dict(self.says)]
        return [self.id, *own, self.language, self.draw, self.note, self.speech, self.private]
