"""Records of clips to figures: intervals of every system, and of its difference to the first one on the same clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniaudio2.compare.run import Comparison, Pool, Row
from uniaudio2.compare.scorer import Record
from uniaudio2.eval.context import Clip
from uniaudio2.eval.frechet import distances
from uniaudio2.eval.judges import Metric
from uniaudio2.eval.report import Figure, Report
from uniaudio2.eval.text_metrics import Rate, mean, ratio


@dataclass(frozen=True)
class Cell:
    """A system's figure.

    Attributes:
        metric: What was measured.
        rate: Value and 95 % interval.
        difference: To the first system, over the clips that both served; None for the first one and where the two have
            nothing to be compared by.
    """

    metric: Metric
    rate: Rate
    difference: Rate | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference leaves zero out."""
        return self.difference is not None and not self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Group:
    """A part of the data with a table of its own: a kind of audio, or a language."""

    name: str
    clips: Sequence[Clip]
    metrics: Sequence[Metric]
    cells: Mapping[str, Mapping[str, Cell]]  # label of a system -> key of a metric -> figure


def groups(comparison: Comparison) -> list[Group]:
    """The tables of a comparison."""
    by_name: dict[str, list[Clip]] = {}
    for clip in comparison.clips:
        own = clip.example.language if comparison.task.by_language else clip.example.kind
        by_name.setdefault(own or "unknown language", []).append(clip)
    return [_group(comparison, name, clips) for name, clips in by_name.items()]


def _group(comparison: Comparison, name: str, clips: Sequence[Clip]) -> Group:
    first = comparison.rows[0]
    cells: dict[str, dict[str, Cell]] = {}
    for row in comparison.rows:
        cells[row.spec.label] = {}
        for metric in comparison.task.metrics:
            rate = _rate(row, metric, clips, comparison.seed)
            if math.isfinite(rate.value):
                paired = None if row is first else _paired(row, first, metric, clips, comparison.seed)
                cells[row.spec.label][metric.key] = Cell(metric, rate, paired)
        for pool in comparison.pools:
            cell = _whole(pool, row, first, clips, comparison.seed)
            cells[row.spec.label] |= {} if cell is None else {pool.metric.key: cell}
    used = [metric for metric in comparison.task.metrics if any(metric.key in own for own in cells.values())]
    return Group(name, clips, used, cells)


def _parts(record: Record | None, metric: Metric) -> tuple[float, float]:
    """Numerator and denominator of a clip, NaN where it has none."""
    if record is None or record.get(metric.key) is None:
        return math.nan, math.nan
    below = record.get(metric.per) if metric.per else 1.0
    return float(record[metric.key]), math.nan if below is None else float(below)


def _rate(row: Row, metric: Metric, clips: Sequence[Clip], seed: int) -> Rate:
    pairs = [(*_parts(row.records.get(clip.example.id), metric), clip.cluster) for clip in clips]
    kept = [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]
    clusters = [cluster for _, _, cluster in kept]
    if not metric.per:
        return mean([above for above, _, _ in kept], clusters=clusters, seed=seed)
    return ratio([above for above, _, _ in kept], [below for _, below, _ in kept], clusters=clusters, seed=seed)


def _paired(row: Row, first: Row, metric: Metric, clips: Sequence[Clip], seed: int) -> Rate | None:
    """The mean (or pooled) difference over clips that both served; None where the denominators are not the same."""
    if not metric.better:
        return None
    above, below, clusters = [], [], []
    for clip in clips:
        own, base = (_parts(one.records.get(clip.example.id), metric) for one in (row, first))
        if not all(map(math.isfinite, (*own, *base))):
            continue
        if own[1] != base[1]:
            return None
        above.append(own[0] - base[0])
        below.append(own[1])
        clusters.append(clip.cluster)
    return ratio(above, below, clusters=clusters, seed=seed) if above else None


def _whole(pool: Pool, row: Row, first: Row, clips: Sequence[Clip], seed: int) -> Cell | None:
    """A figure of all clips together; None where there are fewer than two."""
    made, base = pool.made[row.spec.label], pool.made[first.spec.label]
    ids = [clip.example.id for clip in clips if clip.example.id in made]
    both = [name for name in ids if name in base]
    if len(ids) < 2:
        return None
    rate = distances([pool.real[name] for name in ids], [made[name] for name in ids], seed=seed)
    if row is first or len(both) < 2:
        return Cell(pool.metric, rate)
    sides = ([own[name] for name in both] for own in (pool.real, made, base))
    return Cell(pool.metric, rate, distances(*sides, seed=seed))


def to_report(comparison: Comparison, tables: Sequence[Group]) -> Report:
    """The figures as the rest of the package knows them."""
    figures = [
        Figure.of(cell.metric.title, cell.rate, unit=cell.metric.unit, group=f"{table.name}: {label}")
        for table in tables
        for label, own in table.cells.items()
        for cell in own.values()
    ]
    figures += [
        Figure.of(f"{cell.metric.title}, difference to {comparison.rows[0].spec.label}", cell.difference,
                  unit=cell.metric.unit, group=f"{table.name}: {label}")
        for table in tables for label, own in table.cells.items() for cell in own.values() if cell.difference
    ]  # fmt: skip
    return Report(
        task=f"compare {comparison.task.name}",
        data=comparison.data,
        model=", ".join(row.spec.label for row in comparison.rows),
        command=comparison.command,
        seed=comparison.seed,
        normaliser=comparison.normaliser if comparison.task.by_language else None,
        judge="; ".join(comparison.judges),
        figures=figures,
        items=[
            {"system": row.spec.label, "id": clip, **record}
            for row in comparison.rows
            for clip, record in row.records.items()
        ],
        notes=[*comparison.notes, *failures(comparison)],
        environment=comparison.environment,
    )


def failures(comparison: Comparison) -> list[str]:
    """A line for each system that served less than all clips."""
    lines = []
    for row in comparison.rows:
        if "" in row.failures:
            lines.append(f"{row.spec.label} failed: {row.failures['']}")
        elif row.failures:
            clip, reason = next(iter(row.failures.items()))
            some = f"{len(row.failures)} of {len(comparison.clips)} clips"
            lines.append(f"{row.spec.label} failed at {some}, such as {clip}: {reason}")
    return lines
