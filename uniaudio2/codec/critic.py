"""Critics of waveforms: small networks that tell decoded audio from real audio, for training the autoencoder.

A spectral distance is satisfied with a blurred spectrum; a critic is not. Two kinds look at a wave: folded by a period
(multi-period discriminators of HiFi-GAN, arXiv:2010.05646) and as a complex spectrogram (as EnCodec's,
arXiv:2210.13438). Source of the losses: least squares and feature matching, as HiFi-GAN. They are not part of a model
folder.

Shapes: B batch, N samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

Judged = list[list[Tensor]]
"""Of each critic the outputs of its layers; the last are its verdicts."""


class PeriodCritic(nn.Module):
    """Looks at every ``period``-th sample together.

    Args:
        period: Samples.
        width: Channels of the first layer.
    """

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        sizes = (1, width, 2 * width, 4 * width, 4 * width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in itertools.pairwise(sizes)
        )
        self.verdict = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """(B, 1, N) to the outputs of all layers."""
        x = F.pad(audio, (0, -audio.shape[-1] % self.period)).unflatten(-1, (-1, self.period))
        return _through(self.layers, self.verdict, x)


class SpectralCritic(nn.Module):
    """Looks at real and imaginary parts of a spectrogram.

    Args:
        size: Window in samples; the hop is a quarter of it.
        width: Channels of the layers.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size, dtype=torch.float32), persistent=False)
        self.window: Tensor
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(2 if first else width, width, (3, 9), (1, 1 if first else 2), (1, 4)))
            for first in (True, False, False, False)
        )
        self.verdict = weight_norm(nn.Conv2d(width, 1, 3, 1, 1))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """(B, 1, N) to the outputs of all layers."""
        wave = F.pad(audio[:, 0].float(), (0, max(0, self.size - audio.shape[-1])))
        frames = wave.unfold(1, self.size, self.size // 4) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(frames, norm="ortho"))  # (B, T, F, 2)
        return _through(self.layers, self.verdict, spectrum.movedim(-1, 1))


def _through(layers: nn.ModuleList, verdict: nn.Module, x: Tensor) -> list[Tensor]:
    outputs = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.1)
        outputs.append(x)
    return [*outputs, verdict(x)]


class Critics(nn.Module):
    """Several critics of both kinds.

    Args:
        width: Channels of their first layers.
        periods: Of the folded ones, samples; primes, so that they see different samples.
        sizes: Windows of the spectral ones, samples.
    """

    def __init__(
        self, width: int = 16, periods: Sequence[int] = (2, 3, 5, 7, 11), sizes: Sequence[int] = (512, 1024, 2048)
    ) -> None:
        super().__init__()
        folded = (PeriodCritic(period, width) for period in periods)
        self.critics = nn.ModuleList([*folded, *(SpectralCritic(size, width) for size in sizes)])

    def forward(self, audio: Tensor) -> Judged:
        """(B, 1, N) to what each critic says."""
        return [critic(audio) for critic in self.critics]

    def losses(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the critics learn from, and what whoever made the audio learns from them.

        Each side's gradient reaches that side alone, so both are trained by one sum in one step.

        Args:
            made: Decoded audio, (B, 1, N).
            real: The audio it should be, of the same shape.

        Returns:
            Loss of the critics; of deceiving them; distance of their layers' outputs, relative to their size.
        """
        of_real, of_made = self(real), self(made.detach())
        own = sum(((1 - a[-1]).square().mean() + b[-1].square().mean() for a, b in zip(of_real, of_made, strict=True)))
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        seen: Judged = torch.func.functional_call(self, fixed, (made,))
        deceiving = sum((1 - each[-1]).square().mean() for each in seen)
        apart = [
            (b - a.detach()).abs().mean() / a.detach().abs().mean().clamp(min=1e-4)
            for wanted, found in zip(of_real, seen, strict=True)
            for a, b in zip(wanted[:-1], found[:-1], strict=True)
        ]
        count = len(self.critics)
        zero = made.new_zeros(())
        return (own + zero) / count, (deceiving + zero) / count, torch.stack(apart).mean()
