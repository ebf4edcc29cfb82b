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


@click.command()
@click.argument("task")
@click.option(
    "--systems",
    metavar="A,B,…",
    help="Names of the list, with settings as in encodec@kbps=3; a Python file; or a YAML file.",
)
@click.option(
    "--data",
    metavar="NAME",
    help="A manifest, a set's name, a data set as NAME=FOLDER, or sentences=LANGUAGE; several with + between.",
)
@click.option("--data-root", type=Path, metavar="DIR", help="Where the sets lie.")
@click.option("--split", metavar="NAME", help="Part of the data.  [default: test or dev, else all]")
@click.option("--limit", type=count(), metavar="N", help="Compare only so many clips, drawn by the seed.")
@click.option("--unseen-speakers", is_flag=True, help="Only speakers who are not in the train part of their set.")
@click.option(
    "--judges",
    metavar="A,B,…",
    help="Further judges: whisper, dnsmos, similarity, classifier, fad.  [default: by task]",
)
@click.option("--normaliser", default="whisper", show_default=True, help="How texts are normalised: simple or whisper.")
@click.option("--table", metavar="NAME", help="Which table 'paper' measures.  [default: list them]")
@click.option("--config", metavar="NAME", help="What 'all' compares: the name of a preset, or a YAML file.")
@click.option("--download", is_flag=True, help="Fetch weights that are not here yet.")
@click.option("--out", "-o", type=Path, metavar="DIR", help="Folder of the report; a comparison in it goes on.")
@takes("device", "seed", "as_json")
def compare(
    task: str, table: str | None, judges: str | None, config: str | None, out: Path | None, *, options: Options,
    **given: Any,
) -> None:  # fmt: skip
    """Compare systems on the same clips.

    TASK is codecs, asr, tts, clone, caption, answer or tta, which need --systems, --data and -o, such as

    uniaudio2 compare asr --systems ours,whisper --data my/manifest.jsonl -o report/

    The first system is what the others are compared with. Finished clips are kept: the same command goes on where it
    was stopped. 'all' in place of TASK runs several comparisons of a --config into one table. 'list' shows the
    systems, 'data' the data sets that are known by name, 'paper' published figures, which --table measures here.
    """
    from uniaudio2.compare import TASKS

    chosen = None if judges is None else [name.strip() for name in judges.split(",") if name.strip()]
    if task in ("list", "data"):
        (_list_systems if task == "list" else _list_data)(options.as_json)
    elif task == "all":
        _all(config, out, options, judges=chosen, **given)
    elif task == "paper":
        _paper(table, out, options, judges=chosen, **given)
    elif task in TASKS:
        _compare(task, out, options, judges=chosen, **given)
    else:
        raise UserError(f"no comparison of {task!r}; there are {', '.join(TASKS)}, all, list, data and paper")


def _compare(
    task: str, out: Path | None, options: Options, *, systems: str | None, data: str | None, data_root: Path | None,
    split: str | None, limit: int | None, unseen_speakers: bool, **given: Any,
) -> None:  # fmt: skip
    """One comparison, written and shown."""
    from uniaudio2.compare import compare as run
    from uniaudio2.compare.data import clips_of
    from uniaudio2.compare.summary import groups
    from uniaudio2.compare.write import write_all
    from uniaudio2.systems import parse_systems

    if systems is None or data is None or out is None:
        lacking = next(name for name, value in (("--systems", systems), ("--data", data), ("-o", out)) if value is None)
        raise UserError(f"compare {task} needs {lacking}")
    specs = parse_systems(systems)
    clips = clips_of(data, data_root, split=split, limit=limit, seed=options.seed, unseen_speakers=unseen_speakers)
    comparison = run(
        task, specs, clips, out, data=data, seed=options.seed, device=str(options.place), command=command_line(),
        say=say, **given,
    )  # fmt: skip
    tables = groups(comparison)
    files = write_all(comparison, tables, out)
    if options.as_json:
        emit({"files": [str(file) for file in files], "failed": {r.spec.label: r.failures for r in comparison.rows}})
    else:
        _show(comparison, tables)
        say(f"written: {', '.join(str(file) for file in files)}")
    if any(row.failures for row in comparison.rows):
        raise BatchError


def _all(
    config: str | None, out: Path | None, options: Options, *, data_root: Path | None, limit: int | None,
    download: bool, **other: Any,
) -> None:  # fmt: skip
    """The comparisons of a plan, in one table."""
    from uniaudio2.compare.plan import load_plan, one_table, plan_facts, run_plan
    from uniaudio2.compare.summary import failures

    if config is None or out is None:
        raise UserError(f"compare all needs {'--config' if config is None else '-o'}")
    named = [f"--{name.replace('_', '-')}" for name in ("systems", "data", "split", "judges", "unseen_speakers")
             if other[name]]  # fmt: skip
    if named:
        raise UserError(f"compare all takes what it compares from --config, not from {', '.join(named)}")
    done = run_plan(
        load_plan(config), out, root=data_root, seed=options.seed, limit=limit, device=str(options.place),
        download=download, command=command_line(), say=say,
    )  # fmt: skip
    if options.as_json:
        emit({"parts": plan_facts(done)})
    else:
        _print_table("", *one_table(done, intervals=False))
        for part in done:
            for note in (*part.comparison.notes, *failures(part.comparison)):
                print(f"{part.name}: {note}")
        say(f"written: {out / 'report.md'}")
    if any(row.failures for part in done for row in part.comparison.rows):
        raise BatchError


def _print_table(title: str, heads: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _show(comparison: "Comparison", tables: "Sequence[Group]") -> None:
    from uniaudio2.compare.cells import figure, tables_of
    from uniaudio2.compare.summary import failures

    for group in tables:
        table = tables_of(comparison, group, lambda cell: figure(cell, interval=False))
        _print_table(f"{group.name}, {len(group.clips)} clips", *table)
    for note in (*comparison.notes, *failures(comparison)):
        print(note)


def _paper(
    table: str | None, out: Path | None, options: Options, *, data_root: Path | None, data: str | None,
    split: str | None, unseen_speakers: bool, **given: Any,
) -> None:  # fmt: skip
    """Published figures; those of a table with what is measured here."""
    from uniaudio2.compare.paper import listing, run_table
    from uniaudio2.data.sources import find_data_root

    if table is None:
        print(listing())
        return
    if out is None:
        raise UserError("compare paper --table needs -o")
    if data is not None or split is not None or unseen_speakers:
        raise UserError("compare paper --table takes the data that its figures need from --data-root")
    root = find_data_root(data_root)
    print(run_table(table, out, root=root, seed=options.seed, say=say, device=str(options.place),
                    command=command_line(), **given))  # fmt: skip


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
