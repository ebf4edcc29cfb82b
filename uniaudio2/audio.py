"""Audio files and plain waveform arithmetic: read, write, resample, level, limit, windows and overlap-add.

Shapes: ``N`` samples. A waveform is a float32 tensor ``(1, N)``, mono, in [-1, 1], at 24 kHz unless said otherwise.
Knows nothing about codecs or models.
"""

from __future__ import annotations

import io
import logging
import math
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SAMPLE_RATE = 24000
"""Sample rate of every waveform inside the package, Hz."""

LIMIT_THRESHOLD = 0.9
"""The limiter leaves samples up to this magnitude untouched."""

LIMIT_CEILING = 0.99
"""No limited sample is larger in magnitude than this."""

MAX_CHANNELS = 64
"""More channels than this in a header are taken for a broken file."""

_WRITE_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}


class AudioError(ValueError):
    """An audio file or waveform that cannot be used; the message names the file and the remedy."""


def read_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, start_s: float = 0.0, duration_s: float | None = None
) -> Tensor:
    """Read a file as mono audio at ``sample_rate``.

    Channels are averaged; other rates are resampled; a float file that exceeds full scale is scaled to a peak of 1.

    Args:
        path: WAV, FLAC, Ogg Vorbis / Opus, MP3, AIFF ...; ``"-"`` reads a whole file from standard input.
        sample_rate: Wanted rate, Hz.
        start_s: Where to start, seconds.
        duration_s: How much to read, seconds; None reads to the end.

    Returns:
        Waveform in [-1, 1], (1, N), float32, N > 0.

    Raises:
        AudioError: If the file is missing, a folder, empty, not audio, holds no samples or values that are not
            finite, or if ``start_s`` lies behind its end.
    """
    name = "standard input" if str(path) == "-" else str(path)
    source = _open_source(path, name)
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise AudioError(f"{name}: start must be >= 0 s and duration > 0 s, not {start_s} and {duration_s}")
    try:
        with soundfile.SoundFile(source) as file:
            rate, channels, total = file.samplerate, file.channels, file.frames
            if channels > MAX_CHANNELS or rate <= 0:
                raise AudioError(f"{name}: the header says {channels} channels at {rate} Hz; the file is damaged")
            first = round(start_s * rate)
            if first and first >= total:
                raise AudioError(f"{name}: start {start_s:g} s lies behind its end ({total / rate:.2f} s)")
            if first:
                file.seek(first)
            samples = file.read(-1 if duration_s is None else round(duration_s * rate), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not readable as audio ({str(error.error_string).rstrip('. ')}); "
            "give a WAV, FLAC, Ogg or MP3 file, or convert it first with ffmpeg"
        ) from error
    if samples.shape[0] == 0:
        raise AudioError(f"{name}: holds no audio samples")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds samples that are NaN or infinite; export it again as 16-bit WAV")
    if duration_s is None and first + samples.shape[0] < total:
        logger.warning("%s: truncated, holds %d of the %d samples its header promises", name, samples.shape[0], total)
    mono = samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    if mono.size == 0:
        raise AudioError(f"{name}: too short to resample ({samples.shape[0]} samples at {rate} Hz)")
    peak = float(np.abs(mono).max())
    if peak > 1.0:
        mono = mono / peak
    return torch.from_numpy(np.ascontiguousarray(mono, dtype=np.float32))[None]


def _open_source(path: str | Path, name: str) -> str | io.BytesIO:
    """Check what can be checked before decoding, with one message for each kind of mistake."""
    if str(path) == "-":
        data = sys.stdin.buffer.read()
        if not data:
            raise AudioError("standard input: empty; pipe an audio file in")
        return io.BytesIO(data)
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


