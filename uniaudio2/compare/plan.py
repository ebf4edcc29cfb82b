"""Several comparisons from one file, and one table of them all: a column for each system, rows for each part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.compare.cells import figure, heads_of
from uniaudio2.compare.data import clips_of
from uniaudio2.compare.run import Comparison, compare
from uniaudio2.compare.scorer import file_name
from uniaudio2.compare.summary import Group, failures, groups
from uniaudio2.compare.tasks import TASKS
from uniaudio2.compare.write import write_all
from uniaudio2.config import ConfigError, load_config, preset_path
from uniaudio2.eval.results import table as markdown_table
from uniaudio2.files import write_text
from uniaudio2.systems.registry import parse_systems


@dataclass(frozen=True)
class Part:
    """One comparison; see `uniaudio2.compare.run.compare` and `uniaudio2.compare.data.clips_of`."""

    task: str
    systems: list[str]  # words such as encodec@kbps=3
    data: str
    split: str | None = None
    limit: int | None = None
    unseen_speakers: bool = False
    judges: list[str] | None = None
    normaliser: str = "whisper"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"no comparison of {self.task!r}; there are {', '.join(TASKS)}")


@dataclass(frozen=True)
class Plan:
    """Comparisons by name."""

    parts: dict[str, Part]
    title: str = "Comparison"


@dataclass(frozen=True)
class Done:
    """A part that was run."""

    name: str
    comparison: Comparison
    tables: Sequence[Group]


def load_plan(name: str) -> Plan:
    """A plan by the name of a preset, or the path of a YAML file.

    Raises:
        ConfigError: If there is none, or it cannot be used; also if a system of it is unknown.
    """
    plan = load_config(Plan, preset_path("compare", name))
    if not plan.parts:
        raise ConfigError(f"{name}: no parts to compare")
    for part in plan.parts.values():
        parse_systems(",".join(part.systems))
    return plan


def run_plan(
    plan: Plan,
    place: Path,
    *,
    root: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> list[Done]:
    """Run all parts, each into a folder of its name, and write ``report.md`` with one table of them.

    Args:
        plan: What to run.
        place: Folder of the reports.
        root: Folder with the data sets; None looks in the usual places.
        seed: Of every random choice.
        limit: Most clips of each part; None takes the plan's.
        say: Told what goes on.
        options: As for `compare`.

    Raises:
        UserError: If data of a part are not there; before anything is run.
    """
    clips = {
        name: clips_of(part.data, root, split=part.split, limit=limit or part.limit, seed=seed,
                       unseen_speakers=part.unseen_speakers)
        for name, part in plan.parts.items()
    }  # fmt: skip
    done: list[Done] = []
    for name, part in plan.parts.items():
        say(f"{name}: {part.task} on {len(clips[name])} clips of {part.data}")
        found = compare(
            part.task, parse_systems(",".join(part.systems)), clips[name], place / file_name(name), data=part.data,
            seed=seed, normaliser=part.normaliser, judges=part.judges, say=say, **options,
        )  # fmt: skip
        tables = groups(found)
        write_all(found, tables, place / file_name(name))
        done.append(Done(name, found, tables))
    write_text(place / "report.md", one_page(plan, done))
    return done


def one_table(done: Sequence[Done], *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: a column for each system by its label, the figures of every part one below another."""
    labels = list(dict.fromkeys(row.spec.label for part in done for row in part.comparison.rows))
    rows = []
    for part in done:
        for group in part.tables:
            name = part.name if len(part.tables) == 1 else f"{part.name} {group.name}"
            for metric, head in zip(group.metrics, heads_of(group), strict=True):
                own = [group.cells.get(label, {}).get(metric.key) for label in labels]
                rows.append([f"{name}: {head}", *(figure(cell, interval=intervals) for cell in own)])
    return ["Figure", *labels], rows


def one_page(plan: Plan, done: Sequence[Done]) -> str:
    """The table of all parts, how each came about, and where its report lies."""
    lines = [f"# {plan.title}", "", f"`{done[0].comparison.command}`", "", *markdown_table(*one_table(done)), ""]
    for part in done:
        own, clips = part.comparison, sum(len(group.clips) for group in part.tables)
        judges = f"; judges: {'; '.join(own.judges)}" if own.judges else ""
        lines.append(
            f"- {part.name}: {clips} clips of `{own.data}`{judges}. [All of it]({file_name(part.name)}/report.md)"
        )
        lines += [f"  - {note}" for note in (*own.notes, *failures(own))]
    facts: Mapping[str, str] = done[0].comparison.environment
    return "\n".join([*lines, "", ", ".join(f"{key} {value}" for key, value in facts.items()) + ".", ""])


def plan_facts(done: Sequence[Done]) -> list[dict[str, Any]]:
    """What was run, for JSON."""
    return [
        {"part": part.name, "failed": {row.spec.label: row.failures for row in part.comparison.rows},
         "figures": [
             {"system": label, "group": group.name, "metric": key, **dataclasses.asdict(cell.rate)}
             for group in part.tables for label, own in group.cells.items() for key, cell in own.items()
         ]}
        for part in done
    ]  # fmt: skip
