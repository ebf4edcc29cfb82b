"""Audio files and plain waveform arithmetic: read and write, whole or block by block, resample, level, limit, divide.

Shapes: ``N`` samples. A waveform is a float32 tensor ``(1, N)``, mono, in [-1, 1], at 24 kHz unless said otherwise.
Knows nothing about codecs or models.
"""

from __future__ import annotations

import io
import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.files import replacing

logger = logging.getLogger(__name__)

SAMPLE_RATE = 24000
"""Sample rate of every waveform inside the package, Hz."""

LIMIT_THRESHOLD = 0.9
"""The limiter leaves samples up to this magnitude untouched."""

LIMIT_CEILING = 0.99
"""No limited sample is larger in magnitude than this."""

MAX_CHANNELS = 64
"""More channels than this in a header are taken for a broken file."""

HELD_S = 30.0
"""A recording up to this length is kept in memory once it is read, seconds."""

BLOCK_VALUES = 1 << 19
"""Values (frames times channels) that are read from a file at a time."""

PAUSE_S = 0.2
"""Length of the stretch whose level tells a pause, seconds."""

_PAUSE_HOP_S = 0.01
_WRITE_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}


class AudioError(UserError):
    """An audio file or waveform that cannot be used; the message names the file and the remedy."""


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

    Channels are averaged; other rates are resampled; a recording that exceeds full scale is scaled to a peak of 1. The
    file is read through once to find its peak and all that is wrong with it, so that reading it later does not fail.

    Args:
        path: WAV, FLAC, Ogg Vorbis / Opus, MP3, AIFF ...; ``"-"`` reads a whole file from standard input.
        sample_rate: Wanted rate, Hz.
        start_s: Where to start, seconds.
        duration_s: How much to read, seconds; None reads to the end.
        hold_s: Recordings up to this length are kept in memory instead of being read again.

    Raises:
        AudioError: If the file is missing, a folder, empty, not audio, holds no samples or values that are not
            finite, or if ``start_s`` lies behind its end.
    """
    name = "standard input" if str(path) == "-" else str(path)
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise AudioError(f"{name}: start must be >= 0 s and duration > 0 s, not {start_s} and {duration_s}")
    source = _open_source(path, name)

    def read_blocks() -> Iterator[np.ndarray]:
        """The blocks as the file has them, (n,), not scaled."""
        return _read_blocks(source, name, sample_rate, start_s, duration_s)

    held: list[np.ndarray] | None = []
    num_samples, peak = 0, 1.0
    for block in read_blocks():
        num_samples += block.size
        peak = max(peak, float(np.abs(block).max()))
        if held is not None:
            held = [*held, block] if num_samples <= hold_s * sample_rate else None
    if held is not None:
        whole = torch.from_numpy(np.concatenate(held) / np.float32(peak))[None]
        return Recording.of(whole, sample_rate)
    return Recording(
        num_samples, sample_rate, lambda: (torch.from_numpy(block / np.float32(peak))[None] for block in read_blocks())
    )


def read_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, start_s: float = 0.0, duration_s: float | None = None
) -> Tensor:
    """Read a whole file as mono audio; arguments and errors as for `open_audio`.

    Returns:
        Waveform in [-1, 1], (1, N), float32, N > 0.
    """
    return open_audio(path, sample_rate, start_s, duration_s, hold_s=math.inf).read()


def _read_blocks(
    source: str | BinaryIO, name: str, sample_rate: int, start_s: float, duration_s: float | None
) -> Iterator[np.ndarray]:
    """Consecutive blocks of a file as mono samples (n,), n > 0, float32, at ``sample_rate``."""
    try:
        if not isinstance(source, str):
            source.seek(0)
        with _Forward(source) as file:
            yield from _resampled_blocks(file, name, sample_rate, start_s, duration_s)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not readable as audio ({str(error.error_string).rstrip('. ')}); "
            "give a WAV, FLAC, Ogg or MP3 file, or convert it first with ffmpeg"
        ) from error


class _Forward(soundfile.SoundFile):
    """A sound file that is only read onwards: soundfile seeks after every read, at which MP3 loses its state."""

    def seekable(self) -> bool:
        """Claim not to be, so that soundfile leaves the position alone."""
        return False


def _resampled_blocks(
    file: soundfile.SoundFile, name: str, sample_rate: int, start_s: float, duration_s: float | None
) -> Iterator[np.ndarray]:
    """See `_read_blocks`."""
    rate, channels, total = file.samplerate, file.channels, file.frames
    if channels > MAX_CHANNELS or rate <= 0:
        raise AudioError(f"{name}: the header says {channels} channels at {rate} Hz; the file is damaged")
    first = round(start_s * rate)
    if first and first >= total:
        raise AudioError(f"{name}: start {start_s:g} s lies behind its end ({total / rate:.2f} s)")
    if first:
        file.seek(first)
    wanted = math.inf if duration_s is None else round(duration_s * rate)
    resampler = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
    num_read = num_given = 0
    last = False
    while not last:
        size = int(min(max(1, BLOCK_VALUES // channels), wanted - num_read))
        samples = file.read(size, dtype="float32", always_2d=True)
        num_read += len(samples)
        last = len(samples) < size or num_read >= wanted
        if not np.isfinite(samples).all():
            raise AudioError(f"{name}: holds samples that are NaN or infinite; export it again as 16-bit WAV")
        mono = samples.mean(axis=1)
        if resampler is not None:
            mono = resampler.resample_chunk(mono, last=last)
        num_given += mono.size
        if mono.size:
            yield mono
    if num_read == 0:
        raise AudioError(f"{name}: holds no audio samples")
    if num_given == 0:
        raise AudioError(f"{name}: too short to resample ({num_read} samples at {rate} Hz)")
    if duration_s is None and first + num_read < total:
        logger.warning("%s: truncated, holds %d of the %d samples its header promises", name, num_read, total)


def _open_source(path: str | Path, name: str) -> str | BinaryIO:
    """Check what can be checked before decoding, with one message for each kind of mistake."""
    if str(path) == "-":
        spool = tempfile.TemporaryFile()  # libsndfile seeks  # noqa: SIM115
        shutil.copyfileobj(sys.stdin.buffer, spool)
        if not spool.tell():
            raise AudioError("standard input: empty; pipe an audio file in")
        return spool
    file = Path(path)
    if not file.exists():
        raise AudioError(f"{name}: no such file")
    if file.is_dir():
        raise AudioError(f"{name}: is a folder; give an audio file")
    try:
        with file.open("rb") as handle:
            head = handle.read(8)
            if not head:
                raise AudioError(f"{name}: the file is empty (0 bytes)")
            size = file.stat().st_size
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror})") from error
    promised = int.from_bytes(head[4:8], "little") + 8
    # Programs that stream write a huge size; only a plausible one tells that something was cut off.
    if head[:4] == b"RIFF" and size < promised < 0x7FFFFF00:
        logger.warning("%s: truncated, holds %d of the %d bytes its header promises", name, size, promised)
    return str(file)


class AudioWriter:
    """Writes 16-bit audio piece by piece in constant memory, limited; to be used in a ``with`` statement.

    The file appears under its name when the block ends without error, and not at all otherwise. Joined, the pieces
    give the file that `write_audio` makes of the whole.

    Args:
        path: ``.wav`` or ``.flac``; missing parent folders are made. ``"-"`` writes a WAV file to standard output.
        sample_rate: Of the pieces, Hz.

    Raises:
        AudioError: If the suffix is unknown, a piece cannot be used or the file cannot be written.
    """

    def __init__(self, path: str | Path, sample_rate: int = SAMPLE_RATE) -> None:
        self.path = path
        self.sample_rate = sample_rate
        suffix = ".wav" if str(path) == "-" else Path(path).suffix.lower()
        if suffix not in _WRITE_FORMATS:
            raise AudioError(f"{path}: unknown audio suffix {Path(path).suffix!r}; use .wav or .flac")
        if str(path) != "-" and Path(path).is_dir():
            raise AudioError(f"{path}: is a folder; give a file name")
        self._format, self._subtype = _WRITE_FORMATS[suffix]
        self._parts = ExitStack()

    def __enter__(self) -> AudioWriter:
        with self._explained():
            target = _spooled_stdout() if str(self.path) == "-" else replacing(self.path)
            self._sink = _Sink(self._parts.enter_context(target))
            self._parts.callback(self._sink.check)
            self._file = self._parts.enter_context(
                soundfile.SoundFile(
                    cast(BinaryIO, self._sink),
                    "w",
                    self.sample_rate,
                    channels=1,
                    format=self._format,
                    subtype=self._subtype,
                )
            )
        return self

    def write(self, audio: Tensor) -> None:
        """Append a waveform, (1, N) or (N,)."""
        wave = audio.detach().to("cpu", torch.float32)
        if wave.ndim == 2 and wave.shape[0] == 1:
            wave = wave[0]
        if wave.ndim != 1:
            raise AudioError(f"{self.path}: expected a mono waveform (1, N), not shape {tuple(audio.shape)}")
        if not torch.isfinite(wave).all():
            raise AudioError(f"{self.path}: the waveform holds NaN or infinite samples and was not written")
        samples = torch.round(limit(wave) * 32767.0).to(torch.int16).numpy()
        with self._explained():
            self._file.buffer_write(samples.tobytes(), "int16")
            self._sink.check()

    def __exit__(self, *error: Any) -> None:
        with self._explained():
            self._parts.__exit__(*error)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what could not be written, and why."""
        try:
            yield
        except (OSError, soundfile.LibsndfileError) as error:
            reason = self._sink.error if hasattr(self, "_sink") and self._sink.error else error
            raise AudioError(f"{self.path}: cannot be written ({getattr(reason, 'strerror', reason)})") from reason


