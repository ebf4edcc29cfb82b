"""Reading audio files: whole or block by block, resampled, as mono.

Whatever libsndfile reads is read, to its real end; other containers (m4a, webm, video) are decoded first.
"""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from uniaudio2.audio.containers import Piece, Spliced, layout
from uniaudio2.audio.media import decode_media, needs_decoding
from uniaudio2.audio.wave import SAMPLE_RATE, AudioError

logger = logging.getLogger(__name__)

MAX_CHANNELS = 64
"""More channels than this in a header are taken for a broken file."""

HELD_S = 30.0
"""A recording up to this length is kept in memory once it is read, seconds."""

BLOCK_VALUES = 1 << 19
"""Values (frames times channels) that are read from a file at a time."""

CANCELLED_DB = 30.0
"""If the mean of all channels is this much below the loudest one, they cancel each other, dB."""


@dataclass(frozen=True)
class Recording:
    """A recording that is read block by block, as often as needed: an hour takes no more memory than a minute."""

    num_samples: int
    sample_rate: int  # Hz
    make_blocks: Callable[[], Iterable[Tensor]]  # gives the consecutive blocks (1, n) anew at every call

    @classmethod
    def of(cls, audio: Tensor, sample_rate: int = SAMPLE_RATE) -> Recording:
        """Samples at hand, (1, N), as a recording of one block."""
        return cls(audio.shape[-1], sample_rate, lambda: [audio])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate

    def blocks(self) -> Iterator[Tensor]:
        """Consecutive blocks (1, n); joined they are the recording."""
        return iter(self.make_blocks())

    def read(self) -> Tensor:
        """All of it, (1, N)."""
        blocks = list(self.blocks())
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def open_audio(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    start_s: float = 0.0,
    duration_s: float | None = None,
    *,
    hold_s: float = HELD_S,
) -> Recording:
    """Open a file as mono audio at ``sample_rate``, to be read block by block.

    Channels are averaged, but where they cancel each other the loudest one is taken; other rates are resampled; a
    recording that exceeds full scale is scaled to a peak of 1. The file is read through once to find its peak and all
    that is wrong with it, so that reading it later does not fail. What cannot be opened twice (``"-"``, a pipe) is
    copied first.

    Args:
        path: WAV, FLAC, Ogg Vorbis / Opus, MP3, AIFF ...; with PyAV or ffmpeg also m4a, webm, video; ``"-"`` reads a
            whole file from standard input.
        sample_rate: Wanted rate, Hz.
        start_s: Where to start, seconds.
        duration_s: How much to read, seconds; None reads to the end.
        hold_s: Recordings up to this length are kept in memory instead of being read again.

    Raises:
        AudioError: If the file is missing, a folder, empty, not audio, holds no samples or values that are not
            finite, or if ``start_s`` lies behind its end.
    """
    name = "standard input" if str(path) == "-" else str(path)
    if not (math.isfinite(start_s) and start_s >= 0) or (duration_s is not None and not 0 < duration_s < math.inf):
        raise AudioError(f"{name}: start must be >= 0 s and duration > 0 s, not {start_s} and {duration_s}")
    reader = _Reader(_open_source(path, name), name, sample_rate, start_s, duration_s)
    held, num_samples, peak = reader.scan(hold_s * sample_rate)
    if reader.cancels():
        logger.warning("%s: its channels cancel each other; only channel %d is used", name, reader.loudest + 1)
        reader.channel = reader.loudest
        held, num_samples, peak = reader.scan(hold_s * sample_rate)
    if held is not None:
        return Recording.of(torch.from_numpy(np.concatenate(held) / np.float32(peak))[None], sample_rate)

    def blocks() -> Iterator[Tensor]:
        """The blocks, read anew."""
        return (torch.from_numpy(block / np.float32(peak))[None] for block in reader.blocks())

    return Recording(num_samples, sample_rate, blocks)


