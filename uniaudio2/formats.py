"""Endings of audio files, and what can read and write them here. Light: no package is imported for it."""

from __future__ import annotations

import importlib.util
import shutil

_WAVES = {
    ".wav",
    ".wave",
    ".bwf",
    ".w64",
    ".rf64",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".snd",
    ".caf",
    ".voc",
    ".sph",
    ".nist",
}

AUDIO_SUFFIXES = frozenset({*_WAVES, ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1"})
"""Endings of what is always read."""

MEDIA_SUFFIXES = frozenset(
    {".m4a", ".mp4", ".m4b", ".mov", ".aac", ".webm", ".mkv", ".mka", ".wma", ".amr", ".3gp", ".flv", ".ac3", ".ape"}
)
"""Endings of what only PyAV or ffmpeg reads."""

WRITABLE_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus")
"""Endings of what can be written."""


def can_decode_media() -> bool:
    """Whether PyAV or ffmpeg is at hand."""
    return importlib.util.find_spec("av") is not None or shutil.which("ffmpeg") is not None


def served_suffixes() -> frozenset[str]:
    """Endings of the audio files in a folder that are read here."""
    return AUDIO_SUFFIXES | MEDIA_SUFFIXES if can_decode_media() else AUDIO_SUFFIXES
