"""Subcommands: parse, check, call one function, print.

Nothing heavy is imported before the arguments are known to make sense, so ``--help`` and mistakes answer at once.
Results go to standard output, everything else to standard error. ``run`` is the one place where expected errors end.
"""

import contextlib
import errno
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from uniaudio2 import __version__
from uniaudio2.batch import (
    AUDIO_SUFFIXES,
    CODES_SUFFIXES,
    STANDARD_STREAM,
    WRITABLE_AUDIO,
    InputError,
    Item,
    check_output_file,
    check_output_folder,
    check_readable,
    collect_inputs,
    plan_outputs,
    write_text,
)

if TYPE_CHECKING:
    from torch import Tensor

    from uniaudio2.pipeline import UniAudio2

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

FILES_PER_ROUND = 16  # files whose audio is held in memory together
SECONDS_PER_ROUND = 1800.0  # and how much of it, unless one file alone is longer

Files = Annotated[list[str], typer.Argument(help="Audio files, folders, or - for standard input.", show_default=False)]
Model = Annotated[
    Path | None,
    typer.Option("--model", "-m", metavar="DIR", help="Model folder.  [dim]default: the model in the package[/dim]"),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps, or auto.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", min=0.0, help="Randomness of sampling; 0 takes the best.  [dim]default: by task[/dim]"
    ),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", min=1, help="Sample from the k best only; 1 is greedy.  [dim]default: by task[/dim]"),
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", min=0.0, max=1.0, help="Sample from this share of the mass.  [dim]default: by task[/dim]"),
]
Guidance = Annotated[
    float | None,
    typer.Option("--guidance", min=1.0, help="How strictly to follow the text; 1 is off.  [dim]default: by task[/dim]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line instead of text.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the decoder that makes the wave.")]
Language = Annotated[
    str | None, typer.Option("--language", "-l", metavar="en|zh|yue", help="Language.  [dim]default: detected[/dim]")
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Also write one file per input there; files that exist are skipped."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make files anew that exist in the output folder.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Pieces of audio worked on together.")]


class BatchError(Exception):
    """Some or all items of a batch failed; each was named already."""


# ------------------------------------------------------------------------------------------------- shared steps


@dataclass
class Options:
    """What every inference command takes, checked before weights load."""

    model: Path | None
    device: str
    seed: int
    temperature: float | None
    top_k: int | None
    guidance: float | None
    as_json: bool
    top_p: float | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        if self.model is not None:
            if not self.model.exists():
                raise InputError(f"--model {self.model}: no such folder")
            if not self.model.is_dir():
                raise InputError(f"--model {self.model}: is a file; name the folder that holds config.yaml")
            if not (self.model / "config.yaml").is_file():
                raise InputError(
                    f"--model {self.model}: not a model folder, config.yaml is missing "
                    "(uniaudio2 convert makes one from published weights)"
                )
        kind = self.device.split(":")[0]
        if kind not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"--device {self.device}: unknown, choose auto, cpu, cuda, cuda:N or mps")
        if self.language is not None:
            from uniaudio2.text import check_language

            self.language = check_language(self.language)

    def load(self) -> "UniAudio2":
        """Load the model."""
        from uniaudio2.pipeline import UniAudio2

        return UniAudio2.from_pretrained(self.model, device=self.device)

    @property
    def sampling(self) -> dict[str, Any]:
        """Sampling arguments of the ``UniAudio2`` methods; None means the task's default."""
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance,
        }


