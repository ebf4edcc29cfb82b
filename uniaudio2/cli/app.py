"""Subcommands: parse, check, call one function, print.

Nothing heavy is imported before the arguments are known to make sense, so ``--help`` and mistakes answer at once.
Results go to standard output, everything else to standard error. ``run`` is the one place where expected errors end.
"""

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from uniaudio2 import __version__
from uniaudio2.batch import (
    CODES_SUFFIXES,
    PUBLISHED_CODES,
    STANDARD_STREAM,
    InputError,
    Item,
    check_output_file,
    check_output_folder,
    check_readable,
    collect_inputs,
    plan_outputs,
)
from uniaudio2.cli.options import CODEC_OPTIONS, FILE_OPTIONS, MODEL_OPTIONS, Options, takes
from uniaudio2.errors import BUG_EXIT_CODE, UserError, describe, is_disk_full, is_expected
from uniaudio2.files import write_text
from uniaudio2.formats import AUDIO_SUFFIXES, WRITABLE_AUDIO

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.audio import Recording

app = typer.Typer(
    name="uniaudio2",
    help="Speech and sound in, text and codes out, and back: one model, on your machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
generate_app = typer.Typer(help="Make audio that is not speech from a description.", no_args_is_help=True)
data_app = typer.Typer(help="Make, check and look at labelled audio.", no_args_is_help=True)

UNIT_SEPARATOR = "\x1f"  # between the two words of --shot
FILES_PER_ROUND = 16  # files that are transcribed or captioned together
SECONDS_PER_ROUND = 1800.0  # and how much audio, unless one file alone is longer

Files = Annotated[list[str], typer.Argument(help="Audio files, folders, or - for standard input.", show_default=False)]


class BatchError(Exception):
    """Some or all items of a batch failed; each was named already."""


# ------------------------------------------------------------------------------------------------- shared steps


def say(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr, flush=True)


@dataclass
class Batch:
    """Runs items one by one or in groups, names what fails, and remembers that something did."""

    as_json: bool = False
    failed: int = 0
    served: int = 0
    skipped: int = 0
    names: list[str] = field(default_factory=list)

    def fail(self, source: str, error: BaseException) -> None:
        """Report one bad item."""
        message = describe(error)
        shown = message if message.startswith(source) else f"{source}: {message}"
        self.failed += 1
        say(f"error: {shown}")
        if self.as_json:
            print(json.dumps({"path": source, "error": shown}, ensure_ascii=False), flush=True)

    @contextlib.contextmanager
    def guard(self, source: str) -> Iterator[None]:
        """Turn an expected error of one item into a report; a full disk ends the batch."""
        try:
            yield
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, BrokenPipeError) or is_disk_full(error) or not is_expected(error):
                raise
            self.fail(source, error)

    def screen(self, items: Sequence[Item]) -> list[Item]:
        """Drop the items that cannot be read at all, naming each."""
        good = []
        for item in items:
            with self.guard(item.source):
                check_readable(item.source)
                good.append(item)
        return good

    def finish(self) -> None:
        """Raise ``BatchError`` if anything failed."""
        if self.skipped:
            say(f"{self.skipped} skipped: their output exists (--overwrite makes it anew)")
        if self.failed:
            total = self.failed + self.served + self.skipped
            if total > 1:
                say(f"{self.failed} of {total} inputs failed")
            raise BatchError


@contextlib.contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal: call it with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def emit(record: dict[str, Any]) -> None:
    """One JSON line on standard output."""
    print(json.dumps(record, ensure_ascii=False), flush=True)


def items_to_do(
    items: Sequence[Item], out: Path | None, suffix: str, options: Options, batch: Batch
) -> list[tuple[Item, Path | None]]:
    """Items still to do, with their output path when there is an output folder."""
    targets: list[Path | None] = [None] * len(items)
    if out is not None:
        targets = list(plan_outputs(items, out, suffix))
    todo = []
    for item, target in zip(items, targets, strict=True):
        if target is not None and target.exists() and not options.overwrite:
            batch.skipped += 1
        else:
            todo.append((item, target))
    good = {id(item) for item in batch.screen([item for item, _ in todo])}
    return [(item, target) for item, target in todo if id(item) in good]


def describe_files(
    inputs: Sequence[str],
    options: Options,
    call: Callable[["UniAudio2", "list[Recording]"], list[Any]],
) -> None:
    """The common body of ``transcribe`` and ``caption``: audio files in, one text each out."""
    if options.guidance not in (None, 1.0):
        raise InputError("--guidance acts on audio that is made, not on text: leave it out")
    batch = Batch(options.as_json)
    items = collect_inputs(inputs, AUDIO_SUFFIXES, recursive=options.recursive, log=say)
    todo = items_to_do(items, options.out_folder, ".json" if options.as_json else ".txt", options, batch)
    if not todo:
        batch.finish()
        return
    model = options.load()
    for ready in _rounds(todo, batch):
        began = time.perf_counter()
        results = call(model, [audio for _, _, audio in ready])
        elapsed = time.perf_counter() - began
        total_s = sum(result.duration_s for result in results) or 1.0
        for (item, target, _), result in zip(ready, results, strict=True):
            with batch.guard(item.source):
                show_text(item, target, result, options, elapsed / total_s)
                batch.served += 1
    batch.finish()


