"""Pages to listen to: ``page``, and ``demo``, its short form."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uniaudio2.batch import check_output_folder
from uniaudio2.cli.options import MODEL_OPTIONS, Options, count, takes
from uniaudio2.cli.output import BatchError, command_line, emit, say

if TYPE_CHECKING:
    from rich.table import Table

    from uniaudio2.page import Site


@click.command()
@click.option(
    "--out", "-o", type=Path, default=Path("site"), show_default=True, metavar="DIR",
    help="Folder of the page; what is finished in it is kept.",
)  # fmt: skip
@click.option(
    "--data", "manifests", type=Path, multiple=True, metavar="MANIFEST",
    help="Show held-out examples of this manifest too; repeat.",
)  # fmt: skip
@click.option("--data-root", type=Path, metavar="DIR", help="Where the sets lie; seed_demo has the reference page's.")
@click.option("--sections", metavar="A,B,…", help="Only these.  [default: all; 'list' shows them]")
@click.option(
    "--limit", type=count(), default=3, show_default=True, metavar="N",
    help="Items of a section beside those of the reference page.",
)  # fmt: skip
@click.option("--untrained", is_flag=True, help="Also make what the model was not trained for.")
@click.option("--single-file", is_flag=True, help="Put all sounds, as mp3, and pictures into index.html.")
@takes("overwrite", *MODEL_OPTIONS)
def page(
    out: Path,
    manifests: tuple[Path, ...],
    data_root: Path | None,
    sections: str | None,
    limit: int,
    untrained: bool,
    single_file: bool,
    *,
    options: Options,
) -> None:
    """Write a page of everything that a model does.

    It has the sections of UniAudio 2.0's demo page in their order, then ours: what was given, what the model made, what
    is right, and what other systems made where their files are at hand. Without data it shows the recordings and texts
    in the package. The same command goes on where it was stopped.
    """
    from uniaudio2.page import SECTIONS, Plan, build_page, choose_items, find_sections, model_identity
    from uniaudio2.storage.folder import open_folder

    if sections == "list":
        for section in SECTIONS:
            print("\t".join([section.name, section.row or "codes", section.title[0]]))
        return
    names = [name.strip() for name in (sections or "").split(",") if name.strip()]
    chosen = find_sections(names)
    check_output_folder(out)
    items = choose_items(chosen, data_root=data_root, manifests=manifests, limit=limit)
    model = open_folder(options.model)
    plan = Plan(
        chosen, items, out, options.model, dict(options.sampling), not model.has("lm"), untrained, single_file,
        identity=model_identity(model.path), fresh=options.overwrite, command=command_line(),
        again=_again(manifests, data_root, limit, untrained, options),
    )  # fmt: skip
    with _progress() as progress:
        site = build_page(options.load, plan, facts=options.facts, progress=progress, complain=say)
    if not options.as_json:
        missing = sum(not shown.records for shown in site.shown)
        print(f"{len(site.items)} items in {len(site.shown)} sections, {missing} of them without items")
    _finish(site, options)


@click.command()
@click.option(
    "--out", "-o", type=Path, default=Path("demo"), show_default=True, metavar="DIR",
    help="Folder for sounds, pictures and the page.",
)  # fmt: skip
@takes(*MODEL_OPTIONS)
def demo(out: Path, *, options: Options) -> None:
    """Write a page to listen to.

    The model runs on the recordings in the package; the page has sounds and pictures.
    """
    check_output_folder(out)
    from rich.console import Console

    from uniaudio2.page import run_demo

    with _progress() as progress:
        site = run_demo(options.load, out, sampling=dict(options.sampling), progress=progress, complain=say)
    if not options.as_json:
        Console(width=None if sys.stdout.isatty() else 110).print(_table(site))
    _finish(site, options)


def _finish(site: "Site", options: Options) -> None:
    """What was made, and where; exit code 1 if something failed."""
    if options.as_json:
        for record in site.to_dicts():
            emit(record)
    else:
        print(f"{site.summary}\nopen {site.page.resolve().as_uri()}")
    if site.failed:
        say(f"{len(site.failed)} of {len(site.items)} items failed")
        raise BatchError


def _again(manifests: tuple[Path, ...], data_root: Path | None, limit: int, untrained: bool, options: Options) -> str:
    """The command without a choice of sections and without a folder."""
    words = ["uniaudio2", "page"]
    given = {"model": options.model, "data-root": data_root, "limit": None if limit == 3 else limit}
    given |= {name: value for name, value in options.sampling.items() if value not in (None, 0)}
    for name, value in given.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    words += [word for manifest in manifests for word in ("--data", str(manifest))]
    return shlex.join([*words, *(["--untrained"] if untrained else [])])


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being made, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("start", total=None)
        yield lambda line: bar.update(task, description=line)


def _table(site: "Site") -> "Table":
    """What was expected and what came, as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"uniaudio2 demo, model {site.model_name}", title_justify="left", row_styles=["", "dim"])
    table.add_column("item", no_wrap=True)
    for name in ("expected", "got"):
        table.add_column(name, overflow="fold")
    for name in ("", "time s", "audio s", "rtf"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in site.items:
        mark = {True: Text("✓", "green"), False: Text("✗", "red"), None: Text("")}[item.right]
        figures = (f"{item.time_s:.2f}", f"{item.audio_s:.2f}", f"{item.real_time_factor:.2f}")
        table.add_row(item.name, Text(item.expected), Text(item.error or item.got), mark, *figures)
    return table
