"""How an item is done, and the command line that does the same: rows of the task table, speech, sounds, codes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from uniaudio2.tasks import get_task, required

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2

STEPS = (1, 2, 4, 10)
"""Steps of the decoder that are heard side by side."""

Result: TypeAlias = "str | Tensor | Timed"
Sides = tuple[Mapping[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Timed:
    """A waveform (1, N) whose seconds of work are to be seen beside others."""

    wave: Tensor
    seconds: float


@dataclass(frozen=True)
class Job:
    """An item whose sounds are files now.

    Attributes:
        row: Of the task table; empty for codes.
        given: Inputs by name: text, or the path of a file.
        shots: Examples in front, likewise.
        language: Told to the model.
        sampling: Sampling options of the model's methods; None is the model's default.
        untrained: Run a row also that the model was not trained for.
    """

    row: str
    given: Mapping[str, str]
    shots: tuple[Sides, ...] = ()
    language: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = False

    @property
    def seed(self) -> int:
        """Of every random choice."""
        return int(self.sampling.get("seed") or 0)


@dataclass(frozen=True)
class Way:
    """One way of doing a job.

    Attributes:
        run: Gives the outputs by name, text or a waveform (1, N).
        command: The same as a command line; ``{out}`` stands for the file that it writes, where it writes one.
    """

    run: Callable[[UniAudio2, Job], dict[str, Result]]
    command: Callable[[Job], list[str]]


def command_line(way: Way, job: Job, model: str | None, out: str) -> str:
    """What to type to get a job's result.

    Args:
        way: How it is done.
        job: With paths as they are to be typed.
        model: ``--model``; None for the default.
        out: What to write.
    """
    options = [] if model is None else ["--model", model]
    for name, value in job.sampling.items():
        if value is not None and (name, value) != ("seed", 0):
            options += [f"--{name.replace('_', '-')}", str(value)]
    lines = []
    for line in way.command(job):
        words = ["uniaudio2", line, *([] if line.startswith("encode") or not options else [shlex.join(options)])]
        lines.append(" ".join(words).replace("{out}", shlex.quote(out)))
    return "\n".join(lines)


def _run_row(model: UniAudio2, job: Job) -> dict[str, Result]:
    made = model.run(
        job.row, job.given, shots=job.shots, language=job.language, untrained=job.untrained, **job.sampling
    )
    found: dict[str, Result] = {}
    for name, value in made.items():
        heard = getattr(value, "audio", value)
        assert isinstance(heard, str | Tensor), "no section has a row that makes codes alone"
        found[name] = heard
    return found


def _row_command(job: Job) -> list[str]:
    row = get_task(job.row)
    words = ["run", job.row, *(f"{name}={value}" for name, value in job.given.items())]
    for given, made in job.shots:
        sides = zip((given, made), (row.inputs, row.outputs), strict=True)
        words += ["--shot", *(_side(values, len(required(parts))) for values, parts in sides)]
    words += ["--language", job.language] if job.language else []
    words += ["--untrained"] if job.untrained else []
    made = {part.value for part in row.outputs} if row.makes_audio else set()
    return [shlex.join(words) + (" -o parts/" if len(made) > 1 else " -o {out}" if made else "")]


def _side(values: Mapping[str, str], needed: int) -> str:
    """One side of an example as a word: the value alone where the row needs one."""
    if needed == 1 and len(values) == 1:
        return next(iter(values.values()))
    return " ".join(f"{name}={value}" for name, value in values.items())


def _transcribe(model: UniAudio2, job: Job) -> dict[str, Result]:
    heard = model.transcribe(job.given["audio"], language=job.language, **job.sampling)
    return {"transcription": heard.text}


def _caption(model: UniAudio2, job: Job) -> dict[str, Result]:
    return {"caption": model.caption(job.given["audio"], **job.sampling).text}


def _speak(model: UniAudio2, job: Job) -> dict[str, Result]:
    voice = job.given.get("voice")
    speech = model.speak(job.given["transcription"], voice=voice, language=job.language, **job.sampling)
    return {"audio": speech.audio}


def _speak_command(job: Job) -> list[str]:
    words = ["speak", job.given["transcription"], *(["--language", job.language] if job.language else [])]
    words += ["--voice", job.given["voice"]] if "voice" in job.given else []
    return [shlex.join(words) + " -o {out}"]


def _sound(model: UniAudio2, job: Job) -> dict[str, Result]:
    return {"audio": model.generate_sound(job.given["caption"], **job.sampling).audio}


def _codec(model: UniAudio2, job: Job) -> dict[str, Result]:
    return {"audio": model.decode(model.encode(job.given["audio"]), seed=job.seed)}


def _steps(model: UniAudio2, job: Job) -> dict[str, Result]:
    codes = model.encode(job.given["audio"])
    made: dict[str, Result] = {}
    for steps in STEPS:
        began = time.perf_counter()
        wave = model.decode(codes, seed=job.seed, steps=steps)
        made[f"steps_{steps}"] = Timed(wave, time.perf_counter() - began)
    return made


def _codes_command(job: Job) -> list[str]:
    return [shlex.join(["encode", job.given["audio"], "-o", "codes.safetensors"]), "decode codes.safetensors -o {out}"]


def _steps_command(job: Job) -> list[str]:
    first, second = _codes_command(job)
    return [first, *(second.replace("-o", f"--steps {steps} -o") for steps in STEPS)]


def _listen_command(name: str) -> Callable[[Job], list[str]]:
    def command(job: Job) -> list[str]:
        """A command that prints a text."""
        told = ["--language", job.language] if job.language and name == "transcribe" else []
        return [shlex.join([name, job.given["audio"], *told])]

    return command


ROW = Way(_run_row, _row_command)
TRANSCRIBE = Way(_transcribe, _listen_command("transcribe"))
CAPTION = Way(_caption, _listen_command("caption"))
SPEAK = Way(_speak, _speak_command)
SOUND = Way(_sound, lambda job: [shlex.join(["generate", "sound", job.given["caption"]]) + " -o {out}"])
CODEC = Way(_codec, _codes_command)
FEW_STEPS = Way(_steps, _steps_command)
