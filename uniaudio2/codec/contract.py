"""What every codec offers: sequences, engine, data preparation, evaluation and model folders use nothing else.

A codec turns mono audio into named streams of codes, each with a rate, codebooks and their size, and back. A new codec
is one file: a class below `Codec`, registered by name (see `uniaudio2.codec.registry`).

Shapes: ``B`` batch, ``N`` samples, ``K`` codebooks, ``T`` frames of a stream. Audio is (B, 1, N), codes (B, K, T).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from uniaudio2.codec.quantize import check_codes
from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.errors import UserError

__all__ = ["AudioCodes", "Codec", "DecoderSession", "Stream", "check_audio"]


class DecoderSession(Protocol):
    """Codes in as they come, audio out as soon as there is enough of them.

    A piece that tells a number of samples below what its frames cover is the last one.
    """

    def push(self, codes: AudioCodes) -> Tensor:
        """Take the next frames, of one stream or of several, and give the audio (B, 1, n) that is ready; n may be 0."""
        ...

    def finish(self) -> Tensor:
        """The rest of the audio (B, 1, n). All pieces together are as long as the codes say."""
        ...


class Codec(nn.Module, ABC):
    """Base of all codecs. What is abstract is the least that a codec needs; the rest may be overridden.

    ``config`` is the dataclass that it was built from, which a model folder keeps.
    """

    config: Any
    sample_rate: int  # of audio in and out, Hz
    streams: tuple[Stream, ...]  # in the order in which a language model reads them

    @abstractmethod
    def encode_rows(self, audio: Tensor) -> AudioCodes:
        """Codes of a batch of clips (B, 1, N) of one length, N a multiple of `unit`: each as it would be alone."""

    @abstractmethod
    def decode_stream(self, codes: AudioCodes, **options: Any) -> Iterator[Tensor]:
        """Codes to audio in consecutive pieces (B, 1, n).

        Options are checked at the call. Every codec takes ``generator`` (of chance, on the CPU) and may ignore it.
        """

    # What follows from the streams

    @property
    def unit(self) -> int:
        """Samples of the shortest stretch in which every stream has a whole number of frames."""
        return math.lcm(*(stream.hop_length for stream in self.streams))

    @property
    def bit_rate(self) -> float:
        """Bits per second of all streams."""
        return sum(stream.bit_rate for stream in self.streams)

    @property
    def device(self) -> torch.device:
        """Where the codec's parameters are."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def stream(self, name: str) -> Stream:
        """The stream of that name.

        Raises:
            ValueError: If there is none.
        """
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise UserError(f"this codec has no stream '{name}'; it has {', '.join(s.name for s in self.streams)}")

    def num_frames(self, num_samples: int) -> dict[str, int]:
        """Frames of every stream for a clip of ``num_samples``."""
        return {stream.name: stream.num_frames(num_samples) for stream in self.streams}

    def check_codes(self, codes: AudioCodes) -> None:
        """Refuse codes of another codec.

        Raises:
            ValueError: If a stream is missing, has other codebooks, or a code is outside its codebook.
        """
        for stream in self.streams:
            check_codes(codes[stream.name], stream.num_codebooks, stream.codebook_size, f"{stream.name} codes")

    # Encoding

    @overload
    def encode(self, audio: Tensor, lengths: None = None) -> AudioCodes: ...
    @overload
    def encode(self, audio: Tensor, lengths: Sequence[int] | Tensor) -> list[AudioCodes]: ...
    def encode(self, audio: Tensor, lengths: Sequence[int] | Tensor | None = None) -> AudioCodes | list[AudioCodes]:
        """Codes of mono audio of any length. Deterministic.

        Args:
            audio: Waveforms in [-1, 1] at `sample_rate`, (B, 1, N), N > 0.
            lengths: Samples of each clip, where clips of several lengths are padded to one, (B,).

        Returns:
            Codes of the batch, int64, on the codec's device; with ``lengths`` one for each clip, as if it were alone.

        Raises:
            ValueError: If ``audio`` is not (B, 1, N), is empty or holds values that are not finite, or a length is
                not within it.
        """
        check_audio(audio, self.sample_rate)
        return self.encode_stream([audio]) if lengths is None else self.encode_clips(unpad(audio, lengths))

    def encode_clips(self, clips: Sequence[Tensor], *, batch_s: float = 60.0) -> list[AudioCodes]:
        """Codes of clips (1, n) of several lengths, each as if it were alone; what pads to one length goes together.

        Args:
            clips: Waveforms as for :meth:`encode`, on any device.
            batch_s: Seconds of padded audio that are encoded together, at most.
        """
        groups: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            check_audio(clip[None], self.sample_rate)
            groups.setdefault(-(-clip.shape[-1] // self.unit) * self.unit, []).append(index)
        found: dict[int, AudioCodes] = {}
        for padded, members in groups.items():
            at_once = max(1, int(batch_s / (padded / self.sample_rate)))
            for start in range(0, len(members), at_once):
                part = members[start : start + at_once]
                rows = [nn.functional.pad(clips[index], (0, padded - clips[index].shape[-1])) for index in part]
                codes = self.encode_stream([torch.stack(rows).to(self.device)])
                found.update((index, self._cut(codes[row], clips[index].shape[-1])) for row, index in enumerate(part))
        return [found[index] for index in range(len(clips))]

    @torch.no_grad()
    def encode_stream(self, chunks: Iterable[Tensor]) -> AudioCodes:
        """Codes of audio that comes piece by piece (B, 1, n): those of :meth:`encode` on all of it.

        Raises:
            ValueError: If there is no sample, or a piece has another shape or values that are not finite.
        """
        pieces = list(chunks)
        for piece in pieces:
            check_audio(piece, self.sample_rate)
        if not pieces:
            raise UserError("there is no audio to encode (0 samples)")
        audio = torch.cat(pieces, dim=2).to(self.device)
        num_samples = audio.shape[2]
        return self._cut(self.encode_rows(nn.functional.pad(audio, (0, -num_samples % self.unit))), num_samples)

    def _cut(self, codes: AudioCodes, num_samples: int) -> AudioCodes:
        """The frames that a clip of ``num_samples`` has, of codes of its padded form."""
        frames = self.num_frames(num_samples)
        streams = {name: stream[:, :, : frames[name]] for name, stream in codes.streams.items()}
        return AudioCodes.of(streams, self.streams, num_samples)

    # Decoding

    def decode(self, codes: AudioCodes, **options: Any) -> Tensor:
        """Codes to audio (B, 1, N) of exactly ``codes.num_samples`` samples, or of all that the frames cover.

        Raises:
            ValueError: If codes are of another codec or an option is out of range.
        """
        length, end = codes.covered_samples if codes.num_samples is None else codes.num_samples, 0
        audio: Tensor | None = None
        for piece in self.decode_stream(codes, **options):
            audio = piece.new_zeros(len(codes), 1, length) if audio is None else audio
            audio[:, :, end : end + piece.shape[2]] = piece
            end += piece.shape[2]
        assert end == length, f"{type(self).__name__} decoded {end} samples in place of {length}"
        return torch.zeros(len(codes), 1, 0, device=self.device, dtype=torch.float32) if audio is None else audio

    def decoder_session(self, **options: Any) -> DecoderSession:
        """Decode codes as they come; this one waits for all of them. Options as for :meth:`decode`.

        Every codec takes ``first_codes``, the frames of its finest stream after which the first audio is wanted, and
        may ignore it.
        """
        options.pop("first_codes", None)
        return _WaitingSession(self, options)

    # For training and model folders

    def encoding_state(self) -> dict[str, Tensor]:
        """The part of ``state_dict()`` that codes depend on, by which codes of different codecs are told apart."""
        return self.state_dict()

    def codebook_vectors(self, stream: str) -> Tensor:
        """What each code adds to the quantised vectors of a stream, (K, V, D), for a language model to start from.

        Raises:
            ValueError: If the codec has none.
        """
        raise UserError(f"this codec has no vectors for the codes of the stream '{stream}'")


class _WaitingSession:
    """Decodes when all codes are there."""

    def __init__(self, codec: Codec, options: dict[str, Any]) -> None:
        self._codec, self._options = codec, options
        self._parts: list[AudioCodes] = []

    def push(self, codes: AudioCodes) -> Tensor:
        """Keep the codes; no audio yet."""
        self._parts.append(codes)
        return torch.zeros(len(codes), 1, 0, device=self._codec.device, dtype=torch.float32)

    def finish(self) -> Tensor:
        """Decode everything."""
        if not self._parts:
            return torch.zeros(1, 1, 0, device=self._codec.device, dtype=torch.float32)
        return self._codec.decode(join_pieces(self._parts), **self._options)


def join_pieces(parts: Sequence[AudioCodes]) -> AudioCodes:
    """Consecutive pieces of one clip, of which each may hold any number of frames of any stream, as one.

    Raises:
        CodesError: If the pieces are of different codecs or batches.
    """
    names = list(dict.fromkeys(name for part in parts for name in part.streams))
    streams = {name: torch.cat([part[name] for part in parts if name in part.streams], dim=2) for name in names}
    hops = {name: hop for part in parts for name, hop in part.hops.items()}
    samples = [part.num_samples for part in parts if part.num_samples is not None]
    return AudioCodes.of(streams, hops, sum(samples) if samples else None, sample_rate=parts[0].sample_rate)


def unpad(audio: Tensor, lengths: Sequence[int] | Tensor) -> list[Tensor]:
    """The clips (1, n) of a padded batch (B, 1, N).

    Raises:
        ValueError: If a length is not within the batch.
    """
    counts = [int(length) for length in lengths]
    if len(counts) != len(audio) or not all(0 < count <= audio.shape[2] for count in counts):
        raise UserError(f"lengths must be {len(audio)} numbers in 1..{audio.shape[2]}, got {counts}")
    return [clip[:, :count] for clip, count in zip(audio, counts, strict=True)]


def check_audio(audio: Tensor, sample_rate: int) -> None:
    """Refuse what cannot be encoded.

    Raises:
        ValueError: If it is not (B, 1, N) of floating point, is empty or holds values that are not finite.
    """
    if not isinstance(audio, Tensor) or audio.dim() != 3 or audio.shape[1] != 1:
        shape = tuple(audio.shape) if isinstance(audio, Tensor) else type(audio).__name__
        raise UserError(f"audio must be a tensor (B, 1, N), mono at {sample_rate / 1000:g} kHz, got {shape}")
    if audio.shape[0] == 0 or audio.shape[2] == 0:
        raise UserError(f"there is no audio to encode: shape {tuple(audio.shape)}")
    if not audio.is_floating_point():
        raise UserError(f"audio must be floating point in [-1, 1], got {audio.dtype}")
    if not bool(torch.isfinite(audio).all()):
        raise UserError("audio holds values that are not finite (NaN or infinity)")