def _rounds(
    todo: Sequence[tuple[Item, Path | None]], batch: Batch
) -> Iterator[list[tuple[Item, Path | None, "Recording"]]]:
    """Open files in groups that work well together and whose results do not keep waiting; name those that are bad."""
    from uniaudio2.audio import open_audio

    ready: list[tuple[Item, Path | None, Recording]] = []
    for item, target in todo:
        with batch.guard(item.source):
            ready.append((item, target, open_audio(item.source)))
        if len(ready) >= FILES_PER_ROUND or sum(one.duration_s for _, _, one in ready) >= SECONDS_PER_ROUND:
            yield ready
            ready = []
    if ready:
        yield ready


def show_text(item: Item, target: Path | None, result: Any, options: Options, real_time_factor: float) -> None:
    """Print one transcript or caption, and write it when there is an output folder."""
    if options.as_json:
        record = {
            "path": item.source,
            **result.to_dict(),
            "real_time_factor": round(real_time_factor, 4),
        }
        if target is not None:
            write_text(target, json.dumps(record, ensure_ascii=False) + "\n")
        emit(record)
        return
    if options.timestamps:
        lines = [f"{segment.start_s:.2f}\t{segment.end_s:.2f}\t{segment.text}" for segment in result.segments]
    else:
        lines = [result.text]
    if target is not None:
        write_text(target, "\n".join(lines) + "\n")
    for line in lines:
        print(f"{item.source}\t{line}", flush=True)


def texts_to_say(text: str | None, lines: Path | None) -> list[str]:
    """The texts of ``speak`` and ``generate sound``: one argument, standard input, or a file with one per line."""
    if (text is None) == (lines is None):
        raise InputError("give either a text or --lines FILE")
    if lines is not None:
        check_readable(str(lines))
        try:
            texts = [line.strip() for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise InputError(f"{lines}: is not UTF-8 text") from None
        if not texts:
            raise InputError(f"{lines}: no text in it")
        return texts
    if text == STANDARD_STREAM:
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("standard input is not UTF-8 text") from None
    if not (text or "").strip():
        raise InputError("the text is empty: give at least one word")
    return [text or ""]


def speech_targets(texts: Sequence[str], output: str, is_batch: bool) -> list[str]:
    """One wav path per text: the given file, or numbered files in the given folder."""
    if not is_batch:
        check_output_file(output, WRITABLE_AUDIO)
        return [output]
    check_output_folder(Path(output))
    width = max(4, len(str(len(texts))))
    return [str(Path(output) / f"{number:0{width}d}.wav") for number in range(1, len(texts) + 1)]


def make_audio(
    texts: Sequence[str],
    output: str,
    is_batch: bool,
    options: Options,
    check: Callable[[str], object],
    call: Callable[["UniAudio2", str], Any],
) -> None:
    """The common body of ``speak`` and ``generate sound``: texts in, one wav file each out."""
    batch = Batch(options.as_json and output != STANDARD_STREAM)
    todo = []
    for text, target in zip(texts, speech_targets(texts, output, is_batch), strict=True):
        if is_batch and Path(target).exists() and not options.overwrite:
            batch.skipped += 1
            continue
        with batch.guard(target) if is_batch else contextlib.nullcontext():
            check(text)
            todo.append((text, target))
    if not todo:
        batch.finish()
        return
    model = options.load()
    for text, target in todo:
        with batch.guard(target) if is_batch else contextlib.nullcontext():
            began = time.perf_counter()
            result = call(model, text)
            result.save(target)
            batch.served += 1
            report_made({"path": target, **result.to_dict()}, target, options, began)
    batch.finish()


def report_made(record: dict[str, Any], target: str, options: Options, began: float) -> None:
    """One line about audio or codes that were written, whose work began at that time of ``time.perf_counter``."""
    elapsed, duration_s = time.perf_counter() - began, record["duration_s"]
    if not options.as_json:
        say(f"{target}: {duration_s:.2f} s of audio in {elapsed:.2f} s")
        return
    record = {**record, "real_time_factor": round(elapsed / max(duration_s, 1e-9), 4)}
    stream = sys.stderr if target == STANDARD_STREAM else sys.stdout  # not between the bytes of a wav
    print(json.dumps(record, ensure_ascii=False), file=stream, flush=True)


# ------------------------------------------------------------------------------------------------- audio to text


@app.command()
@takes("timestamps", *FILE_OPTIONS, "batch_size", "beams", "hearings", "language", *MODEL_OPTIONS)
def transcribe(files: Files, *, options: Options) -> None:
    """Write down what is said: one line [bold]path<TAB>text[/bold] per file."""
    asked = (options.temperature, options.top_k, options.top_p) != (None, None, None)
    drawn = asked and options.temperature != 0 and options.top_k != 1
    if drawn and max(options.beams or 1, options.hearings or 1) > 1:
        raise InputError(
            "--beams and --hearings look for the likeliest text: leave out --temperature, --top-k, --top-p"
        )
    describe_files(
        files,
        options,
        lambda loaded, audio: loaded.transcribe(
            audio,
            language=options.language,
            batch_size=options.batch_size,
            beams=options.beams,
            shifts=options.hearings,
            **options.sampling,
        ),
    )


@app.command()
@takes("timestamps", *FILE_OPTIONS, "batch_size", *MODEL_OPTIONS)
def caption(files: Files, *, options: Options) -> None:
    """Say in words what is heard: one line [bold]path<TAB>text[/bold] per file."""
    describe_files(
        files,
        options,
        lambda loaded, audio: loaded.caption(audio, batch_size=options.batch_size, **options.sampling),
    )


# ------------------------------------------------------------------------------------------------- text to audio

Text = Annotated[str | None, typer.Argument(help="The text, or - for standard input.", show_default=False)]
Lines = Annotated[
    Path | None, typer.Option("--lines", metavar="FILE", help="Instead of TEXT: one text per line, into the folder -o.")
]
Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="PATH", help="Wav file; - for standard output; a folder with --lines.",
                 show_default=False),
]  # fmt: skip


