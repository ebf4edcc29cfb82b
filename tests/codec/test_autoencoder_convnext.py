"""The nano autoencoder and its spectral loss."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.codec.autoencoder_convnext import (
    ConvNeXtAutoencoder,
    ConvNeXtAutoencoderConfig,
    InverseSTFT,
)
from uniaudio2.codec.loss import RealFFT, SpectralLoss

TINY = ConvNeXtAutoencoderConfig(
    latent_dim=8, num_bands=20, width=16, encoder_layers=1, decoder_layers=1, fine_width=16, fine_layers=1
)


@pytest.fixture
def model() -> ConvNeXtAutoencoder:
    torch.manual_seed(0)
    return ConvNeXtAutoencoder(TINY)


def test_lengths_and_ranges(model: ConvNeXtAutoencoder) -> None:
    latents = model.encode(torch.randn(2, 1, 960 * 7))
    assert latents.shape == (2, 7, 8)
    assert float(latents.detach().abs().max()) <= 1
    assert model.decode(latents).shape == (2, 1, 960 * 7)


def test_decoding_rounds_to_ninths_in_evaluation(model: ConvNeXtAutoencoder) -> None:
    model.eval()
    latents = torch.rand(1, 5, 8) * 2 - 1
    rounded = torch.round(latents * 9) / 9
    assert torch.equal(model.decode(latents), model.decode(rounded))
    assert not torch.equal(model.decode(latents), model.decode(latents + 0.2))


def test_noise_on_latents_is_for_training_only(model: ConvNeXtAutoencoder) -> None:
    latents = torch.zeros(1, 5, 8) + 0.5
    model.train()
    assert not torch.equal(model.decode(latents), model.decode(latents))
    model.eval()
    assert torch.equal(model.decode(latents), model.decode(latents))


def test_inverse_stft_inverts() -> None:
    hop, size = 60, 240
    audio = torch.randn(1, hop * 40)
    side = (size - hop) // 2
    frames = torch.nn.functional.pad(audio, (side, size - hop - side)).unfold(1, size, hop)
    spectrum = torch.fft.rfft(frames * torch.hann_window(size)).transpose(1, 2)
    torch.testing.assert_close(
        InverseSTFT(size, hop)(spectrum)[:, size:-size], audio[:, size:-size], atol=1e-4, rtol=1e-3
    )


def test_real_fft_has_the_gradient_of_the_library() -> None:
    x = torch.randn(3, 64, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 33, dtype=torch.complex128)
    (ours,) = torch.autograd.grad((RealFFT.apply(x) * weight).abs().sum(), x)
    (theirs,) = torch.autograd.grad((torch.fft.rfft(x) * weight).abs().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_spectral_loss_is_zero_for_equal_and_grows_with_noise() -> None:
    loss = SpectralLoss((256, 512))
    audio = 0.1 * torch.randn(1, 1, 4800)
    assert float(loss(audio, audio)) < 1e-5
    little, much = (float(loss(audio + s * torch.randn_like(audio), audio)) for s in (0.01, 0.1))
    assert 0 < little < much


def test_a_step_of_training_lowers_the_loss(model: ConvNeXtAutoencoder) -> None:
    audio = 0.1 * torch.sin(torch.arange(9600) * 0.1)[None, None]
    loss, optimizer = SpectralLoss((256, 512)), torch.optim.Adam(model.parameters(), 3e-3)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(model.decode(model.encode(audio)), audio)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.7 * values[0]
