"""Containers that libsndfile does not know (m4a, webm, video): decoded by PyAV or ffmpeg to a temporary file."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from typing import BinaryIO, cast

import soundfile

from uniaudio2.audio.wave import AudioError
from uniaudio2.formats import MEDIA_SUFFIXES

_SIGNATURES = (b"\x1aE\xdf\xa3", b"0&\xb2u", b"#!AMR", b"FLV\x01", b"\x0bw", b"MAC ", b"\xff\xf1", b"\xff\xf9")
_READABLE = (b"RIFF", b"OggS", b"fLaC", b"FORM", b"ID3", b"caff", b".snd")


def needs_decoding(head: bytes, suffix: str) -> bool:
    """Whether a file that begins like this, or has this ending, is such a container."""
    if head.startswith(_READABLE):
        return False
    return head[4:8] == b"ftyp" or head.startswith(_SIGNATURES) or suffix.lower() in MEDIA_SUFFIXES


def decode_media(path: str, name: str) -> BinaryIO:
    """The first audio stream of a file, decoded (float32) to a temporary file that is at its beginning.

    Args:
        path: The file.
        name: As the user knows it.

    Raises:
        AudioError: If there is no decoder, or the file cannot be decoded.
    """
    if importlib.util.find_spec("av") is not None:
        return _by_pyav(path, name)
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{name}: this container needs a decoder: pip install 'uniaudio2[media]' (PyAV), or install ffmpeg; "
            "or give a WAV, FLAC, Ogg or MP3 file"
        )
    return _by_ffmpeg(program, path, name)


def _by_pyav(path: str, name: str) -> BinaryIO:
    import av

    out = tempfile.TemporaryFile()  # noqa: SIM115
    sink: soundfile.SoundFile | None = None
    try:
        with av.open(path, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: holds no audio stream")
            resampler = av.AudioResampler(format="flt")  # one format, channels side by side
            for frame in container.decode(container.streams.audio[0]):
                for part in resampler.resample(frame):
                    channels = part.layout.nb_channels
                    if sink is None:
                        sink = soundfile.SoundFile(out, "w", part.sample_rate, channels, "FLOAT", format="W64")
                    sink.write(part.to_ndarray().reshape(-1, channels))
    except av.FFmpegError as error:
        raise AudioError(f"{name}: cannot be decoded ({error.strerror}); convert it to WAV, FLAC or MP3") from error
    finally:
        if sink is not None:
            sink.close()
    if sink is None:
        raise AudioError(f"{name}: holds no audio samples")
    out.seek(0)
    return out


def _by_ffmpeg(program: str, path: str, name: str) -> BinaryIO:
    out = tempfile.NamedTemporaryFile()  # noqa: SIM115 (by name, since ffmpeg goes back to write the length)
    safe = ["-nostdin", "-v", "error", "-protocol_whitelist", "file"]  # no playlist may open an address
    form = ["-c:a", "pcm_f32le", "-f", "caf", "-y"]  # of 64-bit lengths; libsndfile misreads ffmpeg's floats in w64
    command = [program, *safe, "-i", f"file:{path}", "-map", "0:a:0", *form]
    done = subprocess.run([*command, f"file:{out.name}"], stderr=subprocess.PIPE, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise AudioError(f"{name}: cannot be decoded ({lines[-1].strip()}); convert it to WAV, FLAC or MP3")
    return cast(BinaryIO, out)