@app.command()
@takes("overwrite", "steps", "language", *MODEL_OPTIONS)
def speak(
    output: Output,
    text: Text = None,
    voice: Annotated[
        Path | None, typer.Option("--voice", metavar="WAV", help="About 3 s of the voice to speak with.")
    ] = None,
    lines: Lines = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of",
            min=1,
            help="Attempts per sentence; the best heard is kept.  [dim]default: the model's, nano 4[/dim]",
        ),
    ] = None,
    *,
    options: Options,
) -> None:
    """Read a text aloud; long text goes sentence by sentence in one voice."""
    from uniaudio2.speech_text import plan_speech

    texts = texts_to_say(text, lines)
    prompt = None
    if voice is not None:
        from uniaudio2.audio import read_audio

        prompt = read_audio(voice)
    make_audio(
        texts,
        output,
        lines is not None,
        options,
        lambda one: plan_speech(one, options.language),
        lambda loaded, one: loaded.speak(
            one, voice=prompt, language=options.language, steps=options.steps, best_of=best_of, **options.sampling
        ),
    )


@generate_app.command("sound")
@takes("overwrite", "steps", *MODEL_OPTIONS)
def generate_sound(
    output: Output,
    text: Text = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", min=0.4, max=30.0, help="Seconds.  [dim]default: free[/dim]"),
    ] = None,
    lines: Lines = None,
    *,
    options: Options,
) -> None:
    """Make the sound that a text describes, such as "a dog barking"."""
    from uniaudio2.speech_text import check_description

    texts = texts_to_say(text, lines)

    make_audio(
        texts,
        output,
        lines is not None,
        options,
        check_description,
        lambda loaded, one: loaded.generate_sound(one, duration_s=duration, steps=options.steps, **options.sampling),
    )


app.add_typer(generate_app, name="generate")


# ------------------------------------------------------------------------------------------------- audio and codes


def _one_or_folder(inputs: Sequence[str], output: str) -> bool:
    """Whether the result is a folder: several inputs, an input folder, or an existing output folder."""
    return len(inputs) > 1 or Path(inputs[0]).is_dir() or (output != STANDARD_STREAM and Path(output).is_dir())


def convert_files(
    inputs: Sequence[str],
    output: str,
    suffix: str,
    suffixes: frozenset[str],
    options: Options,
    work: Callable[["UniAudio2", str, str], dict[str, Any]],
) -> None:
    """The common body of ``encode`` and ``decode``: one file in, one file out, a folder's tree mirrored."""
    batch = Batch(options.as_json and output != STANDARD_STREAM)
    items = collect_inputs(inputs, suffixes, recursive=options.recursive, log=say)
    if _one_or_folder(inputs, output):
        todo = [(item, str(target)) for item, target in items_to_do(items, Path(output), suffix, options, batch)]
    else:
        check_output_file(output, WRITABLE_AUDIO if suffix == ".wav" else (".safetensors", PUBLISHED_CODES))
        todo = [(item, output) for item in batch.screen(items)]
    if not todo:
        batch.finish()
        return
    model = options.load()
    for item, target in todo:
        with batch.guard(item.source):
            began = time.perf_counter()
            facts = work(model, item.source, target)
            batch.served += 1
            report_made({"path": item.source, "output": target, **facts}, target, options, began)
    batch.finish()


@app.command()
@takes("overwrite", "recursive", *CODEC_OPTIONS)
def encode(
    inputs: Files,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="PATH",
            help="Codes file (.safetensors, NAME_reason.pt), - , or a folder.",
        ),
    ],
    published: Annotated[
        bool, typer.Option("--published", help="The published pair of files, NAME_reason.pt and NAME_semantic.pt.")
    ] = False,
    *,
    options: Options,
) -> None:
    """Turn audio into codes. Nothing is sampled here: seed, temperature, top-k and guidance change nothing.

    An output called NAME_reason.pt is the published pair of files, with NAME_semantic.pt beside it.
    """

    def work(loaded: "UniAudio2", source: str, target: str) -> dict[str, Any]:
        """Encode one file; tells how long it is."""
        codes = loaded.encode(source)
        if target == STANDARD_STREAM:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                codes.save(Path(folder) / "codes.safetensors")
                sys.stdout.buffer.write((Path(folder) / "codes.safetensors").read_bytes())
                sys.stdout.buffer.flush()
        else:
            codes.save(Path(target))
        return {
            "duration_s": codes.duration_s,
            "reasoning_frames": codes.reasoning.shape[-1],
            "reconstruction_frames": codes.reconstruction.shape[-1],
        }

    if published and not _one_or_folder(inputs, output) and not output.endswith(PUBLISHED_CODES):
        raise InputError(f"{output}: --published writes two files; name the first, such as x{PUBLISHED_CODES}")
    suffix = PUBLISHED_CODES if published else ".safetensors"
    convert_files(inputs, output, suffix, AUDIO_SUFFIXES, options, work)