def say(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """The message of an error as a single line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a disk, quota or file size limit that is reached."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


def describe(error: BaseException) -> str:
    """What a user should read about an expected error, in one line."""
    if is_disk_full(error):
        return f"no space left ({one_line(error)}): free some space or write elsewhere; finished files are kept"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "not enough memory: use shorter input, a smaller --batch-size, or --device cpu"
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name!r} is missing: pip install {error.name} (see uniaudio2 doctor)"
    return one_line(error)


def is_expected(error: BaseException) -> bool:
    """Whether an error is the user's or the machine's business rather than a bug of ours."""
    if isinstance(error, ValueError | OSError | MemoryError | ModuleNotFoundError):
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error)


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


def audio_inputs(
    inputs: Sequence[str], out: Path | None, suffix: str, overwrite: bool, batch: Batch, suffixes: frozenset[str]
) -> list[tuple[Item, Path | None]]:
    """Items still to do, with their output path when there is an output folder."""
    items = collect_inputs(inputs, suffixes)
    targets: list[Path | None] = [None] * len(items)
    if out is not None:
        targets = list(plan_outputs(items, out, suffix))
    todo = []
    for item, target in zip(items, targets, strict=True):
        if target is not None and target.exists() and not overwrite:
            batch.skipped += 1
        else:
            todo.append((item, target))
    good = {id(item) for item in batch.screen([item for item, _ in todo])}
    return [(item, target) for item, target in todo if id(item) in good]


def describe_files(
    inputs: Sequence[str],
    options: Options,
    out: Path | None,
    overwrite: bool,
    timestamps: bool,
    call: Callable[["UniAudio2", "list[Tensor]"], list[Any]],
) -> None:
    """The common body of ``transcribe`` and ``caption``: audio files in, one text each out."""
    if options.guidance not in (None, 1.0):
        raise InputError("--guidance acts on audio that is made, not on text: leave it out")
    batch = Batch(options.as_json)
    todo = audio_inputs(inputs, out, ".json" if options.as_json else ".txt", overwrite, batch, AUDIO_SUFFIXES)
    if not todo:
        batch.finish()
        return
    model = options.load()
    for ready in _rounds(model, todo, batch):
        began = time.perf_counter()
        results = call(model, [audio for _, _, audio in ready])
        elapsed = time.perf_counter() - began
        total_s = sum(result.duration_s for result in results) or 1.0
        for (item, target, _), result in zip(ready, results, strict=True):
            with batch.guard(item.source):
                show_text(item, target, result, options, timestamps, elapsed / total_s)
                batch.served += 1
    batch.finish()


def _rounds(
    model: "UniAudio2", todo: Sequence[tuple[Item, Path | None]], batch: Batch
) -> Iterator[list[tuple[Item, Path | None, "Tensor"]]]:
    """Read files in groups, as many as work well together and fit in memory; name those that cannot be read."""
    from uniaudio2.audio import SAMPLE_RATE, read_audio

    ready: list[tuple[Item, Path | None, Tensor]] = []
    held_s = 0.0
    for item, target in todo:
        with batch.guard(item.source):
            audio = model.check_audio(read_audio(item.source))
            ready.append((item, target, audio))
            held_s += audio.shape[-1] / SAMPLE_RATE
        if len(ready) >= FILES_PER_ROUND or held_s >= SECONDS_PER_ROUND:
            yield ready
            ready, held_s = [], 0.0
    if ready:
        yield ready


def show_text(
    item: Item, target: Path | None, result: Any, options: Options, timestamps: bool, real_time_factor: float
) -> None:
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
    if timestamps:
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
    overwrite: bool,
    check: Callable[[str], None],
    call: Callable[["UniAudio2", str], Any],
) -> None:
    """The common body of ``speak`` and ``generate sound``: texts in, one wav file each out."""
    batch = Batch(options.as_json and output != STANDARD_STREAM)
    todo = []
    for text, target in zip(texts, speech_targets(texts, output, is_batch), strict=True):
        if is_batch and Path(target).exists() and not overwrite:
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
            write_result(result, target)
            elapsed = time.perf_counter() - began
            batch.served += 1
            record = {"path": target, **result.to_dict(), "real_time_factor": round(elapsed / result.duration_s, 4)}
            if options.as_json:
                print(json.dumps(record, ensure_ascii=False), file=_report_stream(target), flush=True)
            else:
                say(f"{target}: {result.duration_s:.2f} s of audio in {elapsed:.2f} s")
    batch.finish()


def _report_stream(target: str) -> Any:
    """Where a report goes: not between the bytes of a wav on standard output."""
    return sys.stderr if target == STANDARD_STREAM else sys.stdout


def write_result(result: Any, target: str) -> None:
    """Write a generated waveform, making the folder first."""
    if target != STANDARD_STREAM:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    result.save(target)


# ------------------------------------------------------------------------------------------------- audio to text


@app.command()
def transcribe(
    files: Files,
    language: Language = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Start and end second of each piece.")] = False,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = 8,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Write down what is said: one line [bold]path<TAB>text[/bold] per file."""
    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p, language)
    describe_files(
        files,
        options,
        out,
        overwrite,
        timestamps,
        lambda loaded, audio: loaded.transcribe(
            audio, language=options.language, batch_size=batch_size, **options.sampling
        ),
    )