def read_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, start_s: float = 0.0, duration_s: float | None = None
) -> Tensor:
    """Read a whole file as mono audio; arguments and errors as for `open_audio`.

    Returns:
        Waveform in [-1, 1], (1, N), float32, N > 0.
    """
    return open_audio(path, sample_rate, start_s, duration_s, hold_s=math.inf).read()


@dataclass(frozen=True)
class _Source:
    """A file that can be read any number of times."""

    path: str | None  # None: a copy without a name
    copy: BinaryIO | None = None
    layout: list[list[Piece]] = field(default_factory=list)  # see `containers.layout`

    def streams(self, keep: ExitStack) -> Iterator[Any]:
        """What libsndfile is to open, one after another; ``keep`` closes it."""
        if not self.layout and self.path is not None:
            yield os.fsencode(self.path)  # names need not be valid text
            return
        file = self.copy if self.path is None else keep.enter_context(Path(self.path).open("rb"))  # noqa: SIM115
        assert file is not None
        for pieces in self.layout or [[(0, file.seek(0, os.SEEK_END))]]:
            yield io.BufferedReader(Spliced(file, pieces))


@dataclass
class _Reader:
    """Reads a source as blocks of mono samples, and notes how loud its channels are."""

    source: _Source
    name: str
    sample_rate: int
    start_s: float
    duration_s: float | None
    channel: int | None = None  # None: the mean of all
    mixed: float = 0.0  # energy of the mean
    single: np.ndarray = field(default_factory=lambda: np.zeros(MAX_CHANNELS))  # energy of each channel

    @property
    def loudest(self) -> int:
        """Number of the loudest channel."""
        return int(self.single.argmax())

    def cancels(self) -> bool:
        """Whether the mean of the channels is much quieter than one of them."""
        return self.channel is None and self.mixed * 10 ** (CANCELLED_DB / 10) < float(self.single.max())

    def scan(self, hold: float) -> tuple[list[np.ndarray] | None, int, float]:
        """Blocks if they have at most ``hold`` samples together, number of samples, and peak (at least 1)."""
        held: list[np.ndarray] | None = []
        num_samples, peak = 0, 1.0
        for block in self.blocks():
            num_samples += block.size
            peak = max(peak, float(np.abs(block).max()))
            if held is not None:
                held = [*held, block] if num_samples <= hold else None
        return held, num_samples, peak

    def blocks(self) -> Iterator[np.ndarray]:
        """Consecutive blocks (n,), n > 0, float32, at ``sample_rate``, as loud as the file has them."""
        try:
            yield from self._read()
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{self.name}: not readable as audio ({str(error.error_string).rstrip('. ')}); "
                "give a WAV, FLAC, Ogg or MP3 file, or convert it first with ffmpeg"
            ) from error

    def _read(self) -> Iterator[np.ndarray]:
        skip_s, left_s, length_s = self.start_s, self.duration_s, 0.0
        num_read = num_given = promised = rate = 0
        with ExitStack() as keep:
            for stream in self.source.streams(keep):
                file = keep.enter_context(_Forward(stream))
                rate, total = file.samplerate, file.frames
                if file.channels > MAX_CHANNELS or rate <= 0:
                    raise AudioError(
                        f"{self.name}: the header says {file.channels} channels at {rate} Hz; the file is damaged"
                    )
                length_s += total / rate
                first = round(skip_s * rate)
                if first and first >= total:  # it begins in a later stream
                    skip_s -= total / rate
                    continue
                if first:
                    file.seek(first)
                skip_s, promised = 0.0, promised + total - first
                for block, count in self._resampled(file, math.inf if left_s is None else round(left_s * rate)):
                    num_read, num_given = num_read + count, num_given + block.size
                    left_s = None if left_s is None else left_s - count / rate
                    if block.size:
                        yield block
        if skip_s:
            raise AudioError(f"{self.name}: start {self.start_s:g} s lies behind its end ({length_s:.2f} s)")
        if num_read == 0:
            raise AudioError(f"{self.name}: holds no audio samples")
        if num_given == 0:
            raise AudioError(f"{self.name}: too short to resample ({num_read} samples at {rate} Hz)")
        if self.duration_s is None and num_read < promised < 1 << 62:  # beyond: a length that is not known
            told = "%s: truncated, holds %d of the %d samples its header promises"
            logger.warning(told, self.name, num_read, promised)

    def _resampled(self, file: soundfile.SoundFile, wanted: float) -> Iterator[tuple[np.ndarray, int]]:
        """Up to ``wanted`` samples from here on, in blocks, each with how many samples of the file it took."""
        resampler = None
        if file.samplerate != self.sample_rate:
            resampler = soxr.ResampleStream(file.samplerate, self.sample_rate, 1, dtype="float32")
        last = wanted <= 0
        while not last:
            size = int(min(max(1, BLOCK_VALUES // file.channels), wanted))
            samples = file.read(size, dtype="float32", always_2d=True)
            wanted -= len(samples)
            last = len(samples) < size or wanted <= 0
            if not np.isfinite(samples).all():
                raise AudioError(f"{self.name}: holds samples that are NaN or infinite; export it again as 16-bit WAV")
            mono = self._mono(samples)
            yield mono if resampler is None else resampler.resample_chunk(mono, last=last), len(samples)

    def _mono(self, samples: np.ndarray) -> np.ndarray:
        """The mean of the channels, or the chosen one, (n,), of samples (n, channels)."""
        channels = samples.shape[1]
        if self.channel is not None:
            return np.ascontiguousarray(samples[:, min(self.channel, channels - 1)])
        mono = samples.mean(axis=1)
        if channels > 1:
            self.single[:channels] += np.einsum("nc,nc->c", samples, samples)
            self.mixed += float(mono @ mono)
        return mono


class _Forward(soundfile.SoundFile):
    """A sound file that is only read onwards: soundfile seeks after every read, at which MP3 loses its state."""

    def seekable(self) -> bool:
        """Claim not to be, so that soundfile leaves the position alone."""
        return False


def _open_source(path: str | Path, name: str) -> _Source:
    """Check what can be checked before decoding, with one message for each kind of mistake."""
    if str(path) == "-":
        if sys.stdin is None:
            raise AudioError("standard input: is closed; pipe an audio file in")
        return _from_copy(_copied(sys.stdin.buffer, name), name)
    file = Path(path)
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{name}: is a folder; give an audio file")
        with file.open("rb") as handle:
            if not stat.S_ISREG(mode):  # a pipe gives its bytes once
                return _from_copy(_copied(handle, name), name)
            head = handle.read(16)
            if not head:
                raise AudioError(f"{name}: the file is empty (0 bytes)")
            if needs_decoding(head, file.suffix):
                return _Source(None, decode_media(str(file), name))
            _warn_if_cut_off(head, os.fstat(handle.fileno()).st_size, name)
            return _Source(str(file), None, layout(handle))
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror})") from error


def _copied(file: BinaryIO, name: str) -> BinaryIO:
    """All of a stream in a temporary file, since reading audio takes going back."""
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(file, copy)
    if not copy.tell():
        raise AudioError(f"{name}: empty; pipe an audio file in")
    copy.flush()
    return cast(BinaryIO, copy)


def _from_copy(copy: BinaryIO, name: str) -> _Source:
    copy.seek(0)
    if needs_decoding(copy.read(16), ""):
        return _Source(None, decode_media(copy.name, name))
    return _Source(None, copy, layout(copy))


def _warn_if_cut_off(head: bytes, size: int, name: str) -> None:
    """Programs that stream write a huge size; only a plausible one tells that something was cut off."""
    promised = int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"RIFF" and size < promised < 0x7FFFF000:
        logger.warning("%s: truncated, holds %d of the %d bytes its header promises", name, size, promised)