@app.command()
@takes("overwrite", "recursive", "steps", *CODEC_OPTIONS)
def decode(
    inputs: Annotated[list[str], typer.Argument(help="Codes files, folders, or -.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", "--out", metavar="PATH", help="Wav file, - , or a folder.")],
    solver: Annotated[
        str | None, typer.Option("--solver", metavar="euler|midpoint", help="Of the decoder; midpoint: 2 x the time.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", metavar="speech|sound", help="Whose defaults of the decoder.")
    ] = "speech",
    *,
    options: Options,
) -> None:
    """Turn codes into audio. Seed, temperature and guidance act on the decoder's noise; top-k changes nothing.

    Of a published pair name the first file, NAME_reason.pt.
    """

    def work(loaded: "UniAudio2", source: str, target: str) -> dict[str, Any]:
        """Decode one file; tells how long it is."""
        from uniaudio2.audio import AudioWriter
        from uniaudio2.codes import AudioCodes

        if source == STANDARD_STREAM:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "codes.safetensors"
                path.write_bytes(sys.stdin.buffer.read())
                codes = AudioCodes.load(path)
        else:
            codes = AudioCodes.load(Path(source))
        pieces = loaded.decode_stream(
            codes,
            seed=options.seed,
            kind=cast(Any, kind),
            guidance=options.guidance,
            steps=options.steps,
            solver=cast(Any, solver),
            temperature=options.temperature,
        )
        with AudioWriter(target) as file:
            for piece in pieces:
                file.write(piece)
        return {"duration_s": codes.duration_s}

    if solver not in (None, "euler", "midpoint"):
        raise InputError(f"--solver {solver}: unknown, choose euler or midpoint")
    if kind not in ("speech", "sound"):
        raise InputError(f"--kind {kind}: unknown, choose speech or sound")
    convert_files(inputs, output, ".wav", CODES_SUFFIXES, options, work)


# ------------------------------------------------------------------------------------------------- any task


def read_values(task: Any, parts: Sequence[Any], assignments: Sequence[str]) -> dict[str, str]:
    """``name=value`` words checked against parts of a row of the task table; audio values are paths."""
    kinds: dict[str, str] = {}
    for part in parts:
        kinds.setdefault(part.value, part.kind)
    side = "output" if parts == task.outputs else "input"
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r}: {side}s are given as name=value; {task.name} takes {', '.join(kinds)}")
        if name not in kinds:
            raise InputError(f"task {task.name!r} has no {side} {name!r}; it takes {', '.join(kinds) or 'none'}")
        if name in values:
            raise InputError(f"{name}: is given twice")
        if kinds[name] == "text":
            if not value.strip():
                raise InputError(f"{name}: the text is empty")
        elif not value:
            raise InputError(f"{name}: is empty, name a file")
        else:
            check_readable(value)
        values[name] = value
    missing = [part.value for part in parts if not part.optional and part.value not in values]
    if missing:
        wanted = " and ".join(f"{name}=…" for name in dict.fromkeys(missing))
        raise InputError(f"task {task.name!r} needs {wanted}")
    return values


def join_shots(arguments: Sequence[str]) -> list[str]:
    """Both words after each ``--shot`` as one, with the unit separator of ASCII between them.

    Choice: done before typer reads the words, because it has no options of two words that may be repeated.
    """
    joined: list[str] = []
    words = list(arguments)
    while words:
        joined.append(words.pop(0))
        if joined[-1] == "--shot":
            both = list(itertools.takewhile(lambda word: not word.startswith("--"), words[:2]))
            joined.append(UNIT_SEPARATOR.join(both))
            del words[: len(both)]
    return joined


def read_shot(task: Any, number: int, shot: str) -> tuple[dict[str, str], dict[str, str]]:
    """Both sides of an example: a value alone where the row needs one, else ``name=value name=value``."""
    sides = []
    both = shot.split(UNIT_SEPARATOR)
    if len(both) != 2:
        raise InputError(f"--shot {number}: give an input and an output, with quotes around each")
    for parts, words in zip((task.inputs, task.outputs), both, strict=True):
        try:
            sides.append(read_values(task, parts, _assignments(task, parts, words)))
        except UserError as error:
            raise InputError(f"--shot {number}: {error}") from None
    return sides[0], sides[1]


def _assignments(task: Any, parts: Sequence[Any], words: str) -> list[str]:
    """``name=value`` for every value in one side of an example, cut where a name of the row and ``=`` stand."""
    from uniaudio2.tasks import required

    names = "|".join(re.escape(part.value) for part in parts)
    cuts = [match.start(1) for match in re.finditer(rf"(?:^|\s)((?:{names})=)", words)] if names else []
    if cuts and not words[: cuts[0]].strip():
        return [words[start:stop].strip() for start, stop in zip(cuts, [*cuts[1:], len(words)], strict=True)]
    needed = required(parts)
    if len(needed) == 1:
        return [f"{needed[0]}={words}"]
    if needed:
        raise InputError(f"write it as '{' '.join(f'{name}=…' for name in needed)}'")
    if words.strip():
        raise InputError(f"task {task.name!r} takes no input: give '' in its place")
    return []