@app.command()
def caption(
    files: Files,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Start and end second of each piece.")] = False,
    out: OutFolder = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = 8,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Say in words what is heard: one line [bold]path<TAB>text[/bold] per file."""
    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p)
    describe_files(
        files,
        options,
        out,
        overwrite,
        timestamps,
        lambda loaded, audio: loaded.caption(audio, batch_size=batch_size, **options.sampling),
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
def speak(
    output: Output,
    text: Text = None,
    voice: Annotated[
        Path | None, typer.Option("--voice", metavar="WAV", help="About 3 s of the voice to speak with.")
    ] = None,
    language: Language = None,
    lines: Lines = None,
    overwrite: Overwrite = False,
    best_of: Annotated[
        int, typer.Option("--best-of", min=1, help="Attempts per sentence; the best read back is kept.")
    ] = 1,
    steps: Steps = None,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Read a text aloud; long text goes sentence by sentence in one voice."""
    from uniaudio2.speech_text import plan_speech

    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p, language)
    texts = texts_to_say(text, lines)
    if voice is not None:
        check_readable(str(voice))

    def check(one: str) -> None:
        plan_speech(one, options.language)

    prompt: list[Tensor] = []

    def call(loaded: "UniAudio2", one: str) -> Any:
        if voice is not None and not prompt:
            from uniaudio2.audio import read_audio

            prompt.append(loaded.check_audio(read_audio(str(voice))))
        return loaded.speak(
            one,
            voice=prompt[0] if prompt else None,
            language=options.language,
            steps=steps,
            best_of=best_of,
            **options.sampling,
        )

    make_audio(texts, output, lines is not None, options, overwrite, check, call)


@generate_app.command("sound")
def generate_sound(
    output: Output,
    text: Text = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", min=0.4, max=30.0, help="Seconds.  [dim]default: free[/dim]"),
    ] = None,
    lines: Lines = None,
    overwrite: Overwrite = False,
    steps: Steps = None,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Make the sound that a text describes, such as "a dog barking"."""
    from uniaudio2.speech_text import check_description

    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p)
    texts = texts_to_say(text, lines)

    def check(one: str) -> None:
        check_description(one)

    def call(loaded: "UniAudio2", one: str) -> Any:
        return loaded.generate_sound(one, duration_s=duration, steps=steps, **options.sampling)

    make_audio(texts, output, lines is not None, options, overwrite, check, call)


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
    overwrite: bool,
    options: Options,
    work: Callable[["UniAudio2", str, str], dict[str, Any]],
) -> None:
    """The common body of ``encode`` and ``decode``: one file in, one file out, a folder's tree mirrored."""
    batch = Batch(options.as_json and output != STANDARD_STREAM)
    if _one_or_folder(inputs, output):
        todo = [
            (item, str(target))
            for item, target in audio_inputs(inputs, Path(output), suffix, overwrite, batch, suffixes)
        ]
    else:
        check_output_file(output, WRITABLE_AUDIO if suffix == ".wav" else (suffix,))
        todo = [(item, output) for item in batch.screen(collect_inputs(inputs, suffixes))]
    if not todo:
        batch.finish()
        return
    model = options.load()
    for item, target in todo:
        with batch.guard(item.source):
            began = time.perf_counter()
            if target != STANDARD_STREAM:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            facts = work(model, item.source, target)
            elapsed = time.perf_counter() - began
            batch.served += 1
            record = {"path": item.source, "output": target, **facts}
            record["real_time_factor"] = round(elapsed / max(facts["duration_s"], 1e-9), 4)
            if options.as_json:
                print(json.dumps(record, ensure_ascii=False), file=_report_stream(target), flush=True)
            else:
                say(f"{target}: {facts['duration_s']:.2f} s of audio in {elapsed:.2f} s")
    batch.finish()