def write_audio(path: str | Path, audio: Tensor, sample_rate: int = SAMPLE_RATE) -> None:
    """Limit a waveform and write it as 16-bit audio.

    The file is written under a temporary name and renamed, so that a file of the wanted name is always complete.

    Args:
        path: ``.wav`` or ``.flac``; missing parent folders are made. ``"-"`` writes a WAV file to standard output.
        audio: Waveform, (1, N) or (N,).
        sample_rate: Its rate, Hz.

    Raises:
        AudioError: If the shape is wrong, samples are not finite, the suffix is unknown or the file cannot be written.
    """
    wave = audio.detach().to("cpu", torch.float32)
    if wave.ndim == 2 and wave.shape[0] == 1:
        wave = wave[0]
    if wave.ndim != 1:
        raise AudioError(f"{path}: expected a mono waveform (1, N), not shape {tuple(audio.shape)}")
    if not torch.isfinite(wave).all():
        raise AudioError(f"{path}: the waveform holds NaN or infinite samples and was not written")
    samples = torch.round(limit(wave) * 32767.0).to(torch.int16).numpy()
    if str(path) == "-":
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if target.suffix.lower() not in _WRITE_FORMATS:
        raise AudioError(f"{path}: unknown audio suffix {target.suffix!r}; use .wav or .flac")
    if target.is_dir():
        raise AudioError(f"{path}: is a folder; give a file name")
    container, subtype = _WRITE_FORMATS[target.suffix.lower()]
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.fchmod(handle, 0o666 & ~_umask())
        # Choice: encoded in memory first, because libsndfile's writes into a full disk are not reported as an error.
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, sample_rate, format=container, subtype=subtype)
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
        os.replace(temporary, target)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{path}: cannot be written ({reason})") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    """The process's umask (reading it means setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


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


def normalise_level(audio: Tensor, level_dbfs: float = -23.0, max_gain_db: float = 40.0) -> Tensor:
    """Scale a waveform to an RMS level, but never above the limiter's ceiling.

    Args:
        audio: Waveform, any shape.
        level_dbfs: Wanted RMS level, dB relative to full scale.
        max_gain_db: Largest amplification, so that near-silence stays near-silence.

    Returns:
        The scaled waveform; silence is returned as it is.
    """
    level = rms_dbfs(audio)
    if level == -math.inf:
        return audio
    gain = 10.0 ** (min(level_dbfs - level, max_gain_db) / 20.0)
    peak = float(audio.abs().max())
    return audio * min(gain, LIMIT_CEILING / peak)


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


def split_windows(audio: Tensor, window: int, hop: int) -> list[Tensor]:
    """Cut a waveform in windows that start every ``hop`` samples; the last one may be shorter.

    Args:
        audio: Waveform, (..., N).
        window: Window length in samples.
        hop: Distance of the starts in samples, 0 < hop <= window.

    Returns:
        Views (..., window); together they cover all samples, and none is fully contained in the one before.

    Raises:
        ValueError: If ``hop`` is not in (0, window].
    """
    if not 0 < hop <= window:
        raise ValueError(f"hop must be in (0, window={window}], not {hop}")
    total = audio.shape[-1]
    starts = [0]
    while starts[-1] + window < total:
        starts.append(starts[-1] + hop)
    return [audio[..., start : start + window] for start in starts]


def overlap_add(windows: list[Tensor], hop: int, num_samples: int | None = None) -> Tensor:
    """Join windows that start every ``hop`` samples with linear cross-fades over their overlaps.

    The inverse of `split_windows`: cutting and joining gives the same waveform.

    Args:
        windows: Waveforms (..., n_i); all but the last one at least ``hop`` long.
        hop: Distance of their starts in samples.
        num_samples: Length of the result; None keeps everything.

    Returns:
        Waveform, (..., num_samples), zero-padded at the end where the windows are too short.

    Raises:
        ValueError: If there is no window.
    """
    if not windows:
        raise ValueError("overlap_add needs at least one window")
    total = max(index * hop + window.shape[-1] for index, window in enumerate(windows))
    out = windows[0].new_zeros(*windows[0].shape[:-1], total)
    end = 0
    for index, window in enumerate(windows):
        start, length = index * hop, window.shape[-1]
        overlap = max(0, min(end - start, length))
        fade = (torch.arange(overlap, device=window.device, dtype=window.dtype) + 0.5) / max(overlap, 1)
        joined = out[..., start : start + overlap] * (1 - fade) + window[..., :overlap] * fade
        out[..., start : start + overlap] = joined
        out[..., start + overlap : start + length] = window[..., overlap:]
        end = max(end, start + length)
    if num_samples is None:
        return out
    if num_samples <= total:
        return out[..., :num_samples]
    return torch.nn.functional.pad(out, (0, num_samples - total))
