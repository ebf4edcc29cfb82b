"""What the methods of ``UniAudio2`` return.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, write_audio
from uniaudio2.codes import AudioCodes
from uniaudio2.speech_text import Sentence, is_han


@dataclass(frozen=True)
class Word:
    """A word of a transcript and when it is said."""

    start_s: float
    end_s: float
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3), "text": self.text}


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was found in it."""

    start_s: float
    end_s: float
    text: str
    # Mean of the natural logarithm of what the model gave to each token of the text and to its end; None: no model ran.
    mean_log_probability: float | None = None
    # What the model gave to an empty text; 1 where the stretch is too quiet to be worked on.
    no_speech_probability: float | None = None
    words: tuple[Word, ...] = ()  # where they were asked for

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        record: dict[str, Any] = Word(self.start_s, self.end_s, self.text).to_dict()
        words = {"words": [word.to_dict() for word in self.words]} if self.words else {}
        return record | words | _scores(self)


@dataclass(frozen=True)
class TextResult:
    """What was said or heard in one recording; ``str()`` gives the text."""

    text: str
    segments: tuple[Segment, ...]  # in order, only those with text
    duration_s: float
    language: str | None = None  # as asked for, else what the characters of the text tell; None for captions
    mean_log_probability: float | None = None  # mean over the segments, by their length
    no_speech_probability: float | None = None  # the same over all of the recording, 1 where nothing was worked on

    def __str__(self) -> str:
        return self.text

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments, where they were asked for."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        record: dict[str, Any] = {
            "text": self.text,
            "duration_s": round(self.duration_s, 3),
            "segments": [part.to_dict() for part in self.segments],
        }
        return record | ({} if self.language is None else {"language": self.language}) | _scores(self)


def _scores(result: Segment | TextResult) -> dict[str, float]:
    """Those scores that there are."""
    found = {name: getattr(result, name) for name in ("mean_log_probability", "no_speech_probability")}
    return {name: round(value, 4) for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class LiveResult:
    """What is known of audio that is still coming; ``str()`` gives the text."""

    text: str  # of the pieces that are finished: it only grows
    heard_s: float  # seconds of audio that have come
    # Of the piece that is being spoken: what two hearings of it agreed on, which only grows as long as the piece lasts,
    # and what the last one took to follow. The finished piece is heard anew, with more effort.
    agreed: str = ""
    guess: str = ""
    finished: tuple[Segment, ...] = ()  # since the result before, only those with text
    result: TextResult | None = None  # of all, with the last one

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        record: dict[str, Any] = {name: getattr(self, name) for name in ("text", "agreed", "guess")}
        record |= {"heard_s": round(self.heard_s, 3), "finished": [part.to_dict() for part in self.finished]}
        return record | ({} if self.result is None else {"result": self.result.to_dict()})


@dataclass(frozen=True)
class AudioResult:
    """A generated waveform and how it came about."""

    audio: Tensor  # (1, N), 24 kHz
    text: str
    seed: int
    codes: tuple[AudioCodes, ...] = ()  # one per piece
    sample_rate: int = SAMPLE_RATE

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.audio.shape[-1] / self.sample_rate

    def save(self, path: str | PathLike[str]) -> None:
        """Write a 16-bit wav or flac file (``-`` for standard output); complete or not at all.

        Raises:
            AudioError: If it cannot be written.
        """
        write_audio(str(path), self.audio, self.sample_rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"text": self.text, "duration_s": round(self.duration_s, 3), "seed": self.seed}


@dataclass(frozen=True)
class SpeechResult(AudioResult):
    """Generated speech; one entry of ``sentences``, ``times_s`` and ``codes`` for each piece spoken."""

    sentences: tuple[Sentence, ...] = ()
    times_s: tuple[tuple[float, float], ...] = ()  # where each starts and ends, without the pause behind it

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        languages = sorted({sentence.language for sentence in self.sentences})
        spoken = zip(self.sentences, self.times_s, strict=True)
        segments = [Segment(start, end, sentence.text).to_dict() for sentence, (start, end) in spoken]
        return {**super().to_dict(), "language": "+".join(languages), "segments": segments}


def join_texts(texts: Sequence[str]) -> str:
    """Texts of consecutive pieces as one, without a space between Chinese characters."""
    joined = ""
    for text in texts:
        glue = " " if joined and not (is_han(joined[-1]) and is_han(text[0])) else ""
        joined += glue + text
    return joined
