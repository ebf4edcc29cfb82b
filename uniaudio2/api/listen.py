"""From audio to text: find speech, divide at pauses, generate in batches, join; in constant memory.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from uniaudio2.api.core import Core
from uniaudio2.api.inputs import level_dbfs
from uniaudio2.api.request import (
    GREEDY,
    SPOKEN,
    Ask,
    Effort,
    Heard,
    Sampling,
    check_sampling,
    generate,
    search,
    text_limits,
)
from uniaudio2.api.results import Segment, TextResult, join_texts
from uniaudio2.api.turns import language_turns
from uniaudio2.api.words import time_words
from uniaudio2.audio import SAMPLE_RATE, Recording, chunks_at_pauses
from uniaudio2.checks import check_number
from uniaudio2.codes import AudioCodes
from uniaudio2.speech_text import detect_language, is_han
from uniaudio2.tasks import Task
from uniaudio2.text import TextError
from uniaudio2.voice_activity import Speech, cut, find_speech, speech_share

MIN_CHUNK_S, MOST_CHUNK_S = 0.4, 3600.0
MOST_BATCH = 4096
MOSTLY = 0.2  # share of speech from which on a piece is said to be speech: 9 of 10 keywords, 2 of 100 sounds
BATCHES_HELD = 4  # batches of pieces that wait together, to be sorted by length

Progress: TypeAlias = Callable[[int, Segment], None]
"""Called for every piece that is finished, in order: number of the recording, and what was found, maybe nothing."""


class CaptionOptions(Sampling, total=False):
    """Options of `UniAudio2.caption`."""

    sample_rate: int
    max_chunk_s: float | None
    batch_size: int
    progress: Progress | None


class TranscribeOptions(CaptionOptions, total=False):
    """Options of `UniAudio2.transcribe`."""

    language: str | None
    beams: int | None
    shifts: int | None
    word_timestamps: bool


@dataclass(frozen=True)
class Listening:
    """How recordings are turned into text.

    Raises:
        ValueError: If a number is out of range.
    """

    row: Task  # one recording in, one text out
    language: str | None
    max_chunk_s: float
    batch_size: int
    effort: Effort = GREEDY
    silence: str = ""  # what is said of a piece with nothing to hear
    words: bool = False  # whether words get times

    def __post_init__(self) -> None:
        check_number("max_chunk_s", self.max_chunk_s, MIN_CHUNK_S, MOST_CHUNK_S)
        check_number("batch_size", self.batch_size, 1, MOST_BATCH, whole=True)

    @property
    def captions(self) -> bool:
        """Whether the text tells what is heard, not what is said."""
        return listens(self.row) == "caption"


def listens(row: Task) -> str | None:
    """What a row of one recording in, one text out finds: "transcription", "lyric" or "caption"; None: no such row."""
    kinds = [part.kind for part in row.inputs]
    names = {part.value for part in row.inputs}
    value = row.outputs[0].value
    one_recording = kinds == ["audio"] and len(names) == 1
    return value if one_recording and value in (*SPOKEN, "caption") else None


def describe(
    core: Core,
    recordings: Sequence[Recording],
    how: Listening,
    sampling: Sampling,
    progress: Progress | None = None,
) -> list[TextResult]:
    """What is said or heard in each of several recordings."""
    check_sampling(sampling)
    found: list[list[Segment]] = [[] for _ in recordings]
    threshold = None if how.captions else core.facts.generation.voice_threshold
    pieces = (
        (row, piece) for row, recording in enumerate(recordings) for piece in _divide(core, recording, how, threshold)
    )
    held = how.batch_size * (1 if progress else BATCHES_HELD)
    while group := list(islice(pieces, held)):
        heard = hear(core, [chunk.audio for _, chunk in group], how, sampling)
        for (row, chunk), one in zip(group, heard, strict=True):
            piece = segment(chunk, one, how)
            found[row].append(piece)
            if progress:
                progress(row, piece)
    return [joined(recording.duration_s, parts, how) for recording, parts in zip(recordings, found, strict=True)]


class Chunk(NamedTuple):
    """A piece of a recording that is worked on at once, and where in it something is to be heard, in samples."""

    start: int
    end: int
    audio: Tensor  # (1, n), with a margin around
    before: int = 0  # samples of the margin in front

    @property
    def speech(self) -> Tensor:
        """The audio without margins."""
        return self.audio[:, self.before : self.before + self.end - self.start]


def _divide(core: Core, recording: Recording, how: Listening, threshold: float | None) -> Iterator[Chunk]:
    """Pieces of at most ``how.max_chunk_s``, cut at pauses; with a threshold only where somebody speaks."""
    if threshold is None:
        for start, audio in chunks_at_pauses(recording.blocks(), how.max_chunk_s):
            yield Chunk(start, start + audio.shape[-1], audio)
        return
    for speech, blocks in cut(recording.blocks(), find_speech(recording, threshold)):
        for offset, audio in chunks_at_pauses(blocks, how.max_chunk_s):
            yield from chunks_of(core, how, threshold, speech, offset, audio)


def chunks_of(
    core: Core, how: Listening, threshold: float, speech: Speech, offset: int, audio: Tensor
) -> Iterator[Chunk]:
    """The pieces of a part (1, n) of a stretch of speech, from that sample of the stretch on.

    Where no language was told, it is cut where the language changes.
    """
    whole = [(0, audio.shape[-1])]
    for a, b in language_turns(core, audio, how.row, threshold) if how.language is None else whole:
        start, end = speech.first + offset + a, speech.first + offset + b
        first, last = max(start, speech.start), max(start, min(end, speech.end))
        yield Chunk(first, last, audio[:, a:b], first - start)


def segment(chunk: Chunk, heard: Heard, how: Listening) -> Segment:
    """A piece with what was heard in it."""
    words = time_words(chunk.speech, heard.text, chunk.start / SAMPLE_RATE) if how.words else ()
    return Segment(chunk.start / SAMPLE_RATE, chunk.end / SAMPLE_RATE, *heard, words)


def joined(duration_s: float, pieces: Sequence[Segment], how: Listening) -> TextResult:
    """One result of all pieces of a recording; captions are each said once."""
    segments = tuple(piece for piece in pieces if piece.text)
    said = [segment.text for segment in segments]
    if how.captions:
        heard = [text for text in dict.fromkeys(said) if text != how.silence] or said[:1]
        text, language = ", then ".join(heard), None
    else:
        text = join_texts(said)
        language = how.language or _language_of(text)
    return TextResult(
        text,
        segments,
        duration_s,
        language,
        *_scores(pieces, duration_s),
    )


def _language_of(text: str) -> str | None:
    """What the characters of a text tell, most of them; None for an empty one, or another script."""
    try:
        if sum(is_han(character) for character in text) < len(re.findall(r"[a-z']+", text.lower())):
            return "en"
        return detect_language(text) if text else None
    except TextError:
        return None


def _scores(pieces: Sequence[Segment], duration_s: float) -> tuple[float | None, float]:
    """Mean log-probability of the texts, and probability of no speech, of a recording from its pieces' by length."""
    said = [(piece.mean_log_probability, piece.end_s - piece.start_s) for piece in pieces if piece.text]
    known = [(score, length) for score, length in said if score is not None]
    total = sum(length for _, length in known)
    mean = sum(score * length for score, length in known) / total if total else None
    speech_s = sum((1.0 - (piece.no_speech_probability or 0.0)) * (piece.end_s - piece.start_s) for piece in pieces)
    return mean, min(1.0, max(0.0, 1.0 - speech_s / duration_s))


