"""A decoder in one file: latents in one step, from the condition and noise; trained ten steps and heard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from torch import Tensor, nn

from tests.train.codec.toy import config
from uniaudio2.checkpoint import save_parts
from uniaudio2.cli import execute
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.decoder import Hold, LatentDecoder, LatentDecoderConfig, Solver
from uniaudio2.codec.registry import DECODERS
from uniaudio2.config import load_config, preset_path
from uniaudio2.train.codec import build_stage, load_parts
from uniaudio2.train.stages import run_stage


@dataclass(frozen=True, kw_only=True)
class OneStepConfig(LatentDecoderConfig):
    """A network of two layers."""

    width: int = 16


@DECODERS.register("one_step", OneStepConfig)
class OneStepDecoder(LatentDecoder):
    """Guesses the latents from noise and condition at once."""

    def __init__(self, config: OneStepConfig, *, latent_dim: int, condition_dim: int) -> None:
        super().__init__(config, latent_dim=latent_dim, condition_dim=condition_dim)
        self.network = nn.Sequential(
            nn.Linear(2 * latent_dim + condition_dim, config.width), nn.GELU(), nn.Linear(config.width, latent_dim)
        )

    def draw_times(self, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Always at the noise."""
        return torch.zeros(batch, device=device)

    def errors(self, target: Tensor, noise: Tensor, times: Tensor, known: Tensor, condition: Tensor) -> Tensor:
        """Of the guess."""
        return (self.network(torch.cat([noise, known, condition], dim=2)) - target).square().float()

    def context_at(self, noise: Tensor, known: Tensor, t: float) -> Tensor:
        """Known from the start."""
        return known

    def integrate(
        self,
        noise: Tensor,
        known: Tensor,
        condition: Tensor,
        hold_context: Hold,
        *,
        steps: int,
        guidance_scale: float,
        solver: Solver,
    ) -> Tensor:
        """The guess of the last step, each from the one before."""
        x = noise
        for _ in range(steps):
            x = hold_context(self.network(torch.cat([x, known, condition], dim=2)), 1.0)
        return x


def test_a_decoder_in_one_file_is_trained_and_heard(corpus: Path, tmp_path: Path) -> None:
    preset = tmp_path / "codec.yaml"
    values = {"base": str(preset_path("codec", "tiny")), "decoder": {"name": "one_step", "config": {"width": 24}}}
    preset.write_text(yaml.safe_dump(values))
    stage = replace(config("reconstruction", corpus, tmp_path, train={"steps": 10}), codec=str(preset))
    before = build_stage(stage)
    losses = []
    run_stage(stage, log=lambda line: None)

    codec = ReasoningCodec(load_config(CodecConfig, preset))
    assert isinstance(codec.decoder, OneStepDecoder) and codec.decoder.network[0].out_features == 24
    load_parts(codec, [tmp_path / "reconstruction" / "export" / "reconstruction.safetensors"])
    audio = torch.cat([wave for _, wave in before.dev_waves(4, crop_s=0.8)])
    latents = codec.autoencoder.encode(audio)
    features = codec.extract_features(audio)
    for trained in (before.codec.decoder, codec.decoder):  # pyright: ignore[reportAttributeAccessIssue]
        vectors = codec.reconstruction(features, codec.reasoning(features).quantized).quantized
        condition = trained.condition(vectors)
        loss = trained.loss(latents, condition, generator=torch.Generator().manual_seed(0))
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    codes = codec.encode(audio)
    heard = [codec.decode(codes, generator=torch.Generator().manual_seed(seed), noise_scale=1.0) for seed in (0, 0, 1)]
    assert heard[0].shape == audio.shape and torch.equal(heard[0], heard[1]) and not torch.equal(heard[0], heard[2])
    with pytest.raises(ValueError, match="unknown solver 'midpoint': choose 'euler'"):
        codec.decode(codes, solver="midpoint")

    folder, wave, made, back = (tmp_path / name for name in ("model", "a.wav", "a.safetensors", "b.wav"))
    save_parts(folder, codec=codec)
    soundfile.write(wave, audio[0, 0].numpy(), codec.sample_rate)
    place = ["--model", str(folder), "--device", "cpu"]
    assert execute(["encode", str(wave), "-o", str(made), *place]) == 0
    assert execute(["decode", str(made), "-o", str(back), *place]) == 0
    assert soundfile.info(back).frames == audio.shape[2]


def test_unknown_decoders_are_named() -> None:
    values = load_config(CodecConfig, preset_path("codec", "tiny"))
    with pytest.raises(ValueError, match="unknown decoder 'magic': choose one of flow_matching"):
        ReasoningCodec(replace(values, decoder=replace(values.decoder, name="magic")))
