"""Audio files and plain waveform arithmetic. Knows nothing about codecs or models."""

from uniaudio2.audio.pipe import PipeReader, PipeWriter
from uniaudio2.audio.read import HELD_S, Recording, open_audio, read_audio
from uniaudio2.audio.tempo import FASTEST, SLOWEST, change_speed, stretched
from uniaudio2.audio.wave import (
    LIMIT_CEILING,
    LIMIT_THRESHOLD,
    PAUSE_S,
    SAMPLE_RATE,
    AudioError,
    PauseCutter,
    chunks_at_pauses,
    limit,
    resample,
    rms_dbfs,
)
from uniaudio2.audio.write import AudioWriter, write_audio

__all__ = [
    "FASTEST",
    "HELD_S",
    "LIMIT_CEILING",
    "LIMIT_THRESHOLD",
    "PAUSE_S",
    "SAMPLE_RATE",
    "SLOWEST",
    "AudioError",
    "AudioWriter",
    "PauseCutter",
    "PipeReader",
    "PipeWriter",
    "Recording",
    "change_speed",
    "chunks_at_pauses",
    "limit",
    "open_audio",
    "read_audio",
    "resample",
    "rms_dbfs",
    "stretched",
    "write_audio",
]