@app.command("run")
@takes("steps", "language", *MODEL_OPTIONS)
def run_task(
    task: Annotated[str, typer.Argument(help="Name in the task table, such as asr, tts, tta; 'list' shows all.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="name=value: a text, or the path of a file of audio or codes.", show_default=False),
    ] = None,
    shot: Annotated[
        list[str] | None,
        typer.Option(
            "--shot",
            metavar="INPUT OUTPUT",
            help="An example that comes first; repeat. Several values: 'name=value name=value'.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="Wav or codes file, or a folder for several."),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", min=0.4, help="Longest audio to make.  [dim]default: from the input[/dim]"),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Run a row also that the model was not trained for.")
    ] = False,
    *,
    options: Options,
) -> None:
    """Run any row of the task table: [bold]run tts transcription="hello" -o hello.wav[/bold]."""
    from uniaudio2.tasks import TASKS, get_task

    if task == "list":
        for row in TASKS.values():
            takes = [part.value + ("?" if part.optional else "") for part in row.inputs]
            makes = [part.value for part in row.outputs]
            shown = (", ".join(dict.fromkeys(takes)) or "nothing", ", ".join(dict.fromkeys(makes)))
            print(f"{row.name}\t{shown[0]} -> {shown[1]}")
        return
    row = get_task(task)
    values = read_values(row, row.inputs, inputs or [])
    shots = [read_shot(row, number, words) for number, words in enumerate(shot or [], 1)]
    given = [*values.values(), *(value for sides in shots for side in sides for value in side.values())]
    if given.count(STANDARD_STREAM) > 1:
        raise InputError("- (standard input) can be read only once")
    targets = run_targets(row, output)
    results = options.load().run(
        row,
        values,
        shots=shots,
        language=options.language,
        max_duration_s=max_seconds,
        untrained=untrained,
        steps=options.steps,
        **options.sampling,
    )
    for name, result in results.items():
        record: dict[str, Any] = {"task": row.name, "value": name}
        if isinstance(result, str):
            record["text"] = line = result
        else:
            line = targets[name]
            record["path"] = line
            record |= write_value(result, line)
        if line == STANDARD_STREAM:
            continue
        if options.as_json:
            emit(record)
        else:
            print(line, flush=True)


def run_targets(row: Any, output: str | None) -> dict[str, str]:
    """Where each audio value that a row makes is written: the file ``output``, or files in that folder."""
    kinds = {part.value: part.kind for part in row.outputs if part.kind != "text"}
    if not kinds:
        if output is not None:
            raise InputError(f"task {row.name!r} makes text, which is printed: leave -o out")
        return {}
    if output is None:
        raise InputError(f"task {row.name!r} makes audio: name a wav file with -o")
    if len(kinds) > 1:
        check_output_folder(Path(output))
        return {name: str(Path(output) / f"{name}.wav") for name in kinds}
    name, last = next(iter(kinds.items()))
    if last == "reasoning":  # meaning without sound
        check_output_file(output, (".safetensors",))
    else:
        check_output_file(output, (*WRITABLE_AUDIO, ".safetensors", PUBLISHED_CODES))
    return {name: output}


def write_value(result: Any, target: str) -> dict[str, Any]:
    """Write generated audio as a wave or as its codes, as the name says, and give the facts for a report."""
    from uniaudio2.codes import AudioCodes

    if isinstance(result, AudioCodes):
        result.save(target)
        return {"reasoning_frames": result.reasoning.shape[-1]}
    if target.endswith((".safetensors", PUBLISHED_CODES)):
        result.codes[0].save(target)
    else:
        result.save(target)
    return result.to_dict()


# ------------------------------------------------------------------------------------------------- data


@data_app.command("synth")
@takes("seed")
def data_synth(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the corpus; an interrupted run goes on.")],
    preset: Annotated[str, typer.Option("--preset", help="How much of what: pilot, nano, ….")] = "nano",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 works in this one.")] = 2,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", metavar="DIR", help="Text and real sets.  [dim]or UNIAUDIO2_DATA[/dim]"),
    ] = None,
    available: Annotated[
        bool, typer.Option("--available", help="Leave out what is missing here; built-in sentences for missing lists.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep the shards that are finished.")] = True,
    *,
    options: Options,
) -> None:
    """Make labelled speech and sounds with the synthesisers of this machine."""
    check_output_folder(out)
    from uniaudio2.data.synth.run import synthesise

    with progress_bar("shards") as show:
        manifest = synthesise(
            out,
            preset=preset,
            seed=options.seed,
            workers=workers,
            resume=resume,
            data_root=data_root,
            available=available,
            progress=lambda done, total, clips: show(done, total),
        )
    print(manifest)


@data_app.command("validate")
@takes("as_json")
def data_validate(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSONL), or the folder that holds it.")],
    phonemes: Annotated[
        bool, typer.Option("--phonemes", help="Write the phones of every text into the manifest where it has none.")
    ] = False,
    *,
    options: Options,
) -> None:
    """Check a manifest against its audio; problems are listed one per line."""
    from uniaudio2.data.manifest import add_phonemes, validate

    if phonemes:
        from uniaudio2.data.synth.engines import phonemes as spoken

        made, left = add_phonemes(manifest, spoken)
        say(f"phones written for {made} clips")
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            say(f"no phones, for want of a language or of a known reading: {', '.join(left[:5])}{more}")
    report = validate(manifest)
    if options.as_json:
        counts = [{"split": s, "kind": k, "language": la, "clips": n} for (s, k, la), n in report.counts.items()]
        emit({"examples": report.num_examples, "hours": report.hours, "counts": counts, "problems": report.problems})
    else:
        for problem in report.problems:
            print(problem)
        hours = ", ".join(f"{split} {hours:.2f} h" for split, hours in report.hours.items())
        print(f"{report.num_examples} examples ({hours}), {len(report.problems)} problems")
        for (split, kind, language), count in sorted(report.counts.items()):
            print(f"{split}\t{kind}\t{language}\t{count}")
    if report.problems:
        raise BatchError


