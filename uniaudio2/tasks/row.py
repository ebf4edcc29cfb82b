"""What a row of the task table is: its parts in order, which are predicted, prompts, lengths, and its training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from uniaudio2.errors import UserError
from uniaudio2.tasks.training import Audio, Label, Source, Text, Training, Voice

PartKind = str
"""``text``, ``audio`` (all streams of a recording in order), ``voice``, or the name of one stream of the codec."""

LengthRule = Literal["heard", "text", "spoken", "copied", "sound", "scene"]
"""How long what is generated may get; the numbers are the model's.

heard: text, by the seconds of the audio given. text: any text. spoken: by the time that the words given (a
transcription or lyrics where there are any) take to say. copied: about as long as the audio given, or twice as long
where a text is given too. sound: any sound. scene: any sound, or the time that the words given take to say, whichever
is more."""


@dataclass(frozen=True)
class Part:
    """One part of a sequence."""

    kind: PartKind  # voice: codes of a short recording's last stream, between the voice prompt's begin and end
    value: str  # name of the value that fills it, such as "transcription" or "audio"
    tag: str | None = None  # text only: written between <tag> and </tag>
    optional: bool = False  # may be left out


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Raises:
        UserError: If the row describes no task: nothing is predicted, or text and audio are predicted together, or an
            output is optional or a voice prompt, only one of the two prompt styles is given, or the training fills a
            value that the row has not.
    """

    name: str
    short: str  # the prompt in the "short" style, followed by the language where one is known
    prompts: tuple[str, ...]  # paraphrases for the "full" style; empty: the task has no prompt
    inputs: tuple[Part, ...]
    outputs: tuple[Part, ...]
    guidance: bool = False  # has a guidance form (condition replaced by padding) in training and generation
    language: str | None = None  # the task is about this language
    kind: Literal["speech", "sound"] = "speech"  # of the audio that is made; "sound" is sounds and music, no voices
    length: LengthRule | None = None  # None: by the kinds of inputs and outputs, see `length_rule`
    training: Training | None = None  # how examples become this row; None: no corpus of ours trains it

    def __post_init__(self) -> None:
        if not self.outputs:
            raise UserError(f"task '{self.name}' predicts nothing: give it outputs")
        if len({part.kind == "text" for part in self.outputs}) != 1:
            raise UserError(f"task '{self.name}' predicts text and audio together: make it two tasks")
        if any(part.optional or part.kind == "voice" for part in self.outputs):
            raise UserError(f"task '{self.name}': an output can be neither optional nor a voice prompt")
        if bool(self.short) != bool(self.prompts):
            raise UserError(f"task '{self.name}' needs a short prompt and paraphrases, or neither of them")
        unknown = sorted(set(self.training.values) - set(self.values)) if self.training is not None else []
        if unknown:
            raise UserError(f"task '{self.name}' has no value '{unknown[0]}' to train; it has {', '.join(self.values)}")

    @property
    def makes_audio(self) -> bool:
        """Whether audio is predicted."""
        return any(part.kind != "text" for part in self.outputs)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of all values in order, each once."""
        return tuple(dict.fromkeys(part.value for part in (*self.inputs, *self.outputs)))

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """Names of the values that must be given to generate."""
        return required(self.inputs)

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that may be left out."""
        return tuple(dict.fromkeys(part.value for part in self.inputs if part.optional))

    @property
    def needs_examples(self) -> bool:
        """Whether it can be asked only with examples in front: they name the classes."""
        return any(isinstance(self.source(value), Label) for value in self.values)

    @property
    def length_rule(self) -> LengthRule:
        """How long what is generated may get."""
        if self.length is not None:
            return self.length
        hears = any(part.kind not in ("text", "voice") for part in self.inputs)
        if not self.makes_audio:
            return "heard" if hears else "text"
        return "copied" if hears and not any(part.kind == "text" for part in self.inputs) else "scene"

    def reads_like(self, other: Task) -> bool:
        """Whether sequences of both rows are the same in the short prompt style, but for the language."""
        same = (self.short, self.inputs, self.outputs) == (other.short, other.inputs, other.outputs)
        return same and bool(self.short)

    def source(self, value: str) -> Source:
        """What an example gives for one value of the row."""
        given = self.training.values.get(value) if self.training is not None else None
        if given is not None:
            return given
        kind = next(part.kind for part in (*self.inputs, *self.outputs) if part.value == value)
        if kind == "voice":
            return Voice()
        return Text(value) if kind == "text" else Audio(value, says="text" if value == "audio" else None)


@dataclass(frozen=True)
class Form:
    """A row with some of its optional values: what a mixture gives a weight to, such as ``tts`` or ``tts+voice``."""

    task: Task
    optional: tuple[str, ...] = ()  # those that are given

    @property
    def name(self) -> str:
        """``TASK`` or ``TASK+VALUE``."""
        return "+".join((self.task.name, *self.optional))

    @cached_property
    def inputs(self) -> tuple[Part, ...]:
        """The inputs that are given, in order."""
        return tuple(part for part in self.task.inputs if not part.optional or part.value in self.optional)

    @cached_property
    def values(self) -> tuple[str, ...]:
        """Names of the values of this form in order, each once."""
        return tuple(dict.fromkeys(part.value for part in (*self.inputs, *self.task.outputs)))

    @cached_property
    def sources(self) -> dict[str, Source]:
        """What an example gives for each value."""
        return {value: self.task.source(value) for value in self.values}


def required(parts: Iterable[Part]) -> tuple[str, ...]:
    """Names of the values that these parts cannot do without."""
    return tuple(dict.fromkeys(part.value for part in parts if not part.optional))


def audio_parts(value: str) -> tuple[Part, ...]:
    """All streams of a recording, in the codec's order."""
    return (Part("audio", value),)
