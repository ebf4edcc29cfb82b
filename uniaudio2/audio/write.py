"""Writing audio files: whole or piece by piece, limited, complete or not at all."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import soundfile
import torch
from torch import Tensor

from uniaudio2.audio.wave import SAMPLE_RATE, AudioError, limit
from uniaudio2.files import replacing

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
_AT_ONCE = 1 << 16  # samples that are handed to an encoder; Vorbis needs much stack for more


class AudioWriter:
    """Writes audio piece by piece in constant memory, limited; to be used in a ``with`` statement.

    The file appears under its name when the block ends without error, and not at all otherwise. Joined, the pieces
    give the file that `write_audio` makes of the whole.

    Args:
        path: Ends in ``.wav``, ``.flac``, ``.mp3``, ``.ogg`` or ``.opus``; missing parent folders are made. ``"-"``
            writes a WAV file to standard output.
        sample_rate: Of the pieces, Hz.

    Raises:
        AudioError: If the suffix is unknown, a piece cannot be used or the file cannot be written.
    """

    def __init__(self, path: str | Path, sample_rate: int = SAMPLE_RATE) -> None:
        self.path = path
        self.sample_rate = sample_rate
        suffix = ".wav" if str(path) == "-" else Path(path).suffix.lower()
        if suffix not in _FORMATS:
            raise AudioError(f"{path}: unknown audio suffix {Path(path).suffix!r}; use {', '.join(_FORMATS)}")
        if str(path) != "-" and Path(path).is_dir():
            raise AudioError(f"{path}: is a folder; give a file name")
        self._format, self._subtype = _FORMATS[suffix]
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
            for first in range(0, len(samples), _AT_ONCE):
                self._file.buffer_write(samples[first : first + _AT_ONCE].tobytes(), "int16")
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
    """Limit a waveform and write it; see `AudioWriter`.

    Args:
        path: ``.wav``, ``.flac``, ``.mp3``, ``.ogg`` or ``.opus``; ``"-"`` writes a WAV file to standard output.
        audio: Waveform, (1, N) or (N,).
        sample_rate: Its rate, Hz.

    Raises:
        AudioError: If the shape is wrong, samples are not finite, the suffix is unknown or the file cannot be written.
    """
    with AudioWriter(path, sample_rate) as writer:
        writer.write(audio)
