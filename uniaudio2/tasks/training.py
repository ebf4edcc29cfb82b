"""How a task is trained, as data: which examples fit it, what fills its values, held-out groups, kind of score.

An example of a corpus has named audios and named texts; ``audio`` is its recording and ``text`` what is said in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Score = Literal["wer", "cer", "exact", "class", "nats"]
"""What tells how well a task is done: word or character errors, the whole answer, the class that it names, or how
probable the right answer is (negative log-likelihood per token or code)."""

KINDS = ("speech", "sound", "music")
"""What an example can be."""


@dataclass(frozen=True)
class Audio:
    """A value that is one of the example's audios."""

    name: str = "audio"
    says: str | None = None  # the example's text that is said in it, frame by frame in the order of its words


@dataclass(frozen=True)
class Text:
    """A value that is one of the example's texts.

    Where the example has several phrasings (of a caption), an input is any of them and a target sometimes another.
    """

    name: str
    respelled: bool = False  # the mixture's BPE dropout applies where it is an input


@dataclass(frozen=True)
class Voice:
    """A value that is a short stretch of another clip of the same speaker, or of one of the example's audios."""

    audio: str | None = None  # the name of that audio


@dataclass(frozen=True)
class Sentence:
    """A value that is any sentence the run knows: the task needs no example."""


@dataclass(frozen=True)
class Label:
    """A value that is the name of the example's class; examples of it and of another class come first."""


Source: TypeAlias = Audio | Text | Voice | Sentence | Label


@dataclass(frozen=True)
class HeldOut:
    """A group of held-out examples that are scored together."""

    name: str  # in logs
    optional: tuple[str, ...] = ()  # optional values that are given
    language: str | None = None  # None: any
    recorded: bool | None = None  # True: recordings alone, False: synthetic clips alone


@dataclass(frozen=True)
class Training:
    """How a row of the task table is trained.

    Examples fit that have every value. Two rules come on top, for every task: audio that is predicted is no augmented
    copy (a copy at another speed is another voice, which only a voice prompt can ask for), and a speaking task
    whose optional voice is left out speaks with the mixture's house voices.
    """

    score: Score
    kinds: tuple[str, ...] = KINDS  # of examples that fit
    values: Mapping[str, Source] = field(default_factory=dict)  # those that are not the example's audio of that name,
    # its text of that name, or a voice
    held_out: tuple[HeldOut, ...] = ()  # none: one group of all, named as the task
