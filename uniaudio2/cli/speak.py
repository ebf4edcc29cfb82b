"""From text to audio: ``speak`` and ``generate sound``."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uniaudio2.batch import STANDARD_STREAM, InputError, check_output_file, check_output_folder, check_readable
from uniaudio2.cli.options import MODEL_OPTIONS, Number, Options, count, takes
from uniaudio2.cli.output import Batch, emit, report_made, say
from uniaudio2.formats import WRITABLE_AUDIO

if TYPE_CHECKING:
    from torch import Tensor

    from uniaudio2.api.model import UniAudio2
    from uniaudio2.api.results import AudioResult

text_argument = click.argument("text", required=False)
lines_option = click.option(
    "--lines", type=Path, metavar="FILE", help="Instead of TEXT: one text per line, into the folder -o."
)
output_option = click.option(
    "--output", "-o", required=True, metavar="PATH",
    help="Audio file, such as hello.wav; - for standard output; a folder such as new/, as always with --lines.",
)  # fmt: skip


@click.command()
@text_argument
@output_option
@click.option(
    "--voice",
    metavar="NAME|WAV",
    help="A voice that `uniaudio2 voices` lists, or about 3 s of the voice to speak with.",
)
@lines_option
@click.option(
    "--best-of", type=count(1, 64), metavar="N",
    help="Attempts per sentence; the best heard is kept.  [default: the model's, nano 4]",
)  # fmt: skip
@click.option("--stream", is_flag=True, help="With -o -: write a WAV file while it is made, one attempt per sentence.")
@click.option("--raw", is_flag=True, help="With --stream: bare 16-bit samples at 24 kHz, without a header.")
@click.option(
    "--speed",
    type=Number(0.25, 4),
    default=1.0,
    show_default=True,
    metavar="X",
    help="0.25 to 4; 2 is twice as fast. The pitch stays.",
)
@takes("overwrite", "steps", "language", *MODEL_OPTIONS)
def speak(
    text: str | None,
    output: str,
    voice: str | None,
    lines: Path | None,
    best_of: int | None,
    stream: bool,
    raw: bool,
    speed: float,
    *,
    options: Options,
) -> None:
    """Read a text aloud.

    TEXT may be - for standard input. A long one goes sentence by sentence in one voice.
    """
    from uniaudio2.speech_text import plan_speech

    if raw and not stream:
        raise InputError("--raw goes with --stream")
    if stream and (output != STANDARD_STREAM or lines is not None):
        raise InputError("--stream writes one text to standard output: use -o - and no --lines")
    texts = _texts(text, lines)
    prompt = None if voice is None else voice_prompt(voice, options.model)

    def check(one: str) -> None:
        sentences = plan_speech(one, options.language)
        options.check_trained(*("yue_tts" if sentence.language == "yue" else "tts" for sentence in sentences))

    if stream:
        check(texts[0])
        began, model = time.perf_counter(), options.load()
        pieces = model.stream(
            texts[0],
            voice=prompt,
            language=options.language,
            steps=options.steps,
            best_of=best_of,
            speed=speed,
            **options.sampling,
        )
        _write_stream(pieces, texts[0], raw, options, began)
        return

    def call(model: "UniAudio2", one: str) -> "AudioResult":
        return model.speak(
            one,
            voice=prompt,
            language=options.language,
            steps=options.steps,
            best_of=best_of,
            speed=speed,
            **options.sampling,
        )

    _make(texts, output, lines is not None, "speech", options, check, call)


def voice_prompt(voice: str, model: str | None) -> "Tensor":
    """The waveform of a file, or of a voice that comes with the model; found out before the model loads."""
    from uniaudio2.audio import read_audio
    from uniaudio2.storage.folder import open_folder
    from uniaudio2.storage.voices import read_voices

    if voice != STANDARD_STREAM and not Path(voice).exists() and "/" not in voice:
        known = read_voices(open_folder(model).path)
        if voice in known:
            return read_audio(known[voice].recording)
        if "." not in voice:
            raise InputError(f"--voice {voice}: neither a file nor a voice of the model; `uniaudio2 voices` lists them")
    return read_audio(voice)


def _write_stream(pieces: "Iterator[Tensor]", text: str, raw: bool, options: Options, began: float) -> None:
    """Waveforms to standard output while they are made."""
    from uniaudio2.audio import SAMPLE_RATE, PipeWriter

    writer, samples = PipeWriter(sys.stdout.buffer, header=not raw), 0
    for piece in pieces:
        writer.write(piece)
        samples += piece.shape[-1]
    record = {"path": STANDARD_STREAM, "text": text, "duration_s": round(samples / SAMPLE_RATE, 3)}
    report_made(record, STANDARD_STREAM, options, began)


@click.command()
@takes("model", "as_json")
def voices(*, options: Options) -> None:
    """List the voices that come with the model.

    Each is a recording of three seconds; `uniaudio2 speak --voice NAME` speaks with it.
    """
    from uniaudio2.storage.folder import open_folder
    from uniaudio2.storage.voices import read_voices

    found = read_voices(open_folder(options.model).path)
    for one in found.values():
        record = {"name": one.name, "language": one.language, "gender": one.gender, "about": one.about}
        if options.as_json:
            emit({**record, "recording": str(one.recording), "licence": one.licence})
        else:
            print("\t".join(record.values()))
    if not found:
        say("this model comes with no voices; speak --voice takes a recording of about 3 s")


@click.group()
def generate() -> None:
    """Make audio that is not speech from a description."""


@generate.command("sound")
@text_argument
@output_option
@click.option("--duration", type=Number(0.2), metavar="S", help="Seconds, to the sample.  [default: free]")
@lines_option
@takes("overwrite", "steps", *MODEL_OPTIONS)
def generate_sound(
    text: str | None, output: str, duration: float | None, lines: Path | None, *, options: Options
) -> None:
    """Make the sound that a text describes.

    TEXT, such as "a dog barking", may be - for standard input.
    """
    from uniaudio2.speech_text import check_description

    def check(one: str) -> None:
        check_description(one)
        options.check_trained("tta")

    def call(model: "UniAudio2", one: str) -> "AudioResult":
        return model.generate_sound(one, duration_s=duration, steps=options.steps, **options.sampling)

    _make(_texts(text, lines), output, lines is not None, "sound", options, check, call)


def _texts(text: str | None, lines: Path | None) -> list[str]:
    """The texts that were given: one argument, standard input, or a file with one per line."""
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


def _targets(texts: Sequence[str], output: str, is_batch: bool, name: str) -> list[str]:
    """One path per text: the given file, one of this name or numbered wav files in the given folder."""
    if not is_batch:
        if output.endswith("/"):  # a folder, which may be a new one
            check_output_folder(Path(output))
            return [str(Path(output) / f"{name}.wav")]
        check_output_file(output, WRITABLE_AUDIO)
        return [output]
    check_output_folder(Path(output))
    width = max(4, len(str(len(texts))))
    return [str(Path(output) / f"{number:0{width}d}.wav") for number in range(1, len(texts) + 1)]


def _make(
    texts: Sequence[str],
    output: str,
    is_batch: bool,
    name: str,
    options: Options,
    check: Callable[[str], None],
    call: "Callable[[UniAudio2, str], AudioResult]",
) -> None:
    """The common body: texts in, one audio file each out."""
    batch = Batch(options.as_json and output != STANDARD_STREAM, total=len(texts))
    todo = []
    for text, target in zip(texts, _targets(texts, output, is_batch, name), strict=True):
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
