"""What a system offers. A class below one of these, registered by name, is all that a comparison needs.

Shapes: ``N`` samples of a clip at the system's own ``sample_rate``, ``B`` clips, ``K`` codebooks, ``T`` frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from uniaudio2.data.example import Example

UNPINNED = "unpinned"
"""Stands for a revision that this package does not know: the newest is taken, and the report says which it was."""


@dataclass(frozen=True)
class Card:
    """What is known of a system before it is loaded.

    Attributes:
        title: Its name in tables.
        licence: Of its weights, as their publisher states it.
        hub_id: Where its weights are published; empty where it has none of its own.
        revision: Commit of the hub that is taken, so that a table can be made again; `UNPINNED` takes the newest.
        needs: What runs it.
        traps: What is easily done wrong with it.
    """

    title: str
    licence: str
    hub_id: str = ""
    revision: str = UNPINNED
    needs: str = ""
    traps: str = ""


class System(ABC):
    """What all systems have in common.

    Attributes:
        card: What it is.
        sample_rate: Of the audio that it takes and gives, Hz.
        version: What was loaded, for the report: a revision, a folder, a package's version.
    """

    card: ClassVar[Card]
    sample_rate: int = SAMPLE_RATE
    version: str = ""


class CodecSystem(System):
    """Audio to codes and back."""

    streams: tuple[Stream, ...]

    @property
    def bit_rate(self) -> float:
        """Bits per second of all streams."""
        return sum(stream.bit_rate for stream in self.streams)

    @abstractmethod
    def encode(self, clips: Sequence[Tensor]) -> list[AudioCodes]:
        """Codes of each clip (1, N), as if it were alone."""

    @abstractmethod
    def decode(self, codes: Sequence[AudioCodes]) -> list[Tensor]:
        """The waveform (1, N) of each clip's codes, as long as the clip was."""


class SpeechSystem(System):
    """A system that speaks, listens or both. Its tasks are the methods that it overrides; each is one call a clip."""

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """The tasks that it has, by the names of `TASK_METHODS`."""
        return tuple(
            task for task, name in TASK_METHODS.items() if getattr(cls, name) is not getattr(SpeechSystem, name)
        )

    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """What is said in a waveform (1, N)."""
        raise self._without("asr")

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """The text read aloud (1, N), in the voice of a waveform (1, N) where one is given."""
        raise self._without("tts")

    def caption(self, audio: Tensor, *, seed: int) -> str:
        """What is heard in a waveform (1, N)."""
        raise self._without("caption")

    def answer(self, audio: Tensor, question: str, *, seed: int) -> str:
        """The answer to a question about a waveform (1, N); to what is said in it where ``question`` is empty."""
        raise self._without("answer")

    def generate_sound(self, text: str, *, seed: int) -> Tensor:
        """The sound or music that a text describes (1, N)."""
        raise self._without("tta")

    def stream_speech(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Iterator[Tensor] | None:
        """The text read aloud, piece by piece as soon as each can be heard; None from a system that does not stream."""
        return None

    def stream_text(self, blocks: Iterable[Tensor], *, language: str | None, seed: int) -> Iterator[str] | None:
        """What is said in blocks (1, n) of audio that is still coming: all that is known so far, again and again.

        None from a system that wants the whole recording.
        """
        return None

    def _without(self, task: str) -> UserError:
        return UserError(f"{self.card.title} has no task {task}; it has {', '.join(self.tasks()) or 'none'}")


TASK_METHODS = {
    "asr": "transcribe", "tts": "speak", "caption": "caption", "answer": "answer", "tta": "generate_sound",
}  # fmt: skip
"""Tasks of a `SpeechSystem` and the methods that serve them."""


class StoredSystem(System):
    """Outputs that were made elsewhere and lie on disk; they have no speed."""

    kbps: float | None = None  # as stated by whoever made them

    @abstractmethod
    def audio(self, example: Example) -> Tensor:
        """The waveform (1, N) at ``sample_rate`` that belongs to an example; raises UserError if there is none."""

    @abstractmethod
    def text(self, example: Example) -> str:
        """The text that belongs to an example; raises UserError if there is none."""
