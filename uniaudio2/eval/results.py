"""The page of results: a folder of small JSON files, one for each evaluation, rendered as Markdown.

``uniaudio2 evaluate … --report-to FILE`` writes such a file. Written by hand or added to a file may be: ``section``
(heading of the page it belongs to; the file names' order decides the rest), ``title``, ``notes``, and for a figure
``headline`` (its line in the table at the top) and ``text`` (what to show instead of a number).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniaudio2.errors import UserError
from uniaudio2.eval.report import Figure, Report

WIDE = 4
"""Groups with the same figures, this many or more, share one table, a line for each group."""

_UNITS = {"%": 0.01, "min": 60.0}


class ResultsError(UserError):
    """A file of results that cannot be read; the message names it and what is wrong."""


@dataclass(frozen=True)
class Shown:
    """A figure of a result file, and how the page shows it.

    Attributes:
        figure: The number.
        headline: Its line in the table at the top; empty for none.
        text: Shown instead of the number.
        verdict: Whether the target is met, where that cannot be told from number and target alone.
    """

    figure: Figure
    headline: str = ""
    text: str = ""
    verdict: str = ""

    @property
    def value(self) -> str:
        """The number, or the text that stands for it."""
        return self.text or self.figure.shown

    @property
    def target(self) -> str:
        """The target with what became of it."""
        verdict = self.verdict or judge(self.figure)
        return f"{self.figure.target}: {verdict}" if verdict else self.figure.target


@dataclass(frozen=True)
class ResultFile:
    """One evaluation as the page shows it; see `Report` for what the fields mean.

    Attributes:
        title: Heading.
        section: Heading above; empty continues the section before.
        command: What to type to get it again.
        date: Day.
        machine: Processor and cores.
        model: Name of the model.
        judge: What scored it.
        speakers: Who was heard, and who of them is in training.
        notes: Remarks.
        figures: The numbers.
    """

    title: str
    command: str
    date: str
    machine: str = ""
    model: str = ""
    section: str = ""
    judge: str = ""
    speakers: str = ""
    notes: Sequence[str] = ()
    figures: Sequence[Shown] = field(default_factory=tuple)


def judge(figure: Figure) -> str:
    """ "met" or "missed" for each part of a target such as ``<= 12 %; <= 25 %``; empty where it is no comparison."""
    verdicts = []
    for part in figure.target.split(";"):
        found = re.match(r"\s*([<>]=)\s*([0-9.]+)\s*(%|min)?", part)
        if found is None or math.isnan(figure.value):
            continue
        sign, number, unit = found.groups()
        bound = float(number) * _UNITS.get(unit or "", 1.0)
        verdicts.append("met" if (figure.value <= bound if sign == "<=" else figure.value >= bound) else "missed")
    return "; ".join(verdicts if len(set(verdicts)) > 1 else verdicts[:1])


def read_result(path: Path) -> ResultFile:
    """Read one file; raises `ResultsError` if it is broken or has a field that is not known."""
    try:
        return _result(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ResultsError(f"{path}: not a file of results ({error}); write one with evaluate --report-to") from error


def from_report(report: Report) -> ResultFile:
    """A report as the page would show it."""
    return _result(report.summary())


def _result(data: dict[str, Any]) -> ResultFile:
    figures = tuple(_shown(entry) for entry in data.pop("figures"))
    return ResultFile(**data, figures=figures)


def _shown(entry: Mapping[str, Any]) -> Shown:
    own = {key: entry[key] for key in ("headline", "text", "verdict") if key in entry}
    numbers = {key: value for key, value in entry.items() if key not in own}
    return Shown(Figure(**{"value": math.nan, **numbers}), **own)


def read_results(folder: str | Path) -> list[ResultFile]:
    """All files of a folder in the order of their names; raises `ResultsError` if there are none."""
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise ResultsError(f"{folder}: no files of results; write one with evaluate --report-to {folder}/NAME.json")
    return [read_result(file) for file in files]


def page_of(folder: str | Path) -> str:
    """The page of a folder; ``intro.md`` in it, if there is one, stands at the top."""
    introduction = Path(folder) / "intro.md"
    text = introduction.read_text(encoding="utf-8") if introduction.is_file() else ""
    return render_page(read_results(folder), text)


def render_page(results: Sequence[ResultFile], introduction: str = "") -> str:
    """The whole page: the headlines, then every file under its section."""
    lines = ["# Results", "", *([introduction.strip(), ""] if introduction else [])]
    headlines = render_headlines(results)
    if headlines:
        lines += ["## At a glance", "", *headlines, ""]
    for one in results:
        if one.section:
            lines += [f"## {one.section}", ""]
        lines += [*render_result(one), ""]
    return "\n".join(lines).rstrip() + "\n"


def render_headlines(results: Iterable[ResultFile]) -> list[str]:
    """The table at the top: one line for each figure that has a headline."""
    rows = [(s.headline, s.value, s.figure.interval) for one in results for s in one.figures if s.headline]
    return table(("What", "Figure", "95 % interval"), rows) if rows else []


def render_result(one: ResultFile) -> list[str]:
    """One evaluation: heading, how it was measured, its tables, its notes."""
    facts = [f"`{one.command}`", one.date, one.machine]
    judges = [f"Judge: {one.judge}."] if one.judge else []
    speakers = [f"Speakers: {one.speakers}."] if one.speakers else []
    lines = [f"### {one.title}", "", ", ".join(filter(None, facts)) + ". " + " ".join(judges + speakers), ""]
    groups: dict[str, list[Shown]] = {}
    for shown in one.figures:
        groups.setdefault(shown.figure.group, []).append(shown)
    columns = {group: tuple(s.figure.name for s in own) for group, own in groups.items()}
    wide = {group: names for group, names in columns.items() if group and len(names) >= WIDE}
    rows = [
        (_name(s.figure), s.value, s.figure.interval, s.figure.counted, s.target)
        for s in one.figures
        if s.figure.group not in wide or s.target
    ]
    if rows:
        lines += [*table(("Figure", "Value", "95 % interval", "n", "Target"), rows), ""]
    for names in dict.fromkeys(wide.values()):
        same = {group: groups[group] for group, own in wide.items() if own == names}
        lines += [*_wide_table(names, same), ""]
    return lines[:-1] + [f"\n{note}" for note in one.notes]


def _name(figure: Figure) -> str:
    judged = f" ({figure.judge})" if figure.judge else ""
    return f"{figure.name}, {figure.group}{judged}" if figure.group else figure.name + judged


def _wide_table(names: Sequence[str], groups: Mapping[str, Sequence[Shown]]) -> list[str]:
    units = {s.figure.name: s.figure.unit for own in groups.values() for s in own}
    heads = [f"{name}, {units[name]}" if units[name] else name for name in names]
    rows = [
        (name, max(own, key=lambda s: s.figure.count).figure.counted, *map(_cell, own)) for name, own in groups.items()
    ]
    return table(("Group", "n", *heads), rows)


def _cell(shown: Shown) -> str:
    """A figure and its interval in little space, without its unit."""
    figure = shown.figure
    plain = dataclasses.replace(figure, unit="%" if figure.unit == "%" else "")
    if shown.text or math.isnan(figure.value):
        return shown.text or "–"
    return f"{plain.shown} [{plain.interval.replace(' to ', ', ')}]" if plain.interval else plain.shown


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    cells = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells]
