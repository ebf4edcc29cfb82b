"""ConvNeXt and inverse-STFT scalar-quantised autoencoder: ``nano``'s waveform <-> 25 Hz latents.

Choice: log-mel in, 25 Hz latents, spectrum out (as in Vocos), because every convolution then runs at 25 or 100 frames a
second instead of thousands of samples a second. A comparison with a trained model of the published class is due.

Shapes: ``B`` batch, ``N`` samples, ``T`` 25 Hz frames, ``D`` width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.codec.autoencoder import Autoencoder
from uniaudio2.codec.mel import LogMel
from uniaudio2.codec.registry import AUTOENCODERS

MEL_FRAMES_PER_LATENT = 4  # 100 Hz inside, 25 Hz latents


@dataclass(frozen=True)
class ConvNeXtAutoencoderConfig:
    """Sizes of the nano autoencoder."""

    latent_dim: int = 64
    num_bands: int = 100
    width: int = 256  # at 25 Hz
    encoder_layers: int = 2
    decoder_layers: int = 5
    fine_width: int = 192  # at 100 Hz
    fine_layers: int = 3
    expansion: int = 3
    fft_size: int = 960  # samples; four times the 240-sample hop
    latent_noise: float = 0.1  # largest standard deviation of the noise added to latents in training


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution k=7, norm, two pointwise layers, learned scale, residual; on (B, T, D)."""

    def __init__(self, width: int, expansion: int, scale: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        h = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.down(F.gelu(self.up(h)))


class InverseSTFT(nn.Module):
    """Overlap-add of windowed inverse transforms; ``T`` frames give exactly ``T * hop`` samples."""

    window: Tensor

    def __init__(self, fft_size: int, hop_length: int) -> None:
        super().__init__()
        self.fft_size, self.hop_length = fft_size, hop_length
        self.register_buffer("window", torch.hann_window(fft_size, dtype=torch.float32), persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Complex (B, F, T) -> (B, T * hop)."""
        frames = torch.fft.irfft(spectrum, self.fft_size, dim=1) * self.window[:, None]
        t = spectrum.shape[-1]
        length = (t - 1) * self.hop_length + self.fft_size
        fold = {"output_size": (1, length), "kernel_size": (1, self.fft_size), "stride": (1, self.hop_length)}
        audio = F.fold(frames, **fold)[:, 0, 0]
        power = self.window.square()[None, :, None].expand(1, -1, t)
        envelope = F.fold(power, **fold)[:, 0, 0]
        side = (self.fft_size - self.hop_length) // 2
        cut = slice(side, side + t * self.hop_length)
        return audio[:, cut] / envelope[:, cut].clamp(min=1e-4)


@AUTOENCODERS.register("convnext", ConvNeXtAutoencoderConfig)
class ConvNeXtAutoencoder(Autoencoder):
    """Waveform <-> ``tanh`` latents at 25 Hz, rounded to ninths on decoding as in the published autoencoder."""

    encoding_parts = frozenset({"mel", "stem_1", "stem_2", "encoder", "encoder_norm", "to_latent"})

    def __init__(self, config: ConvNeXtAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = config.latent_dim
        d, fine = config.width, config.fine_width
        hop = config.fft_size // 4
        self.hop_length = MEL_FRAMES_PER_LATENT * hop
        self.mel = LogMel(config.num_bands, window_length=1024, hop_length=hop)
        depth = config.encoder_layers + config.decoder_layers + config.fine_layers
        expansion, scale = config.expansion, 1 / depth
        self.stem_1 = nn.Conv1d(config.num_bands, d, 4, stride=2, padding=1)
        self.stem_2 = nn.Conv1d(d, d, 4, stride=2, padding=1)
        self.encoder = nn.ModuleList([ConvNeXtBlock(d, expansion, scale) for _ in range(config.encoder_layers)])
        self.encoder_norm = nn.LayerNorm(d)
        self.to_latent = nn.Linear(d, config.latent_dim)
        self.from_latent = nn.Conv1d(config.latent_dim, d, 3, padding=1)
        self.decoder = nn.ModuleList([ConvNeXtBlock(d, expansion, scale) for _ in range(config.decoder_layers)])
        self.upsample = nn.Linear(d, MEL_FRAMES_PER_LATENT * fine)
        self.fine = nn.ModuleList([ConvNeXtBlock(fine, expansion, scale) for _ in range(config.fine_layers)])
        self.fine_norm = nn.LayerNorm(fine)
        self.to_spectrum = nn.Linear(fine, config.fft_size + 2)
        self.istft = InverseSTFT(config.fft_size, hop)

    def encode(self, audio: Tensor) -> Tensor:
        """Waveform (B, 1, N), N a multiple of 960 -> latents (B, N // 960, latent_dim) in (-1, 1)."""
        x = F.gelu(self.stem_1(self.mel(audio).transpose(1, 2).to(self.stem_1.weight.dtype)))
        x = F.gelu(self.stem_2(x)).transpose(1, 2)
        for layer in self.encoder:
            x = layer(x)
        return torch.tanh(self.to_latent(self.encoder_norm(x)))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, T, latent_dim) -> waveform (B, 1, T * 960); rounds to ninths, in training straight-through."""
        if self.training and self.config.latent_noise:
            # Choice: noise of a random size, so that the decoder forgives the flow decoder's small errors.
            size = self.config.latent_noise * torch.rand(
                latents.shape[0], 1, 1, device=latents.device, dtype=torch.float32
            )
            latents = latents + size * torch.randn_like(latents)
        latents = latents + (torch.round(latents * 9) / 9 - latents).detach()
        x = self.from_latent(latents.transpose(1, 2)).transpose(1, 2)
        for layer in self.decoder:
            x = layer(x)
        b, t, _ = x.shape
        x = self.upsample(x).view(b, t * MEL_FRAMES_PER_LATENT, -1)
        for layer in self.fine:
            x = layer(x)
        with torch.autocast(x.device.type, enabled=False):  # a phase needs more than eight bits
            norm, last = self.fine_norm, self.to_spectrum
            x = F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
            spectrum_parts = F.linear(x, last.weight.float(), last.bias.float())
        log_magnitude, phase = spectrum_parts.transpose(1, 2).chunk(2, 1)  # (B, F, 4T)
        magnitude = torch.exp(log_magnitude.clamp(max=math.log(1e2)))
        spectrum = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
        return self.istft(spectrum)[:, None]
