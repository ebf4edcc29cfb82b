"""What an evaluation hands back: figures with intervals, and everything that is needed to get them again."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import uniaudio2
from uniaudio2.eval.text_metrics import Rate
from uniaudio2.files import replacing

_PACKAGES = ("numpy", "soxr", "soundfile", "jiwer", "whisper-normalizer", "pystoi", "pesq", "pocketsphinx")


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: What was measured.
        value: The figure; NaN where it is undefined.
        low: Lower end of the 95 % interval; NaN where there is none.
        high: Upper end.
        count: Utterances, clips or repetitions that it rests on.
        unit: ``"%"`` (the value is a share of 1), ``"s"``, ``"dB"`` ...; empty for plain numbers.
        group: Part of the data, voice or system it belongs to; empty for the whole.
        target: What the project wants, as text; empty where nothing was set.
        clusters: Voices or recordings that were drawn for the interval; 0 where every item was drawn by itself.
        judge: What scored it, where that differs from the report's.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 1
    unit: str = ""
    group: str = ""
    target: str = ""
    clusters: int = 0
    judge: str = ""

    @classmethod
    def of(cls, name: str, rate: Rate, *, unit: str = "", group: str = "", target: str = "", judge: str = "") -> Figure:
        """A figure from a rate and its interval."""
        return cls(name, rate.value, rate.low, rate.high, rate.count, unit, group, target, rate.clusters, judge)

    def to_json(self) -> dict[str, Any]:
        """Plain values without those that say nothing."""
        default = {field.name: field.default for field in dataclasses.fields(self)}
        own = {key: _plain(value) for key, value in vars(self).items()}
        return {key: value for key, value in own.items() if value is not None and value != default[key]}

    @property
    def counted(self) -> str:
        """What the figure rests on; in brackets the voices or recordings that were drawn for the interval."""
        return f"{self.count} ({self.clusters})" if self.clusters else "" if self.count == 1 else str(self.count)

    @property
    def shown(self) -> str:
        """The value as text, with its unit."""
        return _shown(self.value, self.unit)

    @property
    def interval(self) -> str:
        """The interval as text; empty where there is none."""
        if math.isnan(self.low) or math.isnan(self.high):
            return ""
        return f"{_shown(self.low, self.unit)} to {_shown(self.high, self.unit)}"


def _shown(value: float, unit: str) -> str:
    if math.isnan(value):
        return "undefined"
    if unit == "%":
        return f"{100 * value:.1f} %"
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f} {unit}".rstrip()


@dataclass
class Report:
    """The result of one evaluation.

    Attributes:
        task: Such as ``"asr"``.
        data: Such as ``"fsdd"``.
        model: Name of the model scored.
        command: What to type to get it again.
        seed: Seed of every random choice.
        normaliser: Text normaliser; None where no text is scored.
        judge: What scored the figures; a figure may name its own.
        speakers: Who was heard, and how many of them are in the train part of their set; empty where it is no matter.
        figures: The numbers, most important first.
        items: One dictionary for each utterance or clip, for looking into.
        notes: Remarks that belong to the figures.
        seconds: How long it took.
        date: When it was done, UTC.
        environment: Machine, versions.
    """

    task: str
    data: str
    model: str
    command: str
    seed: int
    normaliser: str | None = None
    judge: str = ""
    speakers: str = ""
    figures: list[Figure] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"))
    environment: dict[str, str] = field(default_factory=lambda: environment())

    def figure(self, name: str, group: str = "") -> Figure:
        """The figure of that name and group; raises KeyError if it was not measured."""
        for item in self.figures:
            if item.name == name and item.group == group:
                return item
        raise KeyError(f"no figure {name!r} of group {group!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undefined numbers are null."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, under a temporary name first."""
        write_json(path, self.to_dict())

    def summary(self) -> dict[str, Any]:
        """What `uniaudio2.eval.results` needs: the figures and how to get them again, without the single items."""
        kept = ("command", "model", "judge", "speakers", "notes")
        return {
            "title": f"{self.task}, {self.data}",
            "date": self.date.split(" ")[0],
            "machine": self.environment.get("machine", ""),
            **{name: value for name in kept if (value := getattr(self, name))},
            "figures": [figure.to_json() for figure in self.figures],
        }

    def save_summary(self, path: str | Path) -> None:
        """Write the summary as JSON for ``uniaudio2 results``."""
        write_json(path, self.summary())

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Lines of a table: figure, group, value, 95 % interval, count, target."""
        return [(f.name, f.group, f.shown, f.interval, f.counted, f.target) for f in self.figures]


def write_json(path: str | Path, data: dict[str, Any]) -> None:
    """Write plain values as JSON, under a temporary name first; undefined numbers become null."""
    with replacing(path) as file:
        file.write(f"{json.dumps(_plain(data), ensure_ascii=False, indent=1, allow_nan=False)}\n".encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    return str(value)


def environment() -> dict[str, str]:
    """Machine, thread count and versions that a figure depends on."""
    known = {"machine": f"{_processor()}, {os.cpu_count()} cores", "threads": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        known["gpu"] = torch.cuda.get_device_name()
    known |= {"python": platform.python_version(), "torch": torch.__version__, "uniaudio2": uniaudio2.__version__}
    for name in _PACKAGES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
