"""Audio through pipes, as it comes: WAV files or bare samples that are read and written without an end in sight.

Shapes: ``N`` samples. A waveform is (1, N), mono, in [-1, 1].
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio.wave import SAMPLE_RATE, AudioError, limit

AT_ONCE_S = 0.1  # most audio that is read at a time
UNKNOWN_SIZE = 0xFFFFFFFF  # what programs write that do not know how long a stream will be
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TYPES = {(_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}
REMEDY = "WAV of 16 or 32 bits is read as it comes; convert with ffmpeg -i FILE -f wav -"


class PipeReader:
    """Samples from a pipe, as soon as they are there.

    Args:
        file: A WAV file, or bare 16-bit samples, mono, little-endian.
        raw_rate: Rate of bare samples, Hz; None: it is a WAV file.
        name: For messages.

    Raises:
        AudioError: If it does not begin as it should.
    """

    def __init__(self, file: BinaryIO, raw_rate: int | None = None, name: str = "standard input") -> None:
        self._file, self._name, self._left = file, name, None
        self.sample_rate, self._channels, self._type = raw_rate or 0, 1, np.dtype("<i2")
        if raw_rate is None:
            self._read_header()

    def __iter__(self) -> Iterator[Tensor]:
        """Consecutive samples (channels, n)."""
        frame, rest = self._channels * self._type.itemsize, b""
        most = max(1, round(AT_ONCE_S * self.sample_rate)) * frame
        read = self._file.read1 if isinstance(self._file, io.BufferedReader) else self._file.read
        scale = 2.0 ** (8 * self._type.itemsize - 1) if self._type.kind == "i" else 1.0
        while data := read(most if self._left is None else min(most, self._left)):
            if self._left is not None:
                self._left -= len(data)
            data = rest + data
            whole = len(data) // frame * frame
            data, rest = data[:whole], data[whole:]
            if whole:
                samples = np.frombuffer(data, self._type).reshape(-1, self._channels).T
                yield torch.from_numpy(np.ascontiguousarray(samples / scale, dtype=np.float32))

    def _read_header(self) -> None:
        """Everything before the samples."""
        head = self._file.read(12)
        if not head:
            raise AudioError(f"{self._name}: is empty")
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise AudioError(f"{self._name}: is not a WAV file; {REMEDY}, or give bare 16-bit samples with --raw HZ")
        kind = None
        while True:
            name, size = struct.unpack("<4sI", self._take(8))
            if name == b"data":
                break
            body = self._take(size + size % 2)
            if name == b"fmt " and size >= 16:
                kind, self._channels, self.sample_rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
                if kind == _EXTENSIBLE and size >= 26:
                    kind = struct.unpack("<H", body[24:26])[0]
                if (kind, bits) not in _TYPES or not 1 <= self._channels <= 64 or not 1 <= self.sample_rate <= 10**6:
                    raise AudioError(f"{self._name}: a kind of WAV file that cannot be read as it comes; {REMEDY}")
                self._type = np.dtype(_TYPES[kind, bits])
        if kind is None:
            raise AudioError(f"{self._name}: is a damaged WAV file: it does not say what its samples are; {REMEDY}")
        self._left = None if size in (0, UNKNOWN_SIZE) or size >= UNKNOWN_SIZE - 64 else size

    def _take(self, count: int) -> bytes:
        data = self._file.read(count) if count <= 1 << 20 else b""
        if len(data) < count:
            raise AudioError(f"{self._name}: is a damaged WAV file: it ends within its header")
        return data


class PipeWriter:
    """Writes waveforms as 16-bit samples while they are made, limited.

    Args:
        file: Where to.
        sample_rate: Of the waveforms, Hz.
        header: Whether a WAV header comes first, whose size says that the end is not known.
    """

    def __init__(self, file: BinaryIO, sample_rate: int = SAMPLE_RATE, *, header: bool = True) -> None:
        self._file = file
        if header:
            form = struct.pack("<HHIIHH", _PCM, 1, sample_rate, 2 * sample_rate, 2, 16)
            riff = struct.pack("<4sI4s4sI", b"RIFF", UNKNOWN_SIZE, b"WAVE", b"fmt ", len(form))
            file.write(riff + form + struct.pack("<4sI", b"data", UNKNOWN_SIZE))
            file.flush()

    def write(self, audio: Tensor) -> None:
        """Append a waveform (1, N), which is with the reader when this returns."""
        self._file.write(torch.round(limit(audio[0].float()) * 32767.0).to(torch.int16).numpy().tobytes())
        self._file.flush()
