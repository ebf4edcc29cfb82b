"""Codes of a clip: the named streams that a codec makes of audio, their rates and lengths, and their files.

Codes are raw codebook indices. Tokens (with the language model's offsets) are made of them elsewhere. A file is one
safetensors file, or the published pair ``NAME_reason.pt`` and ``NAME_semantic.pt`` beside it.

Shapes: ``B`` batch, ``N`` audio samples, ``K`` codebooks, ``T`` frames of a stream (of the ReasoningCodec: ``T_rea`` at
5 Hz, ``T_rec`` at 12.5 Hz).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codes_file import (
    CodesError,
    StoredCodes,
    codes_bytes,
    published_pair,
    read_codes,
    read_pair,
    write_codes,
    write_pair,
)

REASONING_RATE_HZ = 5.0
RECONSTRUCTION_RATE_HZ = 12.5
LATENT_RATE_HZ = 25.0
REASONING_HOP = round(SAMPLE_RATE / REASONING_RATE_HZ)
"""Samples per reasoning frame, 4800."""
RECONSTRUCTION_HOP = round(SAMPLE_RATE / RECONSTRUCTION_RATE_HZ)
"""Samples per reconstruction frame, 1920."""
LATENT_HOP = round(SAMPLE_RATE / LATENT_RATE_HZ)
"""Samples per latent frame, 960."""
UNIT = 9600
"""Samples of an encoding unit, 0.4 s: the least common multiple of the hops (2, 5 and 10 frames)."""
REASONING_CODEC_HOPS = {"reasoning": REASONING_HOP, "reconstruction": RECONSTRUCTION_HOP}
"""Streams of the ReasoningCodec in order, with their samples per frame."""


@dataclass(frozen=True)
class Stream:
    """One stream of codes that a codec makes."""

    name: str  # such as "reasoning"
    hop_length: int  # samples per frame
    num_codebooks: int  # K
    codebook_size: int  # codes lie in [0, codebook_size)
    sample_rate: int = SAMPLE_RATE  # of the audio, Hz

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise CodesError(f"a stream's name must be a word of letters, digits and _, got {self.name!r}")
        for name in ("hop_length", "num_codebooks", "codebook_size", "sample_rate"):
            if getattr(self, name) < 1:
                raise CodesError(f"{name} of the stream '{self.name}' must be at least 1, got {getattr(self, name)}")

    @property
    def rate_hz(self) -> Fraction:
        """Frames per second, exactly."""
        return Fraction(self.sample_rate, self.hop_length)

    @property
    def bit_rate(self) -> float:
        """Bits per second when every code takes as many as its codebook needs."""
        return float(self.rate_hz) * self.num_codebooks * math.log2(self.codebook_size)

    def num_frames(self, num_samples: int) -> int:
        """Frames that cover ``num_samples`` samples."""
        return -(-num_samples // self.hop_length)


def reasoning_length(num_samples: int) -> int:
    """Reasoning frames of ``num_samples`` (>= 1) samples.

    Released weights: this order of float operations, which leaves out the frame that would begin at the very end for
    some of the lengths that are whole numbers of frames.
    """
    return min(int(num_samples / SAMPLE_RATE * REASONING_RATE_HZ) + 1, 2 * num_units(num_samples))


def reconstruction_length(num_samples: int) -> int:
    """Reconstruction frames of ``num_samples`` (>= 1) samples. See :func:`reasoning_length`."""
    return min(int(num_samples / SAMPLE_RATE * RECONSTRUCTION_RATE_HZ) + 1, 5 * num_units(num_samples))


def num_units(num_samples: int) -> int:
    """Encoding units of 0.4 s that cover ``num_samples`` samples."""
    return -(-num_samples // UNIT)


class AudioCodes:
    """All code streams of one or several clips of equal length; never changed.

    ``AudioCodes(reasoning, reconstruction, num_samples)`` are those of the ReasoningCodec, `of` makes any others.
    ``codes["name"]`` is a stream (B, K, T), ``codes[0]`` a clip, ``codes[2:5]`` several clips; ``a == b`` tells whether
    all is equal, on whatever device. In time, codes are cut by `slice_units` and joined by `concatenate`, both in whole
    units: the shortest stretches in which every stream has a whole number of frames.

    Args:
        reasoning: (B, K, T_rea) int64, 5 Hz.
        reconstruction: (B, K, T_rec) int64, 12.5 Hz.
        num_samples: Samples of the clip; None means as many as the codes cover.

    Raises:
        CodesError: If a stream is not (B, K, T) int64, if B differs, or if ``num_samples`` does not fit.
    """

    __slots__ = ("hops", "num_samples", "sample_rate", "streams")
    streams: dict[str, Tensor]  # name -> (B, K, T) int64, in the order in which a language model reads them
    hops: dict[str, int]  # name -> samples per frame
    num_samples: int | None
    sample_rate: int  # Hz

    def __init__(self, reasoning: Tensor, reconstruction: Tensor, num_samples: int | None = None) -> None:
        streams = {"reasoning": reasoning, "reconstruction": reconstruction}
        self._set(streams, REASONING_CODEC_HOPS, num_samples, SAMPLE_RATE)

    @classmethod
    def of(
        cls,
        streams: Mapping[str, Tensor],
        hops: Mapping[str, int] | Sequence[Stream],
        num_samples: int | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> AudioCodes:
        """Codes of any streams.

        Args:
            streams: Name -> (B, K, T) int64, in order.
            hops: Name -> samples per frame; or a codec's streams, which also tell the sample rate.
            num_samples: As above.
            sample_rate: Of the audio, Hz.

        Raises:
            CodesError: As above.
        """
        if not isinstance(hops, Mapping):
            sample_rate = hops[0].sample_rate if hops else sample_rate
            hops = {stream.name: stream.hop_length for stream in hops}
        codes = cls.__new__(cls)
        codes._set(streams, hops, num_samples, sample_rate)
        return codes

    def _set(
        self, streams: Mapping[str, Tensor], hops: Mapping[str, int], num_samples: int | None, sample_rate: int
    ) -> None:
        self.streams, self.hops = dict(streams), {name: hops.get(name, 0) for name in streams}
        self.num_samples, self.sample_rate = num_samples, sample_rate
        if not streams:
            raise CodesError("codes need at least one stream")
        for name, codes in streams.items():
            if not isinstance(codes, Tensor) or codes.dim() != 3:
                shape = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
                raise CodesError(f"{name} codes must be a tensor (B, K, T), got {shape}")
            if codes.dtype != torch.int64:
                raise CodesError(f"{name} codes must be int64, got {codes.dtype}")
            if codes.numel() and codes.device.type != "meta" and int(codes.min()) < 0:
                raise CodesError(f"{name} codes must not be negative, got {int(codes.min())}")
            if self.hops[name] < 1:
                raise CodesError(f"the samples per frame of the stream '{name}' are not given")
        sizes = [codes.shape[0] for codes in streams.values()]
        if len(set(sizes)) > 1:
            raise CodesError(f"all streams must have the same batch size, got {' and '.join(map(str, sizes))}")
        if num_samples is not None and not 0 <= num_samples <= self.covered_samples:
            raise CodesError(f"num_samples must lie in 0..{self.covered_samples} for these codes, got {num_samples}")

    @property
    def reasoning(self) -> Tensor:
        """Codes (B, K, T_rea) of the ReasoningCodec's 5 Hz stream."""
        return self["reasoning"]

    @property
    def reconstruction(self) -> Tensor:
        """Codes (B, K, T_rec) of the ReasoningCodec's 12.5 Hz stream."""
        return self["reconstruction"]

    @property
    def unit(self) -> int:
        """Samples of a unit: the least common multiple of the streams' samples per frame."""
        return math.lcm(*self.hops.values())

    @property
    def covered_samples(self) -> int:
        """Samples that the frames cover, by the stream with the shortest ones."""
        finest = min(self.hops, key=self.hops.__getitem__)
        return self.streams[finest].shape[2] * self.hops[finest]

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return (self.covered_samples if self.num_samples is None else self.num_samples) / self.sample_rate

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(codes.shape)}" for name, codes in self.streams.items())
        return f"AudioCodes({shapes}, num_samples={self.num_samples})"

    def __len__(self) -> int:
        """Number of clips."""
        return next(iter(self.streams.values())).shape[0]

    def __eq__(self, other: object) -> bool:
        """Whether streams, their order and rates, all codes and the number of samples are the same."""
        if not isinstance(other, AudioCodes):
            return NotImplemented
        about = (tuple(self.hops.items()), self.num_samples, self.sample_rate)
        return about == (tuple(other.hops.items()), other.num_samples, other.sample_rate) and all(
            torch.equal(codes, other.streams[name].to(codes.device)) for name, codes in self.streams.items()
        )

    __hash__ = None  # type: ignore[assignment]  # as tensors, which may be equal, are no keys

    @overload
    def __getitem__(self, index: str) -> Tensor: ...
    @overload
    def __getitem__(self, index: int | slice) -> AudioCodes: ...
    def __getitem__(self, index: str | int | slice) -> Tensor | AudioCodes:
        """A stream by name, the codes of one clip (batch size 1), or of a slice of the clips."""
        if isinstance(index, str):
            if index not in self.streams:
                raise CodesError(f"these codes have no stream '{index}'; they have {', '.join(self.streams)}")
            return self.streams[index]
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"clip {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        return self._with({name: codes[index] for name, codes in self.streams.items()}, self.num_samples)

    def _with(self, streams: Mapping[str, Tensor], num_samples: int | None) -> AudioCodes:
        """Other codes of the same kind."""
        return AudioCodes.of(streams, self.hops, num_samples, sample_rate=self.sample_rate)

    def to(self, device: torch.device | str) -> AudioCodes:
        """The same codes on another device."""
        return self._with({name: codes.to(device) for name, codes in self.streams.items()}, self.num_samples)

    def slice_units(self, start: int, stop: int | None = None) -> AudioCodes:
        """The part in time from unit ``start`` up to unit ``stop`` (not included; None: to the end).

        Args:
            start: First unit, from 0. A unit has `unit` samples: 0.4 s for the ReasoningCodec.
            stop: One behind the last unit; the last one of a clip may be cut short.

        Raises:
            CodesError: If the part is not within the clip.
        """
        length = self.covered_samples if self.num_samples is None else self.num_samples
        most = -(-length // self.unit)
        stop = most if stop is None else stop
        if not 0 <= start <= stop <= most:
            raise CodesError(
                f"units {start} to {stop} are not within the {most} of these codes ({self.unit} samples each)"
            )
        streams = {}
        for name, codes in self.streams.items():
            frames = self.unit // self.hops[name]
            streams[name] = codes[:, :, start * frames : None if stop == most else stop * frames]
        samples = None if self.num_samples is None else min(length, stop * self.unit) - min(length, start * self.unit)
        return self._with(streams, samples)

    @classmethod
    def concatenate(cls, parts: Sequence[AudioCodes]) -> AudioCodes:
        """Codes one after another in time.

        Args:
            parts: With the same streams and clips. All but the last are whole units, so that the streams stay in step.

        Raises:
            CodesError: If there is none, if streams or batches differ, or one but the last is cut within a unit.
        """
        if not parts:
            raise CodesError("there are no codes to join")
        first = parts[0]
        for part in parts:
            if (part.hops, part.sample_rate, len(part)) != (first.hops, first.sample_rate, len(first)):
                raise CodesError(f"codes of other streams or other batches cannot be joined: {first!r} and {part!r}")
        for part in parts[:-1]:
            lengths = {codes.shape[2] * part.hops[name] for name, codes in part.streams.items()}
            lengths |= set() if part.num_samples is None else {part.num_samples}
            if len(lengths) > 1 or max(lengths) % first.unit:
                raise CodesError(
                    f"only the last part may end within a unit of {first.unit} samples: pad the audio before encoding, "
                    f"or cut {part!r} by slice_units"
                )
        known = any(part.num_samples is not None for part in parts)
        samples = sum(part.covered_samples if part.num_samples is None else part.num_samples for part in parts)
        streams = {name: torch.cat([part.streams[name] for part in parts], dim=2) for name in first.streams}
        return first._with(streams, samples if known else None)

    def save(self, path: str | Path) -> None:
        """Write a file; complete or not at all.

        Args:
            path: ``NAME_reason.pt`` or ``NAME_semantic.pt`` writes the published pair, which does not keep the number
                of samples; any other name a safetensors file (16-bit integers where they suffice).

        Raises:
            CodesError: If the file cannot be written, or the pair is asked for several clips or other streams.
        """
        pair = published_pair(path)
        if pair is not None:
            write_pair(pair, self.streams)
        else:
            write_codes(Path(path), self._stored())

    def to_bytes(self) -> bytes:
        """The safetensors file that `save` writes."""
        return codes_bytes(self._stored())

    def _stored(self) -> StoredCodes:
        if self.hops == REASONING_CODEC_HOPS and self.sample_rate == SAMPLE_RATE:
            return StoredCodes(self.streams, self.num_samples)
        return StoredCodes(self.streams, self.num_samples, self.hops, self.sample_rate)

    @classmethod
    def load(cls, path: str | Path) -> AudioCodes:
        """Read a file that :meth:`save` wrote, or the published pair by the name of either file.

        Nothing in a file is ever run.

        Raises:
            CodesError: If a file is missing, damaged, unsafe or holds something else.
        """
        pair = published_pair(path)
        stored = read_codes(Path(path)) if pair is None else read_pair(pair)
        hops, rate = stored.hops or REASONING_CODEC_HOPS, stored.sample_rate or SAMPLE_RATE
        try:
            return cls.of(stored.streams, hops, stored.num_samples, sample_rate=rate)
        except CodesError as error:
            raise CodesError(f"{path if pair is None else pair['reasoning']}: {error}") from None
