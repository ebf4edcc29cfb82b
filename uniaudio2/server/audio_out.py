"""Waveforms as bytes of a format, piece by piece: each encoder keeps its state from one piece to the next."""

from __future__ import annotations

import importlib.util
import io
import struct
from typing import Any, BinaryIO, Literal, Protocol, cast

import numpy as np
import soundfile
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, limit
from uniaudio2.server.errors import APIError

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
MEDIA_TYPES: dict[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_SOUNDFILE = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}


class Encoder(Protocol):
    """Turns consecutive waveforms (1, n) into the bytes of one file."""

    def write(self, audio: Tensor) -> bytes:
        """The bytes that are ready."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


def encoder(form: str) -> Encoder:
    """An encoder for one of `MEDIA_TYPES`, 24 kHz, mono.

    Raises:
        APIError: If it needs a package that is not here.
    """
    if form in ("wav", "pcm"):
        return _Plain(header=form == "wav")
    if form != "aac":
        return _ByLibsndfile(*_SOUNDFILE[form])
    if importlib.util.find_spec("av") is None:
        message = "response_format: aac needs uniaudio2[media] on the server: install it, or ask for mp3, opus or flac"
        raise APIError(400, message, param="response_format", code="unsupported_format")
    return _ByPyAV()


def encode_all(audio: Tensor, form: str) -> bytes:
    """A whole waveform (1, N) as a file; a WAV file says how long it is."""
    if form == "wav":
        return wav_header(audio.shape[-1] * 2) + pcm16(audio)
    each = encoder(form)
    return each.write(audio) + each.finish()


def pcm16(audio: Tensor) -> bytes:
    """A waveform (1, n) as 16-bit little-endian samples, limited."""
    samples = np.round(limit(audio.detach().cpu().float()).numpy().reshape(-1) * 32767.0)
    return samples.astype("<i2").tobytes()


def wav_header(size: int = 0xFFFFFFFF, rate: int = SAMPLE_RATE) -> bytes:
    """The header of a mono 16-bit WAV file with so many bytes of samples; the largest number stands for unknown."""
    whole = min(size + 36, 0xFFFFFFFF)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", size)


class _Plain:
    """Samples, behind one header for WAV."""

    def __init__(self, *, header: bool) -> None:
        self._ahead = wav_header() if header else b""

    def write(self, audio: Tensor) -> bytes:
        ahead, self._ahead = self._ahead, b""
        return ahead + pcm16(audio)

    def finish(self) -> bytes:
        ahead, self._ahead = self._ahead, b""
        return ahead


class _Drained(io.RawIOBase):
    """What libsndfile writes, taken away as it comes; what it would correct later, in bytes that are gone, is lost."""

    def __init__(self) -> None:
        self._held, self._gone, self._at = bytearray(), 0, 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Keep it, but for what belongs to bytes that were taken."""
        data = bytes(data)
        start = self._at - self._gone
        kept = data[max(0, -start) :]
        start = max(0, start)
        self._held[start : start + len(kept)] = kept
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self._at = offset + (0, self._at, self._gone + len(self._held))[whence]
        return self._at

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._at

    def take(self) -> bytes:
        """What has come since the last time."""
        taken = bytes(self._held)
        self._gone += len(taken)
        self._held.clear()
        return taken


class _ByLibsndfile:
    """MP3, Opus in Ogg (about a second at a time), FLAC (all at the end)."""

    def __init__(self, form: str, subtype: str) -> None:
        self._sink = _Drained()
        # A constant rate, since the table of a variable one stands at the beginning and is known at the end.
        mode: Any = {"compression_level": 0.5, "bitrate_mode": "CONSTANT"} if form == "MP3" else {}
        self._whole = form == "FLAC"  # its header says how long it is, and readers insist
        self._file = soundfile.SoundFile(
            cast(BinaryIO, self._sink), "w", SAMPLE_RATE, channels=1, format=form, subtype=subtype, **mode
        )

    def write(self, audio: Tensor) -> bytes:
        self._file.buffer_write(pcm16(audio), "int16")
        return b"" if self._whole else self._sink.take()

    def finish(self) -> bytes:
        self._file.close()
        return self._sink.take()


class _ByPyAV:
    """AAC in ADTS frames."""

    def __init__(self) -> None:
        import av

        self._sink = _Drained()
        self._container = av.open(cast(Any, self._sink), "w", format="adts")
        self._stream = cast(Any, self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono"))

    def write(self, audio: Tensor) -> bytes:
        import av

        samples = np.frombuffer(pcm16(audio), "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()
