"""From audio to text: ``transcribe`` and ``caption``."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uniaudio2.api.texts import FORMATS, as_text, timed_line
from uniaudio2.batch import InputError, Item, check_output_file, collect_inputs
from uniaudio2.cli.live import check_live, transcribe_live
from uniaudio2.cli.options import FILE_OPTIONS, MODEL_OPTIONS, Options, Timed, count, takes
from uniaudio2.cli.output import Batch, emit, items_to_do, progress_bar, say
from uniaudio2.errors import is_disk_full
from uniaudio2.files import write_text
from uniaudio2.formats import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from uniaudio2.api.listen import Progress
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.api.results import Segment, TextResult
    from uniaudio2.audio import Recording

FILES_PER_ROUND = 16  # files that are transcribed or captioned together
SECONDS_PER_ROUND = 1800.0  # and how much audio, unless one file alone is longer
LIVE_S = 30.0  # recordings from this length on appear on a terminal piece by piece

files_argument = click.argument("files", nargs=-1, required=True)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Form of what is written.  [default: by the name of -o, else txt]",
)


@dataclass(frozen=True)
class _Ready:
    """One file that was opened."""

    item: Item
    target: Path | None  # of its text
    audio: "Recording"


@click.command(cls=Timed)
@files_argument
@format_option
@click.option("--live", is_flag=True, help="Print what standard input (-), a WAV file, says while it comes.")
@click.option(
    "--raw",
    type=count(1, 1_000_000),
    metavar="HZ",
    help="As --live, but standard input is bare 16-bit mono samples at this rate.",
)
@takes("timestamps", *FILE_OPTIONS, "batch_size", "beams", "shifts", "language", *MODEL_OPTIONS)
def transcribe(files: tuple[str, ...], form: str | None, live: bool, raw: int | None, *, options: Options) -> None:
    """Write down what is said.

    FILES are audio files, folders, or - for standard input. One line PATH<TAB>TEXT per file; on a terminal long
    recordings appear piece by piece.
    """
    if check_live(files, form, options.out, live, raw):
        transcribe_live(raw, options)
        return
    asked = (options.temperature, options.top_k, options.top_p) != (None, None, None)
    drawn = asked and options.temperature != 0 and options.top_k != 1
    if drawn and max(options.beams or 1, options.shifts or 1) > 1:
        raise InputError("--beams and --shifts look for the likeliest text: leave out --temperature, --top-k, --top-p")

    def call(model: "UniAudio2", audio: "list[Recording]", progress: "Progress | None") -> "list[TextResult]":
        return model.transcribe(
            audio,
            language=options.language,
            batch_size=options.batch_size,
            beams=options.beams,
            shifts=options.shifts,
            word_timestamps=options.timestamps == "words",
            progress=progress,
            **options.sampling,
        )

    _describe(files, form, options, "yue_asr" if options.language == "yue" else "asr", call)


@click.command(cls=Timed)
@files_argument
@format_option
@takes("timestamps", *FILE_OPTIONS, "batch_size", *MODEL_OPTIONS)
def caption(files: tuple[str, ...], form: str | None, *, options: Options) -> None:
    """Say in words what is heard.

    FILES are audio files, folders, or - for standard input. One line PATH<TAB>TEXT per file.
    """

    if options.timestamps == "words":
        raise InputError("--timestamps words: a caption tells what is heard, not what is said; give --timestamps alone")

    def call(model: "UniAudio2", audio: "list[Recording]", progress: "Progress | None") -> "list[TextResult]":
        return model.caption(audio, batch_size=options.batch_size, progress=progress, **options.sampling)

    _describe(files, form, options, "audio_caption", call)


_Call = Callable[["UniAudio2", "list[Recording]", "Progress | None"], "list[TextResult]"]


def _describe(inputs: Sequence[str], form: str | None, options: Options, task: str, call: _Call) -> None:
    """The common body: audio files in, one text each out."""
    if options.guidance not in (None, 1.0):
        raise InputError("--guidance acts on audio that is made, not on text: leave it out")
    batch = Batch(options.as_json)
    items = collect_inputs(inputs, AUDIO_SUFFIXES, recursive=options.recursive, log=say)
    named = options.out is not None and options.out.suffix[1:] in FORMATS and not options.out.is_dir()
    form = form or (options.out.suffix[1:] if named and options.out else "json" if options.as_json else None)
    if named and options.out is not None:
        if len(items) > 1:
            raise InputError(f"{options.out}: is one file for {len(items)} inputs; name a folder")
        check_output_file(str(options.out))
        todo: list[tuple[Item, Path | None]] = [(item, options.out) for item in batch.screen(items)]
    else:
        todo = items_to_do(items, options.out, f".{form or 'txt'}", options, batch)
    options.check_trained(task)
    if not todo:
        batch.finish()
        return
    model = options.load()
    for ready in _rounds(todo, batch):
        began = time.perf_counter()
        live = sys.stdout.isatty() and form is None and max(one.audio.duration_s for one in ready) >= LIVE_S
        done = _serve(model, ready, batch, call, live, options)
        real_time_factor = (time.perf_counter() - began) / (sum(result.duration_s for _, result, _ in done) or 1.0)
        for one, result, shown in done:
            with batch.guard(one.item.source):
                _show(one, result, form, options, shown, real_time_factor)
                batch.served += 1
    batch.finish()


def _rounds(todo: Sequence[tuple[Item, Path | None]], batch: Batch) -> Iterator[list[_Ready]]:
    """Open files in groups that work well together and whose results do not keep waiting; name those that are bad."""
    from uniaudio2.audio import open_audio

    ready: list[_Ready] = []
    for item, target in todo:
        with batch.guard(item.source):
            ready.append(_Ready(item, target, open_audio(item.source)))
        if len(ready) >= FILES_PER_ROUND or sum(one.audio.duration_s for one in ready) >= SECONDS_PER_ROUND:
            yield ready
            ready = []
    if ready:
        yield ready


def _serve(
    model: "UniAudio2", ready: Sequence[_Ready], batch: Batch, call: _Call, live: bool, options: Options
) -> "list[tuple[_Ready, TextResult, bool]]":
    """Results, and whether they were printed already, of files together.

    Where that fails they are served one after the other, so that only the bad one is lost.
    """
    try:
        with _progress(ready, live, options) as progress:
            results = call(model, [one.audio for one in ready], progress)
            return [(one, result, live) for one, result in zip(ready, results, strict=True)]
    except Exception as error:
        if isinstance(error, BrokenPipeError) or is_disk_full(error) or batch.total == 1:
            raise
    done = []
    for one in ready:
        with batch.guard(one.item.source):
            done.append((one, call(model, [one.audio], None)[0], False))
    return done


@contextlib.contextmanager
def _progress(ready: Sequence[_Ready], live: bool, options: Options) -> "Iterator[Progress | None]":
    """What is told of every finished piece: a bar where errors go to a terminal; the text where results do too."""
    total_s = sum(one.audio.duration_s for one in ready)
    if not live and not (sys.stderr.isatty() and total_s >= LIVE_S):
        yield None
        return
    done_s = 0.0
    with progress_bar("seconds") as bar:

        def finished(number: int, piece: "Segment") -> None:
            nonlocal done_s
            done_s += piece.end_s - piece.start_s
            bar(done_s, total_s)
            if live and piece.text:
                timed = piece.words if options.timestamps == "words" else [piece]
                for line in map(timed_line, timed) if options.timestamps else [piece.text]:
                    print(f"{ready[number].item.source}\t{line}", flush=True)

        yield finished


def _show(
    one: _Ready, result: "TextResult", form: str | None, options: Options, shown: bool, real_time_factor: float
) -> None:
    """Print one transcript or caption, and write it where it has a file."""
    record = {"path": one.item.source, **result.to_dict(), "real_time_factor": round(real_time_factor, 4)}
    text = as_text(result, form, options.timestamps)
    written = json.dumps(record, ensure_ascii=False) + "\n" if form == "json" else text
    if one.target is not None:
        write_text(one.target, written)
    if options.as_json:
        emit(record)
    elif form is not None and one.target is None:
        print(written, end="", flush=True)
    elif not shown:
        for line in as_text(result, None, options.timestamps).splitlines():
            print(f"{one.item.source}\t{line}", flush=True)
