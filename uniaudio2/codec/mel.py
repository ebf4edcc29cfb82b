"""Log-mel spectrogram: the input of the experts and the autoencoder trained from scratch, and of the spectral losses.

Shapes: ``B`` batch, ``N`` samples, ``T`` frames. Everything runs on the device of the audio.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.audio import SAMPLE_RATE

Scale: TypeAlias = Literal["htk", "slaney"]
Device: TypeAlias = torch.device | str | None


def mel_edges(num_bands: int, f_min: float, f_max: float, scale: Scale = "htk", *, device: Device = None) -> Tensor:
    """Edges of overlapping bands, equally spaced on a mel scale: Hz, (num_bands + 2,), float64.

    ``htk`` is 2595 log10(1 + f / 700); ``slaney`` is linear up to 1 kHz and logarithmic above.
    """

    def to_mel(hertz: float) -> float:
        """One frequency on the scale."""
        if scale == "htk":
            return 2595 * math.log10(1 + hertz / 700)
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    mels = torch.linspace(to_mel(f_min), to_mel(f_max), num_bands + 2, dtype=torch.float64, device=device)
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * (math.log(6.4) / 27)))


def mel_filters(
    num_bands: int,
    fft_size: int,
    sample_rate: int,
    *,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: Scale = "htk",
    norm: Literal["sum", "area", "height"] = "sum",
    device: Device = None,
) -> Tensor:
    """Triangular filters over the bins of a spectrum.

    Args:
        num_bands: Number of filters.
        fft_size: Size of the transform whose ``fft_size // 2 + 1`` bins are weighted.
        sample_rate: Hz.
        f_min: Lowest edge in Hz.
        f_max: Highest edge in Hz; half the sample rate when None.
        scale: See :func:`mel_edges`.
        norm: ``height`` peaks at 1, ``area`` has unit area over Hz, ``sum`` weights that add up to 1.
        device: Where to compute them.

    Returns:
        Weights (num_bands, fft_size // 2 + 1), float64.
    """
    edges = mel_edges(num_bands, f_min, sample_rate / 2 if f_max is None else f_max, scale, device=device)
    bins = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64, device=device)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = torch.minimum(rising, falling).clamp(min=0)
    if norm == "area":
        return weights * (2 / (edges[2:] - edges[:-2]))[:, None]
    return weights if norm == "height" else weights / weights.sum(1, keepdim=True).clamp(min=1e-9)


class LogMel(nn.Module):
    """Waveform to log-mel frames; exactly ``N // hop_length`` frames, frame ``t`` centred on sample ``(t + 1/2) hop``.

    Choice: centred frames without an extra last one, so that four 100 Hz frames always make one 25 Hz latent frame.

    Args:
        num_bands: Mel bands.
        sample_rate: Hz.
        fft_size: Transform size in samples.
        window_length: Hann window in samples.
        hop_length: Samples between frames.
        f_max: Highest edge in Hz; half the sample rate when None.
    """

    bank: Tensor
    window: Tensor

    def __init__(
        self,
        num_bands: int = 80,
        *,
        sample_rate: int = SAMPLE_RATE,
        fft_size: int = 1024,
        window_length: int = 600,
        hop_length: int = 240,
        f_max: float | None = None,
    ) -> None:
        super().__init__()
        self.fft_size, self.window_length, self.hop_length = fft_size, window_length, hop_length
        # Choice: weights that add up to 1, because a narrow low band and a wide high band then give the same level for
        # white noise.
        bank = mel_filters(num_bands, fft_size, sample_rate, f_min=20.0, f_max=f_max).float()
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(window_length, dtype=torch.float32), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Log-mel frames, shifted and scaled to roughly zero mean and unit spread.

        Args:
            audio: Waveform (B, 1, N) with N a multiple of the hop.

        Returns:
            (B, T, num_bands), float32, T = N // hop.
        """
        side = (self.fft_size - self.hop_length) // 2
        padded = F.pad(audio[:, 0].float(), (side, self.fft_size - self.hop_length - side))
        spectrum = torch.stft(
            padded,
            self.fft_size,
            self.hop_length,
            self.window_length,
            self.window,
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (B, F, T)
        return (torch.einsum("mf,bft->btm", self.bank, power).clamp(min=1e-6).log() + 3.0) / 4.0