@data_app.command("inspect")
@takes("seed")
def data_inspect(
    manifest: Annotated[Path, typer.Argument(help="Corpus folder or manifest.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for pictures, clips and a page.")],
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Pictures per class.")] = 12,
    clips: Annotated[int, typer.Option("--clips", min=0, help="Clips per class to listen to.")] = 3,
    *,
    options: Options,
) -> None:
    """Pictures and clips of every class, to check labels by eye and ear."""
    check_output_folder(out)
    from uniaudio2.data.inspect import inspect

    for sheet in inspect(manifest, out, pictures=pictures, clips=clips, seed=options.seed):
        print(sheet)


@app.command()
@takes("model", "device", "seed")
def prepare(
    manifest: Annotated[Path, typer.Argument(help="Corpus folder or manifest.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of codes; goes on where it stopped.")],
    splits: Annotated[str, typer.Option("--splits", help="Parts of the manifest, with commas.")] = "train,dev",
    augmented_copies: Annotated[int, typer.Option("--augmented-copies", min=0, help="More copies of recordings.")] = 0,
    synthetic_copies: Annotated[
        float, typer.Option("--synthetic-copies", min=0.0, help="The same for synthetic clips.")
    ] = 0.0,
    voice_copies: Annotated[
        float,
        typer.Option("--voice-copies", min=0.0, max=6.0, help="Copies of speech at other speeds: other voices."),
    ] = 0.0,
    part: Annotated[int, typer.Option("--part", min=0, help="Which part of the work this process does.")] = 0,
    parts: Annotated[int, typer.Option("--parts", min=1, help="Processes that share the work.")] = 1,
    precision: Annotated[
        str,
        typer.Option("--precision", help="float32, or bf16: twice as fast on a CPU, 98 % of first-book codes equal."),
    ] = "float32",
    *,
    options: Options,
) -> None:
    """Turn a corpus into codes for training the language model."""
    check_readable(str(manifest / "manifest.jsonl" if manifest.is_dir() else manifest))
    check_output_folder(out)
    from uniaudio2.checkpoint import load_codec
    from uniaudio2.data.augment import augment, speed_perturb
    from uniaudio2.data.corpus import Corpus
    from uniaudio2.data.prepare import PrepareConfig
    from uniaudio2.data.prepare import prepare as prepare_codes

    config = PrepareConfig(
        augmented_copies=augmented_copies,
        synthetic_copies=synthetic_copies,
        voice_copies=voice_copies,
        splits=tuple(name.strip() for name in splits.split(",") if name.strip()),
        seed=options.seed,
        part=part,
        parts=parts,
        precision=precision,
    )
    corpus = Corpus(manifest)
    codec = load_codec(options.model, device=options.place)
    print(prepare_codes(codec, corpus, out, config, augment=augment, change_speed=speed_perturb, log=say))


# ------------------------------------------------------------------------------------------------- training


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="Stage, such as speech_expert or lm; 'list' shows all.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value changes, such as train.lr=1e-4.", show_default=False)
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="YAML file or preset name.  [dim]default: the stage's preset[/dim]"),
    ] = None,
) -> None:
    """Train one stage; a run that was interrupted goes on where it stopped."""
    from uniaudio2.train.stages import STAGES, run_stage, stage_config

    if stage == "list":
        print("\n".join(STAGES))
        return
    settings = stage_config(stage, config, overrides or [])
    result = run_stage(settings, log=say)
    if not result.finished:
        say(f"stopped at step {result.step} and saved; the same command goes on")
        raise typer.Exit(130)
    if result.export_dir is not None:  # only the leading process exports
        print(result.export_dir)


@app.command()
def assemble(
    out: Annotated[Path, typer.Argument(help="Model folder; made or extended.")],
    part: Annotated[list[str] | None, typer.Option("--part", help="Codec part that a stage exported; repeat.")] = None,
    text_decoder: Annotated[str | None, typer.Option("--text-decoder", help="Export of the reasoning stage.")] = None,
    language_model: Annotated[
        list[str] | None,
        typer.Option("--language-model", help="Export of an lm stage; of several runs the mean is taken."),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="Codec preset, or YAML file, that the parts were trained with.")
    ] = "nano",
    card: Annotated[Path | None, typer.Option("--card", help="Model card to put in.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bf16 or int8.")] = "int8",
) -> None:
    """Join what the training stages exported into one model folder."""
    if dtype not in ("float32", "bf16", "int8"):
        raise InputError(f"--dtype {dtype}: unknown, choose float32, bf16 or int8")
    if not part and not language_model:
        raise InputError("nothing to join: give --part for every codec stage, or --language-model")
    check_output_folder(out)
    from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE
    from uniaudio2.train.stages import assemble as join

    print(
        join(
            out,
            preset=preset,
            parts=part or (),
            text_decoder=text_decoder,
            language_models=language_model or (),
            tokenizer=DEFAULT_FOLDER / TOKENIZER_FILE,
            card=card.read_text(encoding="utf-8") if card else None,
            dtype=cast(Any, dtype),
        )
    )


