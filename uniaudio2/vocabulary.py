"""The ids of a language model: special tokens of the text stream, and the audio vocabulary of a codec's streams.

Knows nothing of texts, sequences or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from uniaudio2.codes import REASONING_HOP, RECONSTRUCTION_HOP, Stream
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TAGS = ("think", "answer", "transcription", "lyric", "caption")


@dataclass(frozen=True)
class TextTokens:
    """Ids of the special tokens of the text stream.

    The defaults are those of the published models (renamed reserved ids of the Llama 3.2 tokenizer).
    Source: ARCHITECTURE section 1.6.
    """

    bos: int = 128000  # begin of text, in front of every tokenised text
    eos: int = 128001  # end of text, behind every tokenised text
    text_pad: int = 128020  # padding of the text stream, and every id of a guidance row
    think_begin: int = 128002
    think_end: int = 128003
    answer_begin: int = 128017
    answer_end: int = 128005
    transcription_begin: int = 128011
    transcription_end: int = 128012
    lyric_begin: int = 128013
    lyric_end: int = 128014
    caption_begin: int = 128015
    caption_end: int = 128016

    def tag(self, name: str) -> tuple[int, int]:
        """Begin and end id of a tag such as ``transcription``."""
        if name not in TAGS:
            raise UserError(f"unknown tag '{name}'; known: {', '.join(TAGS)}")
        return getattr(self, f"{name}_begin"), getattr(self, f"{name}_end")

    def ids(self) -> frozenset[int]:
        """All special ids."""
        return frozenset(getattr(self, field.name) for field in fields(self))

    def names(self) -> dict[str, str]:
        """Written form of every token in files of our own, by field: ``<transcription>``, ``</transcription>``, …"""
        written = {"bos": "<bos>", "eos": "<eos>", "text_pad": "<text_pad>"}
        for tag in TAGS:
            written |= {f"{tag}_begin": f"<{tag}>", f"{tag}_end": f"</{tag}>"}
        return {field.name: written[field.name] for field in fields(self)}


# Ids of tokenizers trained here: the special tokens come first, in the order of the table.
OWN_TEXT_TOKENS = TextTokens(**{field.name: index for index, field in enumerate(fields(TextTokens))})


@dataclass(frozen=True)
class StreamTokens:
    """Ids of one audio stream: codes first, then special ids, all written before the shift by the streams in front.

    A preset may tell the first three alone, see `of`.
    """

    name: str  # of the codec's stream
    hop_length: int  # samples per frame
    codebook_size: int  # codes proper: ids below this
    num_ids: int  # codes and special ids
    bos: int  # begin of a stretch of this stream
    eos: int
    pad: int

    def __post_init__(self) -> None:
        if self.hop_length < 1 or self.codebook_size < 1:
            raise UserError(f"stream '{self.name}' needs at least one code and one sample per frame")
        for name in ("bos", "eos", "pad"):
            check_id(f"{self.name}_{name}", getattr(self, name), self.num_ids)
        begin = min(self.bos, self.eos, self.pad)
        if self.codebook_size > begin:
            raise UserError(f"{self.name}_codebook_size must be at most {begin}, the first special id of {self.name}")

    @classmethod
    def of(cls, name: str, hop_length: int, codebook_size: int) -> StreamTokens:
        """With begin, end and pad right behind the codes, and room for eight special ids."""
        size = codebook_size
        return cls(name, hop_length, size, num_ids=size + 8, bos=size, eos=size + 1, pad=size + 2)

    @staticmethod
    def other_form(values: Mapping[str, Any]) -> type[_ShortStream] | None:
        """The schema of values without special ids."""
        return None if {"num_ids", "bos", "eos", "pad"} & set(values) else _ShortStream


@dataclass(frozen=True)
class _ShortStream:
    """A stream in a preset that leaves the special ids to us."""

    name: str
    hop_length: int
    codebook_size: int

    def upgraded(self) -> StreamTokens:
        """The same with its special ids."""
        return StreamTokens.of(self.name, self.hop_length, self.codebook_size)


def check_id(name: str, value: int, limit: int) -> None:
    """Refuse a special id that is out of range.

    Raises:
        ValueError: If it does not lie in [0, limit).
    """
    if not 0 <= value < limit:
        raise UserError(f"{name} must be in [0, {limit}), got {value}")


@dataclass(frozen=True)
class AudioVocabulary:
    """The audio ids of a language model: one vocabulary for all codebooks, the streams' ids one after another.

    A voice prompt is a stretch of the last stream between special ids of its own.
    """

    num_codebooks: int  # K, of every stream
    streams: tuple[StreamTokens, ...]  # in the order in which a recording is written
    voice_bos: int  # begin of a voice prompt, among the ids of the last stream
    voice_eos: int
    # Released weights: begin and end of a voice prompt, and the pad of guidance rows, are not shifted (they collide
    # with codes). True is the repaired form, for models trained here.
    shift_voice_ids: bool = True

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or not self.streams:
            raise UserError("an audio vocabulary needs at least one stream and one codebook")
        names = [stream.name for stream in self.streams]
        if len(set(names)) != len(names) or {"text", "audio", "voice"} & set(names):
            raise UserError(f"streams need different names, none of them text, audio or voice, got {', '.join(names)}")
        for name in ("voice_bos", "voice_eos"):
            check_id(name, getattr(self, name), self.fine.num_ids if self.shift_voice_ids else self.size)

    @classmethod
    def of(cls, streams: Sequence[Stream]) -> AudioVocabulary:
        """The vocabulary for a codec's streams.

        Raises:
            ValueError: If the streams have different numbers of codebooks.
        """
        books = {stream.num_codebooks for stream in streams}
        if len(books) != 1:
            raise UserError(f"a language model needs as many codebooks in every stream, got {sorted(books)}")
        tokens = [StreamTokens.of(stream.name, stream.hop_length, stream.codebook_size) for stream in streams]
        return cls(books.pop(), tuple(tokens), tokens[-1].pad + 1, tokens[-1].pad + 2)

    @staticmethod
    def other_form(values: Mapping[str, Any]) -> type[AudioTokens] | type[_ShortVocabulary] | None:
        """The schema of values that were written before streams were named, or without a voice prompt's ids."""
        if "streams" not in values:
            return AudioTokens
        return None if {"voice_bos", "voice_eos"} & set(values) else _ShortVocabulary

    @property
    def size(self) -> int:
        """Ids per codebook, A."""
        return sum(stream.num_ids for stream in self.streams)

    @property
    def fine(self) -> StreamTokens:
        """The last stream, which holds the sound's details."""
        return self.streams[-1]

    @property
    def fine_shift(self) -> int:
        """First id of the last stream; ids below it are of the streams in front."""
        return self.size - self.fine.num_ids

    def stream(self, name: str) -> tuple[StreamTokens, int]:
        """A stream by name, and the shift of its ids.

        Raises:
            ValueError: If there is none.
        """
        shift = 0
        for stream in self.streams:
            if stream.name == name:
                return stream, shift
            shift += stream.num_ids
        known = ", ".join(stream.name for stream in self.streams)
        raise UserError(f"this model knows no stream '{name}'; its codec has {known}")

    def is_code(self, name: str, ids: Tensor) -> Tensor:
        """Which ids (...) stand for codes proper of a stream, bool (...)."""
        stream, shift = self.stream(name)
        return (ids >= shift) & (ids < shift + stream.codebook_size)

    def check_codec(self, streams: Sequence[Stream]) -> None:
        """Refuse a codec whose codes this vocabulary does not hold.

        Raises:
            ValueError: If names, rates, codebooks or their sizes differ.
        """
        wanted = [(own.name, own.hop_length, self.num_codebooks, own.codebook_size) for own in self.streams]
        found = [(one.name, one.hop_length, one.num_codebooks, one.codebook_size) for one in streams]
        if wanted != found:
            raise UserError(
                "the language model was trained with another codec: its streams (name, samples per frame, codebooks, "
                f"size) are {wanted}, those of this codec {found}"
            )


