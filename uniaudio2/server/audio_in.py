"""Recordings that clients send: read from memory, no longer than allowed, whatever their headers say.

No path or address of a client is opened, and nothing is written to disk.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from uniaudio2.api.inputs import open_recording
from uniaudio2.audio import SAMPLE_RATE, AudioError, Recording, open_audio
from uniaudio2.audio.media import needs_decoding
from uniaudio2.engine import check_cancelled
from uniaudio2.server.errors import APIError

_BLOCK = 1 << 18  # samples: 11 s
# What PyAV may take an upload for, whatever it looks like, and that it may open nothing else: the description of a
# network stream, for one, would have it listen at a port.
_ONLY = {"format_whitelist": "mov,matroska,asf,amr,flv,ac3,eac3,aac,ape", "protocol_whitelist": "pipe"}
_SLACK_S = 1.0  # beyond the limit: tells a recording that is too long from one that is just as long


def read_recording(data: bytes, most_s: float, *, name: str = "file") -> Recording:
    """A recording of at most so many seconds, held in memory.

    Args:
        data: A whole file: WAV, FLAC, Ogg, MP3, …; with PyAV also m4a, webm and video.
        most_s: Longest that is allowed.
        name: The field it came in, for messages.

    Raises:
        APIError: If it is empty, no audio, damaged or too long.
    """
    if not data:
        raise APIError(400, f"{name}: the file is empty (0 bytes)", param=name, code="invalid_audio")
    try:
        recording = _by_pyav(data, most_s) if needs_decoding(data[:16], "") else _by_libsndfile(data, most_s)
    except AudioError as error:
        message = str(error).split(": ", 1)[-1]  # without the name that the file has in memory
        raise APIError(400, f"{name}: {message}", param=name, code="invalid_audio") from error
    if recording.duration_s > most_s:
        message = f"{name}: longer than the {most_s:g} s that this server takes: send it in parts"
        raise APIError(413, message, param=name, code="audio_too_long")
    audio = recording.read()

    def blocks() -> Iterator[torch.Tensor]:
        """Some seconds at a time, so that nothing works on all of it at once, and can be stopped in between."""
        for block in audio.split(_BLOCK, dim=1):
            check_cancelled()
            yield block

    return Recording(recording.num_samples, recording.sample_rate, blocks)


def _by_libsndfile(data: bytes, most_s: float) -> Recording:
    with memory_file(data) as path:
        recording = open_audio(path, duration_s=most_s + _SLACK_S, hold_s=most_s + 2 * _SLACK_S)
    return recording


def _by_pyav(data: bytes, most_s: float) -> Recording:
    """The first audio stream of a container; only what is allowed of it is decoded."""
    if importlib.util.find_spec("av") is None:
        raise AudioError(
            "file: this server does not read that container: send WAV, FLAC, Ogg or MP3, or install "
            "uniaudio2[media] on it"
        )
    import av

    blocks: list[np.ndarray] = []
    room = round((most_s + _SLACK_S) * SAMPLE_RATE)
    try:
        with av.open(io.BytesIO(data), "r", options=_ONLY, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError("file: holds no audio stream")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(container.streams.audio[0]):
                for part in resampler.resample(frame):
                    blocks.append(part.to_ndarray().reshape(-1))
                    room -= blocks[-1].size
                if room < 0:
                    break
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"file: cannot be decoded ({error}); send WAV, FLAC or MP3") from error
    if not blocks:
        raise AudioError("file: holds no audio samples")
    return open_recording(torch.from_numpy(np.concatenate(blocks)))


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """The path of a file that lies in memory, for what reads files only."""
    if not hasattr(os, "memfd_create"):  # only Linux has it; elsewhere a temporary file, gone at once
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    handle = os.memfd_create("upload")
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def from_base64(text: str, *, name: str) -> bytes:
    """The bytes of base64 text, or of a ``data:`` address.

    Raises:
        APIError: If it is neither; other addresses are not opened.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        message = f"{name}: must be base64, or a data: address with it; paths and other addresses are not opened"
        raise APIError(400, message, param=name, code="invalid_base64") from None
