"""Descript Audio Codec, by transformers. Source: arXiv:2306.06546."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniaudio2.systems.contract import Card
from uniaudio2.systems.hub import WeightsConfig
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.transformers_codec import TransformersCodec


@dataclass(frozen=True)
class DacConfig(WeightsConfig):
    """Settings of DAC."""

    codebooks: int | None = None  # None is all of the checkpoint's


@SYSTEMS.register("dac", DacConfig)
class Dac(TransformersCodec):
    """DAC at 24 kHz; its 16 and 44.1 kHz models by ``@hub_id=descript/dac_16khz`` and ``dac_44khz``."""

    card = Card(
        title="DAC 24 kHz",
        licence="MIT",
        hub_id="descript/dac_24khz",
        needs="transformers",
        traps="every sample rate is a checkpoint of its own; the default config of transformers is the 16 kHz one; "
        "lengths are rounded down to whole frames",
    )
    class_name = "DacModel"
    config: DacConfig

    def describe(self) -> tuple[int, int, int, int]:
        """See `TransformersCodec.describe`."""
        own = self.model.config
        return own.sampling_rate, own.hop_length, self.config.codebooks or own.n_codebooks, own.codebook_size

    def encode_batch(self, audio: Tensor) -> Tensor:
        """See `TransformersCodec.encode_batch`."""
        return self.model.encode(audio, n_quantizers=self.streams[0].num_codebooks).audio_codes

    def decode_batch(self, codes: Tensor) -> Tensor:
        """See `TransformersCodec.decode_batch`; the model gives (B, N) without the axis of channels."""
        return self.model.decode(audio_codes=codes).audio_values