class _Sink(io.RawIOBase):
    """Passes bytes on to a file and keeps an error for later: libsndfile cannot hear of a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all, or claim so once an error has happened."""
        if self.error is None:
            try:
                return self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move in the file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.file.tell()

    def check(self) -> None:
        """Raise the error that was kept."""
        if self.error is None:
            try:
                self.file.flush()
            except OSError as error:
                self.error = error
        if self.error is not None:
            raise self.error


@contextmanager
def _spooled_stdout() -> Iterator[BinaryIO]:
    """A file on disk that goes to standard output when the block ends: the header of a WAV file is written last."""
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def write_audio(path: str | Path, audio: Tensor, sample_rate: int = SAMPLE_RATE) -> None:
    """Limit a waveform and write it as 16-bit audio; see `AudioWriter`.

    Args:
        path: ``.wav`` or ``.flac``; ``"-"`` writes a WAV file to standard output.
        audio: Waveform, (1, N) or (N,).
        sample_rate: Its rate, Hz.

    Raises:
        AudioError: If the shape is wrong, samples are not finite, the suffix is unknown or the file cannot be written.
    """
    with AudioWriter(path, sample_rate) as writer:
        writer.write(audio)


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate along the last axis (soxr, high quality).

    Args:
        audio: Waveform, (..., N).
        from_rate: Its rate, Hz.
        to_rate: Wanted rate, Hz.

    Returns:
        Waveform, (..., round(N * to_rate / from_rate)) up to one sample, float32, on the same device.
    """
    if from_rate == to_rate:
        return audio
    flat = audio.detach().to("cpu", torch.float32).reshape(-1, audio.shape[-1])
    out = soxr.resample(flat.numpy().T, from_rate, to_rate).T
    return torch.from_numpy(np.ascontiguousarray(out)).reshape(*audio.shape[:-1], -1).to(audio.device)


def rms_dbfs(audio: Tensor) -> float:
    """Root mean square level of a waveform of any shape, dB relative to full scale; -inf for silence."""
    power = float(audio.to(torch.float32).square().mean())
    return 10.0 * math.log10(power) if power > 0 else -math.inf


def limit(audio: Tensor) -> Tensor:
    """Bend samples beyond the threshold smoothly under the ceiling; leave all others as they are.

    Choice: a memoryless tanh knee, because decoded audio exceeds full scale only in short peaks (the published
    decoder's reach 1.4 on speech) and a knee needs no look-ahead, so it is the same for streams and for files.

    Args:
        audio: Waveform, any shape.

    Returns:
        Waveform of the same shape with magnitude <= 0.99.
    """
    room = LIMIT_CEILING - LIMIT_THRESHOLD
    magnitude = audio.abs()
    bent = LIMIT_THRESHOLD + room * torch.tanh((magnitude - LIMIT_THRESHOLD) / room)
    return torch.where(magnitude <= LIMIT_THRESHOLD, audio, torch.sign(audio) * bent)


def chunks_at_pauses(blocks: Iterable[Tensor], max_s: float) -> Iterator[tuple[int, Tensor]]:
    """Divide a waveform that comes block by block in chunks of at most ``max_s``, in constant memory.

    Each chunk is cut at the quietest 0.2 s of its second half; where blocks begin does not matter.

    Args:
        blocks: Consecutive blocks (1, n) at 24 kHz.
        max_s: Longest chunk, seconds.

    Yields:
        First sample and waveform (1, n) of each chunk; they cover the waveform without gap or overlap.
    """
    longest, start = round(max_s * SAMPLE_RATE), 0
    seen = longest + round(PAUSE_S * SAMPLE_RATE)  # what comes soon after decides as well whether there is a pause
    waiting = torch.zeros(1, 0)
    for block in blocks:
        waiting = torch.cat([waiting, block], dim=1)
        while waiting.shape[1] > seen:
            cut = _quietest(waiting[:, :seen], longest)
            yield start, waiting[:, :cut]
            waiting, start = waiting[:, cut:], start + cut
    while waiting.shape[1] > longest:
        cut = _quietest(waiting, longest)
        yield start, waiting[:, :cut]
        waiting, start = waiting[:, cut:], start + cut
    if waiting.shape[1]:
        yield start, waiting


def _quietest(audio: Tensor, longest: int) -> int:
    """Sample in the second half of the first ``longest`` samples of (1, N) around which 0.2 s are quietest."""
    hop = round(_PAUSE_HOP_S * SAMPLE_RATE)
    width = round(PAUSE_S / _PAUSE_HOP_S)
    power = audio[0, : audio.shape[1] // hop * hop].reshape(1, 1, -1, hop).square().mean(3)
    smooth = torch.nn.functional.avg_pool1d(power[0], width, 1, padding=width // 2, count_include_pad=False)[0]
    low, high = longest // 2 // hop, longest // hop
    return (low + int(smooth[low:high].argmin())) * hop
