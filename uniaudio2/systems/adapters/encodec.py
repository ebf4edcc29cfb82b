"""EnCodec, by transformers. Source: arXiv:2210.13438."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniaudio2.systems.contract import Card
from uniaudio2.systems.hub import WeightsConfig
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.transformers_codec import TransformersCodec, books_for


@dataclass(frozen=True)
class EncodecConfig(WeightsConfig):
    """Settings of EnCodec."""

    kbps: float = 6.0  # 1.5, 3, 6, 12 or 24 of the 24 kHz model


@SYSTEMS.register("encodec", EncodecConfig)
class Encodec(TransformersCodec):
    """EnCodec at 24 kHz, mono."""

    card = Card(
        title="EnCodec 24 kHz",
        licence="none stated on its hub page; the code is MIT",
        hub_id="facebook/encodec_24khz",
        revision="2fa7a29d98a4bf30f4a31de9023fef9726f885e4",
        needs="transformers",
        traps="without a bandwidth transformers takes the lowest",
    )
    class_name = "EncodecModel"
    config: EncodecConfig

    def describe(self) -> tuple[int, int, int, int]:
        """See `TransformersCodec.describe`."""
        own = self.model.config
        rate = own.sampling_rate / own.hop_length
        books = books_for(self.config.kbps, rate, own.codebook_size, own.num_quantizers, self.card.title)
        return own.sampling_rate, own.hop_length, books, own.codebook_size

    def encode_batch(self, audio: Tensor) -> Tensor:
        """See `TransformersCodec.encode_batch`; the model gives (chunks, B, K, T) with one chunk."""
        return self.model.encode(audio, bandwidth=self.config.kbps).audio_codes[0]

    def decode_batch(self, codes: Tensor) -> Tensor:
        """See `TransformersCodec.decode_batch`."""
        return self.model.decode(codes[None], [None]).audio_values
