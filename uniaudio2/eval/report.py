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
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 1
    unit: str = ""
    group: str = ""
    target: str = ""

    @classmethod
    def of(cls, name: str, rate: Rate, *, unit: str = "", group: str = "", target: str = "") -> Figure:
        """A figure from a rate and its interval."""
        return cls(name, rate.value, rate.low, rate.high, rate.count, unit, group, target)

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
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)
        with replacing(path) as file:
            file.write(f"{text}\n".encode())

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Lines of a table: figure, group, value, 95 % interval, count, target."""
        return [(f.name, f.group, f.shown, f.interval, str(f.count), f.target) for f in self.figures]

    def markdown(self) -> str:
        """Text for ``docs/RESULTS.md``: rows (command, date, machine, figure, interval, target), then wide tables.

        Groups with the same four figures or more go to a wide table, one line for each group.
        """
        names: dict[str, list[str]] = {}
        for f in self.figures:
            names.setdefault(f.group, []).append(f.name)
        wide = {group for group, own in names.items() if len(own) >= 4 and group}
        machine, day = self.environment.get("machine", ""), self.date.split(" ")[0]
        command = self.command.replace(" --markdown", "")
        lines = []
        for f in self.figures:
            if f.group in wide and not f.target:
                continue
            name = f"{f.name}, {f.group}" if f.group else f.name
            figure = f"{name}: **{f.shown}** (n={f.count})"
            lines.append(f"| `{command}` | {day} | {machine} | {figure} | {f.interval} | {f.target} |")
        for columns in dict.fromkeys(tuple(own) for group, own in names.items() if group in wide):
            units = {f.name: f.unit for f in self.figures}
            heads = [f"{name} ({units[name]})" if units[name] else name for name in columns]
            lines += ["", f"`{command}`, {day}, {machine}; in brackets the 95 % interval", ""]
            lines += ["| group | n | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(columns)]
            for group in [group for group, own in names.items() if tuple(own) == columns and group in wide]:
                own = [f for f in self.figures if f.group == group]
                cells = [_cell(f) for f in own]
                lines.append(f"| {group} | {max(f.count for f in own)} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def _cell(figure: Figure) -> str:
    """A figure and its interval in little space."""
    if math.isnan(figure.value):
        return "–"
    plain = [_shown(x, "%" if figure.unit == "%" else "") for x in (figure.value, figure.low, figure.high)]
    return plain[0] if math.isnan(figure.low) else f"{plain[0]} [{plain[1]}, {plain[2]}]"


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
