"""Values of a comparison as text: cells of tables, for every form of the report."""

from __future__ import annotations

import math
from collections.abc import Callable

from uniaudio2.compare.run import Comparison
from uniaudio2.compare.summary import Cell, Group


def system_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Label, title, version, licence, load time and peak memory of each system, with the heads first."""
    rows: list[tuple[str, ...]] = [("System", "What", "Version", "Licence of the weights", "Load, s", "Peak memory")]
    for row in comparison.rows:
        memory = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in row.peak_bytes.items())
        load = "" if row.load_s is None else f"{row.load_s:.1f}"
        rows.append((row.spec.label, row.card.title, row.version, row.card.licence, load, memory))
    return rows


def figure(cell: Cell | None, *, interval: bool = True) -> str:
    """A value with its interval."""
    if cell is None:
        return "–"
    text = number(cell.rate.value, cell.metric.unit)
    if interval and cell.rate.count > 1 and cell.metric.better:
        text += f" [{number(cell.rate.low, cell.metric.unit)}, {number(cell.rate.high, cell.metric.unit)}]"
    return text


def difference(cell: Cell | None) -> str:
    """A difference with its interval; a star where the interval leaves zero out."""
    if cell is None or cell.difference is None:
        return "–"
    value, low, high = (
        number(part, cell.metric.unit) for part in (cell.difference.value, cell.difference.low, cell.difference.high)
    )
    sign = "+" if cell.difference.value > 0 else ""
    return f"{sign}{value} [{low}, {high}]{' *' if cell.differs else ''}"


def number(value: float, unit: str) -> str:
    """A value in the digits that it is worth."""
    if math.isnan(value):
        return "–"
    if unit == "%":
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def heads_of(table: Group) -> list[str]:
    """Heads of a table's columns, with units and what is better."""
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    return [f"{m.title}{f', {m.unit}' if m.unit else ''}{arrows[m.better]}" for m in table.metrics]


def tables_of(
    comparison: Comparison, table: Group, show: Callable[[Cell | None], str], *, first: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a table."""
    labels = [row.spec.label for row in comparison.rows][0 if first else 1 :]
    rows = []
    for label in labels:
        own = table.cells[label]
        count = max((cell.rate.count for cell in own.values()), default=0)
        rows.append([label, str(count), *(show(own.get(metric.key)) for metric in table.metrics)])
    return ["System", "n", *heads_of(table)], rows