@app.command()
def encode(
    inputs: Files,
    output: Annotated[
        str,
        typer.Option("--output", "-o", "--out", metavar="PATH", help="Codes file (.safetensors), - , or a folder."),
    ],
    overwrite: Overwrite = False,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Turn audio into codes. Nothing is sampled here: seed, temperature, top-k and guidance change nothing."""
    options = Options(model, device, seed, temperature, top_k, guidance, as_json)

    def work(loaded: "UniAudio2", source: str, target: str) -> dict[str, Any]:
        from uniaudio2.audio import read_audio

        codes = loaded.encode(loaded.check_audio(read_audio(source)))
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

    convert_files(inputs, output, ".safetensors", AUDIO_SUFFIXES, overwrite, options, work)


@app.command()
def decode(
    inputs: Annotated[list[str], typer.Argument(help="Codes files, folders, or -.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", "--out", metavar="PATH", help="Wav file, - , or a folder.")],
    overwrite: Overwrite = False,
    steps: Steps = None,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Turn codes into audio. Seed, temperature and guidance act on the decoder's noise; top-k changes nothing."""
    options = Options(model, device, seed, temperature, top_k, guidance, as_json)

    def work(loaded: "UniAudio2", source: str, target: str) -> dict[str, Any]:
        from uniaudio2.audio import write_audio
        from uniaudio2.codes import AudioCodes

        if source == STANDARD_STREAM:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "codes.safetensors"
                path.write_bytes(sys.stdin.buffer.read())
                codes = AudioCodes.load(path)
        else:
            codes = AudioCodes.load(Path(source))
        audio = loaded.decode(codes, seed=seed, guidance=guidance, steps=steps, temperature=temperature)
        write_audio(target, audio)
        return {"duration_s": codes.duration_s}

    convert_files(inputs, output, ".wav", CODES_SUFFIXES, overwrite, options, work)


# ------------------------------------------------------------------------------------------------- any task


def read_values(task: Any, assignments: Sequence[str]) -> dict[str, str]:
    """``name=value`` pairs checked against a row of the task table; audio values are paths."""
    kinds: dict[str, str] = {}
    for part in task.inputs:
        kinds.setdefault(part.value, part.kind)
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r}: inputs are given as name=value; {task.name} takes {', '.join(kinds)}")
        if name not in kinds:
            raise InputError(f"task {task.name!r} has no input {name!r}; it takes {', '.join(kinds) or 'none'}")
        if kinds[name] == "text":
            if not value.strip():
                raise InputError(f"{name}: the text is empty")
        else:
            check_readable(value)
        values[name] = value
    missing = [name for name in task.required_inputs if name not in values]
    if missing:
        raise InputError(f"task {task.name!r} needs {' and '.join(f'{name}=…' for name in missing)}")
    return values


@app.command("run")
def run_task(
    task: Annotated[str, typer.Argument(help="Name in the task table, such as asr, tts, tta; 'list' shows all.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(help="name=value: a text, or the path of an audio file.", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="Wav file, or a folder for several; needed for audio."),
    ] = None,
    language: Language = None,
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", min=0.4, help="Longest audio to make.  [dim]default: from the input[/dim]"),
    ] = None,
    steps: Steps = None,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
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
    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p, language)
    row = get_task(task)
    values = read_values(row, inputs or [])
    audio_names = list(dict.fromkeys(part.value for part in row.outputs if part.kind != "text"))
    if audio_names and output is None:
        raise InputError(f"task {row.name!r} makes audio: name a wav file with -o")
    if output is not None and len(audio_names) == 1:
        check_output_file(output, (*WRITABLE_AUDIO, ".safetensors"))
    elif output is not None:
        check_output_folder(Path(output))
    loaded = options.load()
    from uniaudio2.codes import AudioCodes

    results = loaded.run(
        row.name, values, language=options.language, max_duration_s=max_seconds, steps=steps, **options.sampling
    )
    for name, result in results.items():
        if isinstance(result, str):
            record, line = {"task": row.name, "value": name, "text": result}, result
        elif isinstance(result, AudioCodes):
            target = str(Path(str(output)).with_suffix(".safetensors"))
            result.save(target)
            record, line = {"task": row.name, "value": name, "path": target}, target
        else:
            target = str(output) if len(audio_names) == 1 else str(Path(str(output)) / f"{name}.wav")
            write_result(result, target)
            record, line = {"task": row.name, "value": name, "path": target, **result.to_dict()}, target
        if output == STANDARD_STREAM:
            continue
        if as_json:
            emit(record)
        else:
            print(line, flush=True)


# ------------------------------------------------------------------------------------------------- data


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the corpus; an interrupted run goes on.")],
    preset: Annotated[str, typer.Option("--preset", help="How much of what: pilot, nano, ….")] = "nano",
    seed: Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 works in this one.")] = 2,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", metavar="DIR", help="Text and real sets.  [dim]or UNIAUDIO2_DATA[/dim]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep the shards that are finished.")] = True,
) -> None:
    """Make labelled speech and sounds with the synthesisers of this machine."""
    check_output_folder(out)
    from uniaudio2.data.synth.run import synthesise

    with progress_bar("shards") as show:
        manifest = synthesise(
            out,
            preset=preset,
            seed=seed,
            workers=workers,
            resume=resume,
            data_root=data_root,
            progress=lambda done, total, clips: show(done, total),
        )
    print(manifest)


