"""Several systems on the same clips: ``compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uniaudio2.cli.options import Options, count, takes
from uniaudio2.cli.output import BatchError, command_line, emit, say
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from uniaudio2.compare import Comparison
    from uniaudio2.compare.summary import Group
    from uniaudio2.eval.context import Clip


@click.command()
@click.argument("task")
@click.option(
    "--systems", metavar="A,B,…", help="Names, with settings as in encodec@kbps=3; a Python file; or a YAML file."
)
@click.option("--data", metavar="NAME", help="A manifest, a set's name, or a data set as NAME=FOLDER.")
@click.option("--data-root", type=Path, metavar="DIR", help="Where the sets lie.")
@click.option("--split", metavar="NAME", help="Of the data.  [default: test or dev, else all]")
@click.option("--limit", type=count(), metavar="N", help="So many clips, drawn by the seed.")
@click.option("--judges", metavar="A,B,…", help="Further judges: whisper, dnsmos.  [default: by task]")
@click.option("--normaliser", default="whisper", show_default=True, help="Of texts: simple or whisper.")
@click.option("--table", metavar="NAME", help="Of published figures, with 'paper'.  [default: list them]")
@click.option("--download", is_flag=True, help="Fetch weights that are not here yet.")
@click.option("--out", "-o", type=Path, metavar="DIR", help="Folder of the report; a comparison in it goes on.")
@takes("device", "seed", "as_json")
def compare(
    task: str,
    systems: str | None,
    data: str | None,
    data_root: Path | None,
    split: str | None,
    limit: int | None,
    judges: str | None,
    normaliser: str,
    table: str | None,
    download: bool,
    out: Path | None,
    *,
    options: Options,
) -> None:
    """Compare systems on the same clips.

    TASK is codecs, asr or tts. 'list' shows the systems, 'data' the data sets that are known by name, 'paper' published
    figures, and with --table measures them here. The first system is what the others are compared with.
    Finished clips are kept: the same command goes on where it was stopped.
    """
    if task == "list":
        _list_systems(options.as_json)
        return
    if task == "data":
        _list_data(options.as_json)
        return
    wanted = None if judges is None else [name.strip() for name in judges.split(",") if name.strip()]
    if task == "paper":
        _paper(table, systems, data_root, out, limit, options, judges=wanted, normaliser=normaliser, download=download)
        return
    from uniaudio2.compare import TASKS
    from uniaudio2.compare import compare as run
    from uniaudio2.compare.summary import groups
    from uniaudio2.compare.write import write_all
    from uniaudio2.systems import parse_systems

    if task not in TASKS:
        raise UserError(f"no comparison of {task!r}; there are {', '.join(TASKS)}, list, data and paper")
    for name, value in (("--systems", systems), ("--data", data), ("-o", out)):
        if value is None:
            raise UserError(f"compare {task} needs {name}")
    specs = parse_systems(str(systems))
    comparison = run(
        task,
        specs,
        _clips(str(data), data_root, split, limit, options.seed),
        Path(str(out)),
        data=str(data),
        seed=options.seed,
        normaliser=normaliser,
        judges=wanted,
        device=str(options.place),
        download=download,
        command=command_line(),
        say=say,
    )
    tables = groups(comparison)
    files = write_all(comparison, tables, Path(str(out)))
    if options.as_json:
        emit({"files": [str(file) for file in files], "failed": {r.spec.label: r.failures for r in comparison.rows}})
    else:
        _show(comparison, tables)
        say(f"written: {', '.join(str(file) for file in files)}")
    if any(row.failures for row in comparison.rows):
        raise BatchError


def _clips(data: str, root: Path | None, split: str | None, limit: int | None, seed: int) -> "list[Clip]":
    from uniaudio2.compare.data import clips_of

    return clips_of(data, root, split=split, limit=limit, seed=seed)


def _show(comparison: "Comparison", tables: "Sequence[Group]") -> None:
    from rich.console import Console
    from rich.table import Table

    from uniaudio2.compare.cells import figure, tables_of
    from uniaudio2.compare.summary import failures

    for group in tables:
        heads, rows = tables_of(comparison, group, lambda cell: figure(cell, interval=False))
        table = Table(title=f"{group.name}, {len(group.clips)} clips", title_justify="left")
        for head in heads:
            table.add_column(head)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    for note in (*comparison.notes, *failures(comparison)):
        print(note)


def _paper(
    table: str | None, systems: str | None, root: Path | None, out: Path | None, limit: int | None, options: Options,
    **given: Any,
) -> None:  # fmt: skip
    from uniaudio2.compare.paper import listing, run_table
    from uniaudio2.data.sources import find_data_root

    if table is None:
        print(listing())
        return
    if out is None:
        raise UserError("compare paper --table needs -o")
    found = run_table(
        table, out, root=find_data_root(root), systems=systems, limit=limit, seed=options.seed, say=say,
        device=str(options.place), command=command_line(), **given,
    )  # fmt: skip
    print(found)


def _list_data(as_json: bool) -> None:
    """Every data set that is known by name."""
    from uniaudio2.data.benchmarks import BENCHMARKS

    for name, own in BENCHMARKS.items():
        row = {"name": name, **{key: value for key, value in vars(own).items() if key != "layout"}}
        row["read"] = "its own layout" if own.layout else "manifest.jsonl"
        if as_json:
            emit(row)
        else:
            print("\t".join([name, own.title, ", ".join(own.splits), own.metric, own.licence, own.where]))


def _list_systems(as_json: bool) -> None:
    """Every system with what is known of it."""
    import dataclasses

    from uniaudio2.systems import SYSTEMS, CodecSystem, SpeechSystem

    for name in SYSTEMS:
        cls = SYSTEMS.classes(name)[1]
        tasks = ["codecs"] if issubclass(cls, CodecSystem) else []
        tasks += cls.tasks() if issubclass(cls, SpeechSystem) else []
        row = {"name": name, "tasks": tasks, **dataclasses.asdict(cls.card)}
        if as_json:
            emit(row)
        else:
            where = f"{cls.card.hub_id} ({cls.card.revision})" if cls.card.hub_id else "-"
            print("\t".join([name, ", ".join(tasks) or "any", cls.card.title, where, cls.card.licence]))
