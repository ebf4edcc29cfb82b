"""Pitch, spectral envelopes and mel-cepstra, by definitions that are spelled out here: ``N`` samples, ``T`` frames."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.errors import UserError

Wave = NDArray[np.float64]
Waveform = Tensor | NDArray[Any]

SPEECH_RATE = 16000
"""Rate that STOI, PESQ, F0 and mel-cepstra are computed at, Hz (wide-band PESQ is defined there)."""

ACTIVE_RANGE_DB = 40.0
"""Frames this far below the loudest one are silence."""

PITCH_RANGE_HZ = (60.0, 500.0)
_FRAME_SHIFT_S = 0.005


def as_wave(audio: Waveform) -> Wave:
    """A mono waveform as a flat float64 array (N,).

    Raises:
        ValueError: If it is not (N,) or (1, N), is empty or not finite.
    """
    array = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or array.size == 0:
        raise UserError(f"expected a mono waveform (N,) or (1, N) with samples, not shape {array.shape}")
    wave = array.astype(np.float64)
    if not np.isfinite(wave).all():
        raise UserError("the waveform holds NaN or infinite samples")
    return wave


def to_speech_rate(wave: Wave) -> Wave:
    """A waveform (N,) at 24 kHz resampled to `SPEECH_RATE`."""
    return soxr.resample(wave, SAMPLE_RATE, SPEECH_RATE, quality="VHQ")


def pitch(wave: Wave) -> Wave:
    """Pitch by the normalised square difference (McLeod 2005), one value every 5 ms at `SPEECH_RATE`, 0 if unvoiced.

    A frame (40 ms) is voiced if it lies within 40 dB of the loudest and its best period explains half of its energy;
    of periods almost as good as the best one the shortest is taken. Returns (T,) Hz.
    """
    shift, size = round(_FRAME_SHIFT_S * SPEECH_RATE), round(0.04 * SPEECH_RATE)
    longest = round(SPEECH_RATE / PITCH_RANGE_HZ[0])
    frames = _frames(wave, shift, size + longest)
    frames = frames - frames.mean(axis=1, keepdims=True)
    n_fft = 1 << (frames.shape[1] + size - 1).bit_length()
    head = frames[:, :size]
    correlation = np.fft.irfft(np.fft.rfft(frames, n_fft) * np.conj(np.fft.rfft(head, n_fft)), n_fft)[:, : longest + 1]
    squares = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(frames**2, axis=1)], axis=1)
    energy = squares[:, size : size + longest + 1] - squares[:, : longest + 1]
    similarity = 2 * correlation / np.maximum(energy[:, :1] + energy, 1e-12)
    shortest = round(SPEECH_RATE / PITCH_RANGE_HZ[1])
    body = similarity[:, shortest:longest]
    peaks = (body >= similarity[:, shortest - 1 : longest - 1]) & (body >= similarity[:, shortest + 1 : longest + 1])
    candidates = np.where(peaks, body, -1.0)
    best = candidates.max(axis=1)
    first = np.argmax(candidates >= 0.9 * best[:, None], axis=1) + shortest
    level = 10 * np.log10(np.mean(head**2, axis=1) + 1e-12)
    voiced = (best > 0.5) & (level > level.max() - ACTIVE_RANGE_DB)
    rows = np.arange(len(frames))
    before, here, after = (similarity[rows, first + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    offset = np.where(np.abs(bend) > 1e-9, 0.5 * (before - after) / np.where(bend == 0, 1.0, bend), 0.0)
    return np.where(voiced, SPEECH_RATE / (first + np.clip(offset, -0.5, 0.5)), 0.0)


def mel_cepstrum(audio: Waveform) -> tuple[Wave, Wave]:
    """Mel-cepstra (T, 25) every 5 ms at 16 kHz (all-pass constant 0.41), and the frames' energy in dB (T,).

    They describe envelopes free of the pitch, after CheapTrick (Morise 2015): a window of three periods, smoothing
    over two thirds of the pitch, and a lifter that undoes the window's own smoothing.
    """
    wave = to_speech_rate(as_wave(audio))
    track = pitch(wave)
    # Choice: unvoiced frames are analysed as if at 500 Hz, as in WORLD.
    periods = np.where(track > 71.0, track, 500.0)
    envelopes = np.stack([_envelope(wave, index, f0) for index, f0 in enumerate(periods)])
    energy = 10 * np.log10(envelopes.mean(axis=1) + 1e-20)
    return 0.5 * np.log(np.maximum(envelopes, 1e-16)) @ _cepstral_matrix().T, energy


_ENVELOPE_FFT = 1024


def _envelope(wave: Wave, frame: int, f0: float) -> Wave:
    """Smooth power spectrum (513,) of one frame of a waveform whose pitch there is ``f0``."""
    half = round(1.5 * SPEECH_RATE / f0)
    offsets = np.arange(-half, half + 1)
    centre = round(frame * _FRAME_SHIFT_S * SPEECH_RATE)
    window = 0.5 * np.cos(np.pi * offsets * f0 / (1.5 * SPEECH_RATE)) + 0.5
    window /= math.sqrt(float(np.sum(window**2)))
    piece = wave[np.clip(centre + offsets, 0, len(wave) - 1)] * window
    piece = piece - window * (piece.sum() / window.sum())
    power = np.abs(np.fft.rfft(piece, _ENVELOPE_FFT)) ** 2
    bin_hz = SPEECH_RATE / _ENVELOPE_FFT
    hertz = np.arange(len(power)) * bin_hz
    low = hertz < f0  # what the window took away below the pitch is what it put there from above, mirrored
    power[low] = power[low] + np.interp(f0 - hertz[low], hertz, power)
    smooth = np.maximum(_moving_average(power, 2 * f0 / 3 / bin_hz), 1e-16)
    cepstrum = np.fft.irfft(np.log(smooth), _ENVELOPE_FFT)
    quefrency = np.minimum(np.arange(_ENVELOPE_FFT), _ENVELOPE_FFT - np.arange(_ENVELOPE_FFT)) / SPEECH_RATE
    lifter = np.sinc(f0 * quefrency) * (1.3 - 0.3 * np.cos(2 * np.pi * f0 * quefrency))
    return np.exp(np.fft.rfft(cepstrum * lifter).real)


def _moving_average(power: Wave, width: float) -> Wave:
    """Mean of a spectrum over ``width`` bins around every bin, mirrored at both ends."""
    margin = int(width) + 2
    extended = np.concatenate([power[margin:0:-1], power, power[-2 : -margin - 2 : -1]])
    total = np.concatenate([[0.0], np.cumsum(extended)])
    edges = np.arange(len(total)) - margin - 0.5
    bins = np.arange(len(power))
    return (np.interp(bins + width / 2, edges, total) - np.interp(bins - width / 2, edges, total)) / width


@functools.cache
def _cepstral_matrix(order: int = 24, warp: float = 0.41) -> Wave:
    """Matrix (order + 1, 513) from log amplitudes to cosine coefficients on the all-pass-warped frequency axis."""
    omega = np.linspace(0, np.pi, _ENVELOPE_FFT // 2 + 1)
    warped = omega + 2 * np.arctan(warp * np.sin(omega) / (1 - warp * np.cos(omega)))
    widths = np.gradient(warped)
    widths[0], widths[-1] = (warped[1] - warped[0]) / 2, (warped[-1] - warped[-2]) / 2
    matrix = 2 / np.pi * np.cos(np.outer(np.arange(order + 1), warped)) * widths
    matrix[0] /= 2
    return matrix


def _frames(wave: Wave, shift: int, size: int) -> Wave:
    """Frames (T, size) centred on every ``shift``-th sample, edges padded with zeros."""
    count = len(wave) // shift + 1
    padded = np.concatenate([np.zeros(size // 2), wave, np.zeros(size)])
    return np.lib.stride_tricks.sliding_window_view(padded, size)[: count * shift : shift][:count]
