"""While it happens: transcripts of what comes through a pipe, and ``talk`` by microphone and loudspeaker."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uniaudio2.api.texts import timed_line
from uniaudio2.batch import STANDARD_STREAM, InputError
from uniaudio2.cli.options import MODEL_OPTIONS, Options, takes
from uniaudio2.cli.output import emit, say
from uniaudio2.cli.speak import voice_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from uniaudio2.api.model import UniAudio2
    from uniaudio2.api.results import LiveResult


def check_live(files: Sequence[str], form: str | None, out: Path | None, live: bool, raw: int | None) -> bool:
    """Whether standard input is to be transcribed as it comes.

    Raises:
        InputError: If what was asked for needs the whole of it.
    """
    if not live and raw is None:
        return False
    if list(files) != [STANDARD_STREAM]:
        raise InputError("--live and --raw are for standard input alone: give - in place of the files")
    if form is not None or out is not None:
        raise InputError("--live prints lines as they come: leave out --format and -o, or leave out --live and --raw")
    return True


def transcribe_live(raw: int | None, options: Options) -> None:
    """Print what standard input says, a line for each piece as soon as it is finished."""
    from uniaudio2.audio import PipeReader

    options.check_trained("yue_asr" if options.language == "yue" else "asr")
    source = PipeReader(sys.stdin.buffer, raw)
    results = options.load().listen(
        source,
        sample_rate=source.sample_rate,
        language=options.language,
        beams=options.beams,
        shifts=options.shifts,
        word_timestamps=options.timestamps == "words",
        every_s=1.0 if options.as_json or sys.stderr.isatty() else None,
        **options.sampling,
    )
    for result in results:
        _print_live(result, options.as_json, options.timestamps)


def _print_live(result: "LiveResult", as_json: bool, timestamps: str | None) -> None:
    """Finished pieces on standard output, and on a terminal what is being said below them."""
    if as_json:
        emit(result.to_dict())
        return
    terminal = sys.stderr.isatty()
    if terminal:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    for piece in result.finished:
        timed = piece.words if timestamps == "words" else [piece]
        for line in map(timed_line, timed) if timestamps else [piece.text]:
            print(f"{STANDARD_STREAM}\t{line}", flush=True)
    if terminal and (result.agreed or result.guess):
        print(f"{result.agreed} \x1b[2m{result.guess}\x1b[0m"[-110:], end="", file=sys.stderr, flush=True)


@click.command()
@click.option(
    "--reply", metavar="COMMAND",
    help="Program that gets what was said on its standard input and prints the answer.  [default: it is said back]",
)  # fmt: skip
@click.option("--voice", metavar="NAME|WAV", help="Voice to speak with, as for `speak`.")
@click.option("--device-in", metavar="NAME", help="Microphone.  [default: the system's]")
@click.option("--device-out", metavar="NAME", help="Loudspeaker.  [default: the system's]")
@takes("language", *MODEL_OPTIONS)
def talk(
    reply: str | None, voice: str | None, device_in: str | None, device_out: str | None, *, options: Options
) -> None:
    """Talk by microphone and loudspeaker.

    What you say is written down when you pause for a second, handed to COMMAND, and its answer is spoken. End it with
    Ctrl-C. Needs the extra `mic`.
    """
    from uniaudio2.soundcard import Microphone, sound_library

    sound_library()
    command = shlex.split(reply) if reply is not None else None
    if command == []:
        raise InputError("--reply is empty: name a program, such as 'ollama run llama3'")
    yue = options.language == "yue"
    options.check_trained("yue_asr" if yue else "asr", "yue_tts" if yue else "tts")
    prompt = None if voice is None else voice_prompt(voice, options.model)
    model = options.load()
    with Microphone(device_in) as microphone:
        say("listening: speak, and pause for a second; Ctrl-C ends")
        for result in model.listen(microphone, language=options.language, **options.sampling):
            if not options.as_json:
                _print_live(result, False, None)
            for piece in result.finished:
                answer = piece.text if command is None else _ask(command, piece.text)
                if options.as_json:
                    emit({**piece.to_dict(), "answer": answer})
                elif command is not None:
                    print(f">\t{answer}", flush=True)
                if answer:
                    _answer(model, answer, prompt, device_out, options)
                    microphone.forget()


def _ask(command: list[str], text: str) -> str:
    """What a program answers; nothing if it fails, which is said."""
    try:
        done = subprocess.run(command, input=text + "\n", stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise InputError(f"--reply: {command[0]} cannot be run ({error.strerror})") from None
    if done.returncode:
        say(f"error: {command[0]} ended with code {done.returncode}")
    return " ".join(done.stdout.split())


def _answer(model: "UniAudio2", text: str, voice: "Tensor | None", device: str | None, options: Options) -> None:
    """Speak a text on the loudspeaker."""
    from uniaudio2.soundcard import play
    from uniaudio2.text import TextError

    try:
        play(model.stream(text, voice=voice, language=options.language, **options.sampling), device)
    except TextError as error:
        say(f"error: the answer cannot be spoken: {error}")