@data_app.command("validate")
def data_validate(
    manifest: Annotated[Path, typer.Argument(help="Manifest (JSONL), or the folder that holds it.")],
    as_json: AsJson = False,
) -> None:
    """Check a manifest against its audio; problems are listed one per line."""
    from uniaudio2.data.manifest import validate

    report = validate(manifest)
    if as_json:
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
def data_inspect(
    manifest: Annotated[Path, typer.Argument(help="Corpus folder or manifest.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for pictures, clips and a page.")],
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Pictures per class.")] = 12,
    clips: Annotated[int, typer.Option("--clips", min=0, help="Clips per class to listen to.")] = 3,
    seed: Seed = 0,
) -> None:
    """Pictures and clips of every class, to check labels by eye and ear."""
    check_output_folder(out)
    from uniaudio2.data.inspect import inspect

    for sheet in inspect(manifest, out, pictures=pictures, clips=clips, seed=seed):
        print(sheet)


@app.command()
def prepare(
    manifest: Annotated[Path, typer.Argument(help="Corpus folder or manifest.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of codes; goes on where it stopped.")],
    splits: Annotated[str, typer.Option("--splits", help="Parts of the manifest, with commas.")] = "train,dev",
    augmented_copies: Annotated[int, typer.Option("--augmented-copies", min=0, help="More copies of recordings.")] = 0,
    synthetic_copies: Annotated[
        float, typer.Option("--synthetic-copies", min=0.0, help="The same for synthetic clips.")
    ] = 0.0,
    part: Annotated[int, typer.Option("--part", min=0, help="Which part of the work this process does.")] = 0,
    parts: Annotated[int, typer.Option("--parts", min=1, help="Processes that share the work.")] = 1,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Turn a corpus into codes for training the language model."""
    options = Options(model, device, seed, None, None, None, False)
    check_readable(str(manifest / "manifest.jsonl" if manifest.is_dir() else manifest))
    check_output_folder(out)
    from uniaudio2.checkpoint import load_codec
    from uniaudio2.data.augment import augment
    from uniaudio2.data.corpus import Corpus
    from uniaudio2.data.prepare import PrepareConfig
    from uniaudio2.data.prepare import prepare as prepare_codes
    from uniaudio2.pipeline import choose_device

    config = PrepareConfig(
        augmented_copies=augmented_copies,
        synthetic_copies=synthetic_copies,
        splits=tuple(name.strip() for name in splits.split(",") if name.strip()),
        seed=seed,
        part=part,
        parts=parts,
    )
    corpus = Corpus(manifest)
    codec = load_codec(options.model, device=choose_device(device))
    print(prepare_codes(codec, corpus, out, config, augment=augment, log=say))


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
    print(result.export_dir)


@app.command()
def assemble(
    out: Annotated[Path, typer.Argument(help="Model folder; made or extended.")],
    part: Annotated[list[str] | None, typer.Option("--part", help="Codec part that a stage exported; repeat.")] = None,
    text_decoder: Annotated[str | None, typer.Option("--text-decoder", help="Export of the reasoning stage.")] = None,
    language_model: Annotated[str | None, typer.Option("--language-model", help="Export of an lm stage.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Codec preset that the parts were trained with.")] = "nano",
    card: Annotated[Path | None, typer.Option("--card", help="Model card to put in.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bf16 or int8.")] = "int8",
) -> None:
    """Join what the training stages exported into one model folder."""
    if dtype not in ("float32", "bf16", "int8"):
        raise InputError(f"--dtype {dtype}: unknown, choose float32, bf16 or int8")
    if not part and not language_model:
        raise InputError("nothing to join: give --part for every codec stage, or --language-model")
    check_output_folder(out)
    from uniaudio2.train.codec import SHIPPED_TOKENIZER
    from uniaudio2.train.stages import assemble as join

    print(
        join(
            out,
            preset=preset,
            parts=part or (),
            text_decoder=text_decoder,
            language_model=language_model,
            tokenizer=SHIPPED_TOKENIZER,
            card=card.read_text(encoding="utf-8") if card else None,
            dtype=cast(Any, dtype),
        )
    )


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Published file or folder; 'llama' to start from a Llama folder.")],
    paths: Annotated[list[str], typer.Argument(help="[SOURCE] TARGET and KEY=VALUE changes.", show_default=False)],
    dtype: Annotated[str, typer.Option("--dtype", help="same, float32, bf16 or int8.")] = "same",
    preset: Annotated[str, typer.Option("--preset", help="Language model preset, with llama.")] = "3b",
    seed: Seed = 0,
    as_json: AsJson = False,
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
        from uniaudio2.convert_llama import convert_llama

        report = convert_llama(
            places[0], places[1], preset=preset, dtype=cast(Any, dtype), overrides=overrides, seed=seed
        )
    else:
        if len(places) != 1:
            raise InputError("give: uniaudio2 convert SOURCE TARGET")
        check_output_folder(Path(places[0]))
        from uniaudio2.convert import convert as convert_weights

        report = convert_weights(source, places[0], dtype=cast(Any, dtype), overrides=overrides)
    if as_json:
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
    batch_size: BatchSize = 8,
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Score the model; every figure comes with its interval, and with its target where there is one."""
    from uniaudio2.eval import EVALUATIONS, find_evaluation
    from uniaudio2.eval import evaluate as run_evaluation

    if task == "list":
        for row in EVALUATIONS:
            print(f"{row.task}\t{row.data}\t{row.description}")
        return
    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p)
    find_evaluation(task, data)
    if out is not None:
        check_output_file(str(out))
    from uniaudio2.pipeline import choose_device

    sampling = {name: value for name, value in options.sampling.items() if name != "seed"}
    report = run_evaluation(
        task,
        data=data,
        model=options.model,
        data_root=data_root,
        corpus=corpus,
        limit=limit,
        seed=seed,
        device=str(choose_device(device)),
        normaliser=normaliser,
        languages=tuple(name.strip() for name in languages.split(",") if name.strip()),
        work=keep,
        out=out,
        progress=sys.stderr.isatty(),
        command=command_line(),
        batch_size=batch_size,
        **sampling,
    )
    show_report(report, as_json, markdown)