def hear(core: Core, chunks: Sequence[Tensor], how: Listening, sampling: Sampling) -> list[Heard]:
    """What the model hears in each of several waveforms (1, N); ``silence`` where there is nothing to hear."""
    config = core.facts.generation
    most = 1.0 if config.no_speech_threshold is None else config.no_speech_threshold
    found = [Heard(how.silence, None, 1.0)] * len(chunks)
    loud = [index for index, chunk in enumerate(chunks) if level_dbfs(chunk) >= config.silence_dbfs]
    if how.captions and config.speech_caption is not None:
        spoken = {index for index in loud if speech_share(chunks[index]) > MOSTLY}
        for index in spoken:
            found[index] = Heard(config.speech_caption)
        loud = [index for index in loud if index not in spoken]
    # Choice: pieces of like length together, so that little of a batch waits for its longest member.
    loud.sort(key=lambda index: chunks[index].shape[-1])
    frame = core.codec.streams[0].hop_length
    for first in range(0, len(loud), how.batch_size):
        batch = loud[first : first + how.batch_size]
        waves = [wave for index in batch for wave in shifted(chunks[index], how.effort.shifts, frame)]
        for index, heard in zip(batch, read_codes(core, core.encode_many(waves), how, sampling), strict=True):
            nobody = not how.captions and (heard.no_speech_probability or 0.0) > most
            found[index] = heard._replace(text=how.silence) if nobody else heard
    return found


def read_codes(core: Core, codes: Sequence[AudioCodes], how: Listening, sampling: Sampling) -> list[Heard]:
    """The text of every ``how.effort.shifts`` consecutive encodings of one recording."""
    (name,) = {part.value for part in how.row.inputs}
    asks = [
        Ask(how.row, {name: each}, how.language, text_limits(core.facts.generation, each.duration_s)) for each in codes
    ]
    answers = generate(core, asks, sampling) if how.effort == GREEDY else search(core, asks, how.effort, sampling)
    texts = [heard for answer in answers for heard in answer.values() if isinstance(heard, Heard)]
    return [heard._replace(text=heard.text.strip()) for heard in texts]


def shifted(audio: Tensor, count: int, frame: int) -> list[Tensor]:
    """A waveform (1, N) behind silences that are spread evenly over one frame, in samples, of the codec's first stream.

    Choice: where a frame begins decides which of the coarsest codes a sound falls into, so these encodings err
    differently (test-time augmentation).
    """
    return [torch.nn.functional.pad(audio, (round(index * frame / count), 0)) for index in range(count)]