@app.command()
@takes("seed", "as_json")
def convert(
    source: Annotated[str, typer.Argument(help="Published file or folder; 'llama' to start from a Llama folder.")],
    paths: Annotated[list[str], typer.Argument(help="[SOURCE] TARGET and KEY=VALUE changes.", show_default=False)],
    dtype: Annotated[str, typer.Option("--dtype", help="same, float32, bf16 or int8.")] = "same",
    preset: Annotated[str, typer.Option("--preset", help="Language model preset, with llama.")] = "3b",
    *,
    options: Options,
) -> None:
    """Turn published weights into a model folder."""
    if dtype not in ("same", "float32", "bf16", "int8"):
        raise InputError(f"--dtype {dtype}: unknown, choose same, float32, bf16 or int8")
    places = [path for path in paths if "=" not in path]
    overrides = [path for path in paths if "=" in path]
    if source == "llama":
        if len(places) != 2:
            raise InputError("give: uniaudio2 convert llama SOURCE TARGET")
        check_output_folder(Path(places[1]))
        from uniaudio2.published.llama import convert_llama

        report = convert_llama(
            places[0], places[1], preset=preset, dtype=cast(Any, dtype), overrides=overrides, seed=options.seed
        )
    else:
        if len(places) != 1:
            raise InputError("give: uniaudio2 convert SOURCE TARGET")
        check_output_folder(Path(places[0]))
        from uniaudio2.published.convert import convert as convert_weights

        report = convert_weights(source, places[0], dtype=cast(Any, dtype), overrides=overrides)
    if options.as_json:
        emit(report.to_dict())
    else:
        print("\n".join(report.lines()))


# ------------------------------------------------------------------------------------------------- measuring


def show_report(report: Any, as_json: bool, markdown: bool) -> None:
    """A report of an evaluation, in the form that was asked for."""
    if as_json:
        emit(report.to_dict())
    elif markdown:
        print(report.markdown(), end="")
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


@app.command()
@takes("batch_size", "beams", "hearings", *MODEL_OPTIONS)
def evaluate(
    task: Annotated[str, typer.Argument(help="asr, tts, audio_caption, tta, codec, reasoning; 'list' shows all.")],
    data: Annotated[str | None, typer.Option("--data", help="Which data, such as fsdd; or a manifest.")] = None,
    data_root: Annotated[Path | None, typer.Option("--data-root", metavar="DIR", help="Where the sets lie.")] = None,
    corpus: Annotated[Path | None, typer.Option("--corpus", metavar="DIR", help="Synthetic corpus.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Score only so many items.")] = None,
    normaliser: Annotated[str, typer.Option("--normaliser", help="Of texts: simple or whisper.")] = "simple",
    languages: Annotated[str, typer.Option("--languages", help="With commas, where there is a choice.")] = "en,zh,yue",
    keep: Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Keep the audio that was scored.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="JSON", help="Write the full report.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Rows for a table of results.")] = False,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of",
            min=1,
            help="Attempts at every sentence that is spoken.  [dim]default: as speak does[/dim]",
        ),
    ] = None,
    *,
    options: Options,
) -> None:
    """Score the model; every figure comes with its interval, and with its target where there is one."""
    from uniaudio2.eval import EVALUATIONS, Effort, find_evaluation
    from uniaudio2.eval import evaluate as run_evaluation

    if task == "list":
        for row in EVALUATIONS:
            print(f"{row.task}\t{row.data}\t{row.description}")
        return
    find_evaluation(task, data)
    if out is not None:
        check_output_file(str(out))
    sampling = {name: value for name, value in options.sampling.items() if name != "seed"}
    report = run_evaluation(
        task,
        data=data,
        model=options.model,
        data_root=data_root,
        corpus=corpus,
        limit=limit,
        seed=options.seed,
        device=str(options.place),
        normaliser=normaliser,
        languages=tuple(name.strip() for name in languages.split(",") if name.strip()),
        work=keep,
        out=out,
        progress=sys.stderr.isatty(),
        command=command_line(),
        batch_size=options.batch_size,
        effort=Effort(best_of=best_of, beams=options.beams, shifts=options.hearings),
        **sampling,
    )
    show_report(report, options.as_json, markdown)


