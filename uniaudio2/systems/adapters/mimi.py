"""Mimi, by transformers. Source: Moshi, arXiv:2410.00037."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniaudio2.systems.contract import Card
from uniaudio2.systems.hub import WeightsConfig
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.transformers_codec import TransformersCodec, books_for


@dataclass(frozen=True)
class MimiConfig(WeightsConfig):
    """Settings of Mimi."""

    kbps: float = 1.1  # 0.1375 a codebook; the paper's is 8 of 32


@SYSTEMS.register("mimi", MimiConfig)
class Mimi(TransformersCodec):
    """Mimi at 24 kHz and 12.5 frames a second."""

    card = Card(
        title="Mimi",
        licence="CC-BY-4.0",
        hub_id="kyutai/mimi",
        revision="89091b3e466eb6a9d11e537bf26b144f194978f7",
        needs="transformers",
        traps="transformers takes all 32 codebooks where the paper's 1.1 kbit/s are 8",
    )
    class_name = "MimiModel"
    config: MimiConfig

    def describe(self) -> tuple[int, int, int, int]:
        """See `TransformersCodec.describe`."""
        own = self.model.config
        books = books_for(self.config.kbps, own.frame_rate, own.codebook_size, own.num_quantizers, self.card.title)
        return own.sampling_rate, round(own.sampling_rate / own.frame_rate), books, own.codebook_size

    def encode_batch(self, audio: Tensor) -> Tensor:
        """See `TransformersCodec.encode_batch`."""
        return self.model.encode(audio, num_quantizers=self.streams[0].num_codebooks).audio_codes

    def decode_batch(self, codes: Tensor) -> Tensor:
        """See `TransformersCodec.decode_batch`."""
        return self.model.decode(codes).audio_values