@dataclass(frozen=True)
class _ShortVocabulary:
    """A vocabulary in a preset that leaves the ids around a voice prompt to us: behind the last stream's pad."""

    num_codebooks: int
    streams: tuple[StreamTokens, ...]

    def upgraded(self) -> AudioVocabulary:
        """The same with all ids."""
        after = self.streams[-1].pad + 1 if self.streams else 0
        return AudioVocabulary(self.num_codebooks, self.streams, after, after + 1)


@dataclass(frozen=True)
class AudioTokens:
    """The audio vocabulary as published, and in model folders of before: the ReasoningCodec's two streams.

    Reasoning ids come first, then reconstruction ids shifted by ``num_reasoning``. No defaults: only a model's own
    configuration tells them.
    """

    num_codebooks: int  # K
    num_reasoning: int  # R: reasoning codes and their special ids
    num_reconstruction: int  # M: reconstruction codes and their special ids
    reasoning_codebook_size: int  # codes proper, below the special ids
    reconstruction_codebook_size: int
    reasoning_bos: int
    reasoning_eos: int
    reasoning_pad: int
    reconstruction_bos: int
    reconstruction_eos: int
    reconstruction_pad: int
    voice_bos: int  # begin of a voice prompt
    voice_eos: int
    shift_voice_ids: bool = True  # see AudioVocabulary

    def __post_init__(self) -> None:
        for name in ("reasoning_bos", "reasoning_eos", "reasoning_pad"):
            check_id(name, getattr(self, name), self.num_reasoning)
        for name in ("reconstruction_bos", "reconstruction_eos", "reconstruction_pad"):
            check_id(name, getattr(self, name), self.num_reconstruction)
        for name in ("voice_bos", "voice_eos"):
            shared = 0 if self.shift_voice_ids else self.num_reasoning
            check_id(name, getattr(self, name), self.num_reconstruction + shared)
        self.upgraded()

    def upgraded(self) -> AudioVocabulary:
        """The same ids in the form that names its streams."""
        reasoning = StreamTokens(
            "reasoning",
            REASONING_HOP,
            self.reasoning_codebook_size,
            self.num_reasoning,
            self.reasoning_bos,
            self.reasoning_eos,
            self.reasoning_pad,
        )
        reconstruction = StreamTokens(
            "reconstruction",
            RECONSTRUCTION_HOP,
            self.reconstruction_codebook_size,
            self.num_reconstruction,
            self.reconstruction_bos,
            self.reconstruction_eos,
            self.reconstruction_pad,
        )
        voice = (self.voice_bos, self.voice_eos)
        return AudioVocabulary(self.num_codebooks, (reasoning, reconstruction), *voice, self.shift_voice_ids)
