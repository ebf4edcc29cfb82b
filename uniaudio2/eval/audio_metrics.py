"""How near one waveform is to another: alignment, then intelligibility, quality and spectral distances.

Every definition is spelled out here, because figures are comparable only between equal definitions. With these ones
the reconstructions on the UniAudio 2.0 demo page score as in the project's yardsticks (PESQ and STOI to the second or
third digit, mel-cepstral distortion within 0.06 dB).

All functions take mono waveforms at 24 kHz as tensors or arrays, (1, N) or (N,), and compute in float64. ``N`` samples,
``T`` frames. A figure that is undefined for a clip (too short, silent) is NaN, and `mean_and_interval` counts it out.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codec.mel import mel_edges, mel_filters
from uniaudio2.errors import MissingPackageError
from uniaudio2.eval.speech_analysis import (
    ACTIVE_RANGE_DB,
    SPEECH_RATE,
    Wave,
    Waveform,
    as_wave,
    mel_cepstrum,
    pitch,
    to_speech_rate,
)

logger = logging.getLogger(__name__)

MAX_LAG_S = 0.05
"""Largest delay that `align` looks for, seconds."""

PEAK_SHARE = 0.5
"""Share of the correlation of identical waveforms from which its peak is trusted."""


def need(package: str) -> MissingPackageError:
    """The error that says how to get a package of the ``eval`` extra (``pesq``, which is compiled, has its own)."""
    extra = "pesq" if package == "pesq" else "eval"
    return MissingPackageError(
        f"this figure needs the package {package!r}; install it with: pip install 'uniaudio2[{extra}]'"
    )


# --------------------------------------------------------------------------------------------- alignment and level


@dataclass(frozen=True)
class Aligned:
    """A reference and an estimate of equal length, without delay between them.

    Attributes:
        reference: (N,).
        estimate: (N,), shifted, its level untouched.
        lag_samples: How late the estimate was.
    """

    reference: Wave
    estimate: Wave
    lag_samples: int

    @property
    def gain(self) -> float:
        """Factor that gives the estimate the RMS level of the reference."""
        power = float(np.mean(self.estimate**2))
        return math.sqrt(float(np.mean(self.reference**2)) / power) if power > 0 else 1.0

    @property
    def levelled(self) -> Wave:
        """The estimate at the level of the reference."""
        return self.estimate * self.gain


def align(reference: Waveform, estimate: Waveform) -> Aligned:
    """Remove a constant delay of up to `MAX_LAG_S` and cut both to their common length.

    Choice: the peak of the cross-correlation decides where it reaches `PEAK_SHARE` of what identical waveforms give; a
    generative decoder keeps no phase, its peak is noise, and there the correlation of log spectrograms (1 ms steps)
    decides instead.
    """
    a, b = as_wave(reference), as_wave(estimate)
    max_lag = round(MAX_LAG_S * SAMPLE_RATE)
    correlation, lags = _cross_correlation(a[None], b[None], max_lag)
    best = int(np.argmax(correlation))
    scale = math.sqrt(float(np.sum(a**2) * np.sum(b**2)))
    if scale == 0.0:
        lag = 0
    elif correlation[best] / scale >= PEAK_SHARE:
        lag = int(lags[best])
    else:
        lag = _envelope_lag(a, b, max_lag)
    shifted = b[lag:] if lag >= 0 else np.concatenate([np.zeros(-lag), b])
    length = min(len(a), len(shifted))
    return Aligned(a[:length], shifted[:length], lag)


def _cross_correlation(a: Wave, b: Wave, max_lag: int) -> tuple[Wave, NDArray[np.int64]]:
    """Sum over rows of the correlation of a (R, N) with b (R, M) at lags -max_lag..max_lag, smallest lags first."""
    size = 1 << (a.shape[1] + b.shape[1] + 2 * max_lag).bit_length()
    product = np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size))
    correlation = np.fft.irfft(product.sum(0), size)
    lags = np.array(sorted(range(-max_lag, max_lag + 1), key=lambda lag: (abs(lag), lag)))
    return correlation[lags], lags


def _envelope_lag(a: Wave, b: Wave, max_lag: int) -> int:
    """Delay of b in samples, from log magnitudes of 10 ms frames between 300 Hz and 6 kHz."""
    step = SAMPLE_RATE // 1000
    rows = []
    for wave in (a, b):
        log = np.log(_stft(wave, 240, step)[3:60] + 1e-3)
        rows.append(log - log.mean(axis=1, keepdims=True))
    correlation, lags = _cross_correlation(rows[0], rows[1], max_lag // step)
    return int(lags[int(np.argmax(correlation))]) * step


# --------------------------------------------------------------------------------------------- single figures


def stoi(reference: Waveform, estimate: Waveform, *, extended: bool = False) -> float:
    """Short-time objective intelligibility (Taal 2011) by pystoi at 16 kHz; NaN under about 0.4 s of speech."""
    try:
        from pystoi import stoi as compute
    except ImportError as error:
        raise need("pystoi") from error
    a, b = to_speech_rate(as_wave(reference)), to_speech_rate(as_wave(estimate))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns, then returns 1e-5, when too little is left
        try:
            return float(compute(a, b, SPEECH_RATE, extended=extended))
        except (RuntimeWarning, ValueError, IndexError):
            return math.nan


@functools.cache
def _has_pesq() -> bool:
    """Whether the compiled package is there; its absence is said once, and PESQ rows are NaN then."""
    found = importlib.util.find_spec("pesq") is not None
    if not found:
        logger.warning("no PESQ figures: %s", need("pesq"))
    return found


def pesq_wb(reference: Waveform, estimate: Waveform) -> float:
    """Wide-band PESQ (ITU-T P.862.2) at 16 kHz, 1 to 4.64; NaN where it finds no utterance or too few samples."""
    try:
        import pesq  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise need("pesq") from error
    a, b = to_speech_rate(as_wave(reference)), to_speech_rate(as_wave(estimate))
    if len(a) < SPEECH_RATE // 4 or not np.any(b):
        return math.nan
    try:
        return float(pesq.pesq(SPEECH_RATE, a, b, "wb"))
    except (pesq.PesqError, ZeroDivisionError, ValueError):
        return math.nan


def log_mel(audio: Waveform) -> Wave:
    """Log-mel spectrogram (80, T): n_fft 1024, hop 256, Slaney mel bands of magnitudes, log10 with floor 1e-5."""
    return np.log10(np.maximum(_mel_bands() @ _stft(as_wave(audio), 1024, 256), 1e-5))


def log_mel_distance(reference: Waveform, estimate: Waveform, *, max_hz: float | None = None) -> float:
    """Mean absolute difference of log-mel spectrograms, in decades; only bands centred up to ``max_hz`` if given."""
    a, b = log_mel(reference), log_mel(estimate)
    frames = min(a.shape[1], b.shape[1])
    keep = (
        slice(None)
        if max_hz is None
        else mel_edges(80, 0.0, SAMPLE_RATE / 2, "slaney", device="cpu")[1:-1].numpy() <= max_hz
    )
    return float(np.abs(a[keep, :frames] - b[keep, :frames]).mean())


def multi_resolution_stft(reference: Waveform, estimate: Waveform) -> float:
    """Spectral convergence plus L1 of natural-log magnitudes (floor 1e-4), mean over three resolutions.

    Windows of 600, 1200 and 240 samples in transforms of 1024, 2048 and 512, hops 120, 240 and 50 (Parallel WaveGAN's).
    """
    a, b = as_wave(reference), as_wave(estimate)
    length = min(len(a), len(b))
    total = 0.0
    for n_fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        x = np.maximum(_stft(a[:length], n_fft, hop, window), 1e-4)
        y = np.maximum(_stft(b[:length], n_fft, hop, window), 1e-4)
        total += float(np.linalg.norm(x - y) / np.linalg.norm(x) + np.abs(np.log(x) - np.log(y)).mean())
    return total / 3


def mel_cepstral_distortion(reference: Waveform, estimate: Waveform) -> float:
    """Mel-cepstral distortion in dB: coefficients 1-24 at 16 kHz, frames within 40 dB of the loudest one.

    Frame by frame without time warping: the waveforms must be aligned. NaN for a silent reference.
    """
    a, energy = mel_cepstrum(reference)
    b, _ = mel_cepstrum(estimate)
    frames = min(len(a), len(b))
    if not np.isfinite(energy).any():
        return math.nan
    active = energy[:frames] > energy.max() - ACTIVE_RANGE_DB
    difference = a[:frames, 1:][active] - b[:frames, 1:][active]
    if difference.size == 0:
        return math.nan
    return float(10 / math.log(10) * np.sqrt(2 * np.sum(difference**2, axis=1)).mean())


def bandwidth_hz(audio: Waveform) -> float:
    """Frequency below which 99 % of the energy lies, Hz; NaN for silence."""
    power = np.sum(_stft(as_wave(audio), 1024, 256) ** 2, axis=1)
    if power.sum() == 0:
        return math.nan
    index = int(np.searchsorted(np.cumsum(power), 0.99 * power.sum()))
    return index * SAMPLE_RATE / 1024


def f0_error_semitones(reference: Waveform, estimate: Waveform) -> float:
    """Mean absolute pitch difference where both are voiced, semitones; NaN if they never are."""
    a, b = pitch(to_speech_rate(as_wave(reference))), pitch(to_speech_rate(as_wave(estimate)))
    frames = min(len(a), len(b))
    both = (a[:frames] > 0) & (b[:frames] > 0)
    if not both.any():
        return math.nan
    return float(np.abs(12 * np.log2(a[:frames][both] / b[:frames][both])).mean())


def median_f0_hz(audio: Waveform) -> float:
    """Median pitch of the voiced frames, Hz; NaN if there is none."""
    track = pitch(to_speech_rate(as_wave(audio)))
    voiced = track[track > 0]
    return float(np.median(voiced)) if voiced.size else math.nan


def timbre(audio: Waveform) -> Wave:
    """A voice or sound as one vector (48,): mean and standard deviation of mel-cepstra 1-24 over active frames.

    Choice: a plain timbre distance instead of a speaker network, since none may be downloaded; it tells the
    synthesisers' voices apart and is the same on every machine.
    """
    cepstra, energy = mel_cepstrum(audio)
    active = energy > energy.max() - 30.0
    kept = cepstra[active, 1:] if active.any() else cepstra[:, 1:]
    return np.concatenate([kept.mean(axis=0), kept.std(axis=0)])


SPEECH_METRICS = ("stoi", "estoi", "pesq_wb", "log_mel_l1_7k5", "log_mel_l1", "mr_stft", "mcd_db", "f0_semitones")
SOUND_METRICS = ("log_mel_l1", "log_mel_l1_7k5", "mr_stft", "mcd_db")


def reconstruction_scores(reference: Waveform, estimate: Waveform, *, kind: str = "speech") -> dict[str, float]:
    """All distances between a recording and its reconstruction.

    The estimate is aligned and, except for the multi-resolution STFT distance, brought to the reference's level.

    Args:
        reference: Original at 24 kHz.
        estimate: Reconstruction at 24 kHz.
        kind: ``"speech"`` adds intelligibility, quality and pitch to what every sound gets.

    Returns:
        Figure by name (`SPEECH_METRICS` or `SOUND_METRICS`), and ``lag_ms``, ``gain_db``, ``bandwidth_hz`` of the
        estimate and ``bandwidth_reference_hz``.
    """
    pair = align(reference, estimate)
    a, b = pair.reference, pair.levelled
    scores = {
        "log_mel_l1": log_mel_distance(a, b),
        "log_mel_l1_7k5": log_mel_distance(a, b, max_hz=7500),
        "mr_stft": multi_resolution_stft(a, pair.estimate),
        "mcd_db": mel_cepstral_distortion(a, b),
        "lag_ms": 1000 * pair.lag_samples / SAMPLE_RATE,
        "gain_db": 20 * math.log10(pair.gain),
        "bandwidth_hz": bandwidth_hz(b),
        "bandwidth_reference_hz": bandwidth_hz(a),
    }
    if kind == "speech":
        scores |= {
            "stoi": stoi(a, b),
            "estoi": stoi(a, b, extended=True),
            "pesq_wb": pesq_wb(a, b) if _has_pesq() else math.nan,
            "f0_semitones": f0_error_semitones(a, b),
        }
    return scores


# --------------------------------------------------------------------------------------------- codes


def codebook_perplexity(codes: Iterable[Tensor], codebook_size: int) -> list[float]:
    """Effective number of entries used in each codebook: the exponential of the entropy of their use.

    Args:
        codes: Codes (B, K, T) or (K, T), any number of them.
        codebook_size: Entries of a codebook.

    Returns:
        K figures between 1 and ``codebook_size``; empty if no codes are given.
    """
    counts: Tensor | None = None
    for item in codes:
        flat = item.reshape(-1, *item.shape[-2:]).transpose(0, 1).flatten(1).cpu()
        more = torch.stack([torch.bincount(row, minlength=codebook_size) for row in flat])
        counts = more if counts is None else counts + more
    if counts is None:
        return []
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum(1)).tolist()


# --------------------------------------------------------------------------------------------- shared pieces


def _stft(wave: Wave, n_fft: int, hop: int, window: int | None = None) -> Wave:
    """Magnitudes (n_fft / 2 + 1, T) of Hann-windowed frames."""
    if len(wave) <= n_fft // 2:  # reflection needs more than half a frame
        wave = np.pad(wave, (0, n_fft // 2 + 1 - len(wave)))
    size = n_fft if window is None else window
    hann = torch.hann_window(size, dtype=torch.float64)
    return torch.stft(torch.from_numpy(wave.copy()), n_fft, hop, size, hann, return_complex=True).abs().numpy()


@functools.cache
def _mel_bands() -> Wave:
    """Triangular bands of unit area (80, 513)."""
    return mel_filters(80, 1024, SAMPLE_RATE, scale="slaney", norm="area", device="cpu").numpy()
