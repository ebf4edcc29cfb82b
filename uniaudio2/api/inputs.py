"""What users hand over as audio, turned into what the package works with.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import soxr
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, AudioError, Recording, open_audio, resample, rms_dbfs
from uniaudio2.checks import check_number

MAX_CHANNELS = 64  # more rows than this are samples the wrong way round
MAX_SAMPLE_RATE = 1_000_000  # Hz
BLOCK_S = 0.25  # seconds of audio that comes which are taken at once
AudioInput: TypeAlias = "str | PathLike[str] | Recording | Tensor | np.ndarray[Any, Any]"


def open_recording(audio: AudioInput, sample_rate: int = SAMPLE_RATE) -> Recording:
    """Audio at 24 kHz that is read block by block, from a file, or from samples (N,), (1, N) or (channels, N).

    Args:
        audio: Path (``-`` for standard input), or samples in [-1, 1].
        sample_rate: Rate of samples given as such, Hz; files know theirs.

    Raises:
        AudioError: If there is nothing usable in it; the message says why.
    """
    if isinstance(audio, Recording):
        return audio
    if isinstance(audio, str | PathLike):
        return open_audio(str(audio))
    if not isinstance(audio, Tensor | np.ndarray | Sequence):
        raise AudioError(f"audio must be a path or samples, got {type(audio).__name__}")
    wave = as_mono(audio, sample_rate)
    if wave.shape[-1] == 0:
        raise AudioError("the audio holds no samples")
    return Recording.of(resample(wave, sample_rate, SAMPLE_RATE))


def as_mono(audio: Tensor | np.ndarray[Any, Any] | Sequence[Any], sample_rate: int) -> Tensor:
    """Samples (N,), (1, N) or (channels, N) as a waveform (1, N) of the same rate; N may be 0.

    Raises:
        AudioError: If they are no samples.
    """
    check_number("sample_rate", sample_rate, 1, MAX_SAMPLE_RATE, whole=True)
    wave = torch.as_tensor(audio, device="cpu").detach()
    if not wave.is_floating_point():
        raise AudioError(f"samples must be floats in [-1, 1], got {wave.dtype}; divide 16-bit integers by 32768")
    wave = wave.float()
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2:
        raise AudioError(f"samples must be (N,), (1, N) or (channels, N), got {tuple(wave.shape)}")
    if wave.shape[0] > MAX_CHANNELS:
        raise AudioError(f"samples must be (channels, N), got {tuple(wave.shape)}; transpose them")
    if not torch.isfinite(wave).all():
        raise AudioError("the audio holds samples that are NaN or infinite")
    return wave.mean(0, keepdim=True)


def as_blocks(chunks: Iterable[Tensor | np.ndarray[Any, Any]], sample_rate: int = SAMPLE_RATE) -> Iterator[Tensor]:
    """Samples that come chunk by chunk as short blocks (1, n) at 24 kHz, as soon as they are there.

    Args:
        chunks: Consecutive samples in [-1, 1]: (N,), (1, N) or (channels, N).
        sample_rate: Their rate, Hz.

    Raises:
        AudioError: If a chunk holds no samples that can be used.
    """
    resampler = None if sample_rate == SAMPLE_RATE else soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, "float32")
    for chunk in chunks:
        if not isinstance(chunk, Tensor | np.ndarray | list | tuple):
            raise AudioError(f"a chunk must be samples, got {type(chunk).__name__}")
        for block in as_mono(chunk, sample_rate).split(max(1, round(BLOCK_S * sample_rate)), dim=-1):
            if resampler is not None:
                block = torch.from_numpy(resampler.resample_chunk(block[0].numpy())[None])
            if block.shape[-1]:
                yield block
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        if rest.size:
            yield torch.from_numpy(rest[None])


def load_waveform(audio: AudioInput, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """All of a recording as a waveform (1, N) at 24 kHz; see `open_recording`."""
    return open_recording(audio, sample_rate).read()


def level_dbfs(audio: Tensor) -> float:
    """Level of a waveform (1, N) without its constant part, dB relative to full scale."""
    return rms_dbfs(audio - audio.mean())
