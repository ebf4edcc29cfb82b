"""Scores: ``evaluate`` and ``results``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uniaudio2.batch import check_output_file
from uniaudio2.cli.options import DRAW_OPTIONS, PLACE_OPTIONS, Options, count, takes
from uniaudio2.cli.output import command_line, emit
from uniaudio2.files import write_text

if TYPE_CHECKING:
    from uniaudio2.eval.report import Report


@click.command()
@click.argument("task")
@click.option("--data", metavar="NAME", help="A name of the list, a set's name, or a manifest.")
@click.option("--data-root", type=Path, metavar="DIR", help="Where the sets lie.")
@click.option("--corpus", type=Path, metavar="DIR", help="Synthetic corpus.")
@click.option("--unseen-speakers", is_flag=True, help="Only speakers who are not in the train part of their set.")
@click.option("--detect-language", is_flag=True, help="Do not tell the recogniser the language of a clip.")
@click.option("--untrained", is_flag=True, help="Also score a task that the model was not trained for.")
@click.option("--shots", type=count(0), default=0, metavar="N", help="Train examples in front of each held-out one.")
@click.option("--limit", type=count(), metavar="N", help="Score only so many items.")
@click.option("--normaliser", default="simple", show_default=True, help="How texts are normalised: simple or whisper.")
@click.option("--languages", default="en,zh,yue", show_default=True, help="With commas, where there is a choice.")
@click.option("--keep", type=Path, metavar="DIR", help="Keep the audio that was scored.")
@click.option("--out", "-o", type=Path, metavar="JSON", help="Write the full report.")
@click.option("--report-to", type=Path, metavar="JSON", help="Write the figures for a page of results.")
@click.option("--markdown", is_flag=True, help="Show the figures as that page does.")
@click.option(
    "--best-of", type=count(1, 64), metavar="N",
    help="Attempts at every sentence that is spoken.  [default: as speak does]",
)  # fmt: skip
@takes("batch_size", "beams", "shifts", *PLACE_OPTIONS, *DRAW_OPTIONS, "as_json")
def evaluate(
    task: str,
    data: str | None,
    data_root: Path | None,
    languages: str,
    detect_language: bool,
    keep: Path | None,
    out: Path | None,
    report_to: Path | None,
    markdown: bool,
    best_of: int | None,
    *,
    options: Options,
    **given: Any,
) -> None:
    """Score the model.

    TASK is asr, tts, audio_caption, tta, codec, reasoning, speed or another row of the task table; 'list' shows all of
    them with the data they take. Where it says MANIFEST, --data is a manifest of your own, such as

    uniaudio2 evaluate asr --data my/manifest.jsonl

    Every figure comes with its 95 % interval, and with its target where there is one.
    """
    from uniaudio2.eval import EVALUATIONS, ON_DATA, Effort, find_evaluation
    from uniaudio2.eval import evaluate as run_evaluation

    if task == "list":
        for row in EVALUATIONS:
            print(f"{row.task}\t{row.data}\t{row.description}")
        for name, (_, judge) in ON_DATA.items():
            print(f"{name}\tMANIFEST\t{judge}")
        return
    find_evaluation(task, data, data_root)
    for file in filter(None, (out, report_to)):
        check_output_file(str(file))
    sampling: dict[str, Any] = {name: value for name, value in options.sampling.items() if name != "seed"}
    report = run_evaluation(
        task,
        data=data,
        model=None if options.model is None else Path(options.model),
        data_root=data_root,
        seed=options.seed,
        device=str(options.place),
        languages=tuple(name.strip() for name in languages.split(",") if name.strip()),
        tell_language=not detect_language,
        work=keep,
        out=out,
        progress=sys.stderr.isatty(),
        command=command_line(),
        batch_size=options.batch_size,
        effort=Effort(best_of=best_of, beams=options.beams, shifts=options.shifts),
        **given,
        **sampling,
    )
    if report_to is not None:
        report.save_summary(report_to)
    _show(report, options.as_json, markdown)


def _show(report: "Report", as_json: bool, markdown: bool) -> None:
    """A report in the form that was asked for."""
    if as_json:
        emit(report.to_dict())
    elif markdown:
        from uniaudio2.eval.results import from_report, render_result

        print("\n".join(render_result(from_report(report))))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{report.task} {report.data}, model {report.model}", title_justify="left")
        for name in ("figure", "group", "value", "95 % interval", "n", "target"):
            table.add_column(name, overflow="fold")
        for row in report.rows():
            table.add_row(*row)
        Console().print(table)
        for note in report.notes:
            print(note)


@click.command()
@click.argument("folder", type=Path)
@click.option("--output", "-o", type=Path, metavar="FILE", help="Write the page here.")
def results(folder: Path, output: Path | None) -> None:
    """Make a page of the scores in FOLDER.

    They are files that evaluate --report-to wrote; intro.md in the folder stands at the top. The page is Markdown.
    """
    from uniaudio2.eval.results import page_of

    if output is None:
        print(page_of(folder), end="")
    else:
        check_output_file(str(output))
        write_text(output, page_of(folder))