@app.command()
@takes("model", "device", "seed", "as_json")
def bench(
    preset: Annotated[str, typer.Option("--preset", help="Sizes of the language model; weights are random.")] = "mid",
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="TYPES", help="float32, bfloat16, int8, int4, with commas.")
    ] = "float32",
    batch: Annotated[str, typer.Option("--batch", metavar="SIZES", help="Requests at once, with commas.")] = "1",
    prompt_rows: Annotated[int, typer.Option("--prompt-rows", min=20, help="Rows of every prompt.")] = 200,
    frames: Annotated[int, typer.Option("--frames", min=6, help="Audio frames, and text tokens, to generate.")] = 50,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of the CPU; default: torch's choice.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the frame; takes minutes the first time.")
    ] = True,
    cpu_clock: Annotated[
        bool, typer.Option("--cpu-clock", help="Count CPU seconds: for a busy machine, with --threads 1.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option("--profile", metavar="JSON", help="Write a trace of some frames of the last setting.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only count what a frame must read, and its time at --bandwidth.")
    ] = False,
    bandwidth: Annotated[
        float, typer.Option("--bandwidth", min=0.1, metavar="GB/S", help="For --plan; an H100 reaches about 3000.")
    ] = 3000.0,
    *,
    options: Options,
) -> None:
    """Measure the engine: speed, memory, kernels, and the share of what the memory's bandwidth allows."""
    batches = [int(word) if word.strip().isdigit() else 0 for word in batch.split(",")]
    if trace is not None:
        check_output_file(str(trace))
    import torch

    from uniaudio2 import bench as benchmark

    if threads is not None:
        torch.set_num_threads(threads)
    base = benchmark.BenchConfig(
        preset=preset,
        model=options.model,
        device="cpu" if plan else str(options.place),
        prompt_rows=prompt_rows,
        frames=frames,
        compile=compile,
        cpu_clock=cpu_clock,
        seed=options.seed,
    )
    chosen = benchmark.settings(base, [word.strip() for word in dtype.split(",")], batches)
    columns: list[list[tuple[str, str]]] = []
    for number, setting in enumerate(chosen, start=1):
        if plan:
            counted = benchmark.plan_frame(
                setting.lm_config(), setting.dtype, batch=setting.batch, positions=prompt_rows + frames // 2
            )
            record = {"preset": preset, "dtype": setting.dtype, "batch": setting.batch, **vars(counted)}
            rows = benchmark.plan_rows(counted, 1e9 * bandwidth)
            columns.append([("weights", setting.dtype), ("batch", str(setting.batch)), *rows])
        else:
            say(f"{setting.dtype}, batch {setting.batch} ({number} of {len(chosen)})")
            found = benchmark.bench(setting, trace=trace if number == len(chosen) else None)
            record = found.to_dict()
            columns.append(benchmark.measurement_rows(found))
        if options.as_json:
            emit(record)
    if not options.as_json:
        clock = ", CPU seconds" if cpu_clock else ""
        _print_columns(f"{options.model or preset}, {base.device}, {torch.get_num_threads()} threads{clock}", columns)


def _print_columns(title: str, columns: list[list[tuple[str, str]]]) -> None:
    """Named values side by side, one column per setting; a value that a setting lacks stays empty."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for index in range(len(columns) + 1):
        table.add_column(justify="right" if index else "left")
    names = list(dict.fromkeys(name for column in columns for name, _ in column))
    for name in names:
        table.add_row(name, *(dict(column).get(name, "") for column in columns))
    Console().print(table)


def command_line() -> str:
    """The command as it was typed, for reports."""
    return " ".join(["uniaudio2", *(shlex.quote(word) for word in sys.argv[1:])])


# ------------------------------------------------------------------------------------------------- looking around


@app.command()
@takes("device", "as_json")
def doctor(
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="DIR", help="Model folder to look at.")] = None,
    presets: Annotated[
        str, typer.Option("--preset", "--presets", help="Presets whose memory is shown, with commas.")
    ] = "nano",
    *,
    options: Options,
) -> None:
    """What is installed, what is missing, which devices and model there are, and how much memory presets take."""
    from uniaudio2.doctor import diagnose, findings_table, memory_table, preset_sizes

    findings = diagnose(model)
    sizes = [size for name in presets.split(",") if name.strip() for size in preset_sizes(name.strip())]
    if options.as_json:
        emit({"findings": [vars(finding) for finding in findings], "presets": [size.to_dict() for size in sizes]})
    else:
        from rich.console import Console

        console = Console()
        console.print(findings_table(findings))
        console.print(memory_table(sizes))
    _ = options.place
    if not all(finding.ok for finding in findings if finding.topic in ("program", "package", "model")):
        raise BatchError


@app.command()
@takes(*MODEL_OPTIONS)
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for sounds, pictures and the page.")
    ] = Path("demo"),
    *,
    options: Options,
) -> None:
    """Run the model on the recordings in the package; writes sounds, pictures and a page to listen to."""
    check_output_folder(out)
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from uniaudio2.demo import demo_table, run_demo

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=None)
        report = run_demo(
            options.load, out, sampling=options.sampling, progress=lambda line: bar.update(task, description=line)
        )
    if options.as_json:
        for record in report.to_dicts():
            emit(record)
        return
    Console(width=None if sys.stdout.isatty() else 110).print(demo_table(report))
    print(f"{report.summary}\nopen {report.page.resolve().as_uri()}")


# ------------------------------------------------------------------------------------------------- entry


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"uniaudio2 {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the subcommand."""


app.add_typer(data_app, name="data")


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; the one place where expected errors become a line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names need not be valid UTF-8, and a terminal need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        code = command.main(args=join_shots(arguments), prog_name="uniaudio2", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:
            say("interrupted: what was finished is kept")
        return code if isinstance(code, int) else 0
    except BatchError:
        return 1
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept")
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 141
    except Exception as error:
        if hasattr(error, "format_message"):  # a mistake in the arguments themselves
            context = getattr(error, "ctx", None)
            say(f"error: {' '.join(error.format_message().split())}")  # type: ignore[attr-defined]
            say(f"see: {context.command_path if context else 'uniaudio2'} --help")
            return 2
        if os.environ.get("UNIAUDIO2_TRACEBACK"):
            raise
        if not is_expected(error):
            traceback.print_exception(error)
            say(f"error: {describe(error)}")
            return BUG_EXIT_CODE
        if is_disk_full(error):
            _silence_stdout()
        say(f"error: {describe(error)}")
        return 1


def _silence_stdout() -> None:
    """Keep the interpreter from failing again when it flushes standard output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The command ``uniaudio2``."""
    sys.exit(execute(sys.argv[1:]))