@app.command()
def bench(
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="JSON", help="Write the full report.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Rows for a table of results.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure load time and real-time factors on this machine."""
    options = Options(model, device, seed, None, None, None, as_json)
    if out is not None:
        check_output_file(str(out))
    from uniaudio2.eval import evaluate as run_evaluation
    from uniaudio2.pipeline import choose_device

    place = str(choose_device(device))
    report = run_evaluation("speed", model=options.model, device=place, seed=seed, out=out, command=command_line())
    show_report(report, as_json, markdown)


def command_line() -> str:
    """The command as it was typed, for reports."""
    return " ".join(["uniaudio2", *(shlex.quote(word) for word in sys.argv[1:])])


# ------------------------------------------------------------------------------------------------- looking around


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="DIR", help="Model folder to look at.")] = None,
    device: Device = "auto",
    presets: Annotated[str, typer.Option("--presets", help="Presets whose memory is shown, with commas.")] = "nano",
    as_json: AsJson = False,
) -> None:
    """What is installed, what is missing, which devices and model there are, and how much memory presets take."""
    from uniaudio2.doctor import diagnose, preset_sizes

    findings = diagnose(model)
    sizes = [size for name in presets.split(",") if name.strip() for size in preset_sizes(name.strip())]
    if as_json:
        emit({"findings": [vars(finding) for finding in findings], "presets": [size.to_dict() for size in sizes]})
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for finding in findings:
            mark = Text("ok", "green") if finding.ok else Text("--", "yellow")
            table.add_row(finding.topic, finding.name, mark, Text(finding.value), Text(finding.remedy))
        console.print(table)
        memory = Table(title="memory of the weights, MB", title_justify="left")
        for name in ("preset", "parameters", "float32", "bf16", "int8", "int4"):
            memory.add_column(name, justify="left" if name == "preset" else "right")
        for size in sizes:
            megabytes = [f"{count / 1e6:.1f}" for count in size.memory().values()]
            memory.add_row(f"{size.kind} {size.name}", f"{size.total / 1e6:.1f} M", *megabytes)
        console.print(memory)
    from uniaudio2.pipeline import choose_device

    choose_device(device)
    if not all(finding.ok for finding in findings if finding.topic in ("program", "package", "model")):
        raise BatchError


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for sounds, pictures and the page.")
    ] = Path("demo"),
    model: Model = None,
    device: Device = "auto",
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    as_json: AsJson = False,
) -> None:
    """Run the model on the recordings in the package; writes sounds, pictures and a page to listen to."""
    options = Options(model, device, seed, temperature, top_k, guidance, as_json, top_p)
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
    if as_json:
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
        code = command.main(args=list(arguments), prog_name="uniaudio2", standalone_mode=False)
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
        if os.environ.get("UNIAUDIO2_TRACEBACK") or not is_expected(error):
            raise
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
