"""X-Codec, by transformers. Source: arXiv:2408.17175."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniaudio2.systems.contract import Card
from uniaudio2.systems.hub import WeightsConfig
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.transformers_codec import TransformersCodec, books_for


@dataclass(frozen=True)
class XcodecConfig(WeightsConfig):
    """Settings of X-Codec."""

    kbps: float = 2.0  # one of the checkpoint's target_bandwidths: 0.5, 1, 1.5, 2 or 4


@SYSTEMS.register("xcodec", XcodecConfig)
class Xcodec(TransformersCodec):
    """X-Codec at 16 kHz and 50 frames a second; also the way of every codec with ``target_bandwidths``."""

    card = Card(
        title="X-Codec",
        licence="see its hub page",
        hub_id="hf-audio/xcodec-hubert-general",
        needs="transformers",
        traps="16 kHz; without a bandwidth transformers takes the highest",
    )
    class_name = "XcodecModel"
    config: XcodecConfig

    def describe(self) -> tuple[int, int, int, int]:
        """See `TransformersCodec.describe`."""
        own = self.model.config
        rate = own.sample_rate / own.hop_length
        books = books_for(self.config.kbps, rate, own.codebook_size, own.num_quantizers, self.card.title)
        return own.sample_rate, own.hop_length, books, own.codebook_size

    def encode_batch(self, audio: Tensor) -> Tensor:
        """See `TransformersCodec.encode_batch`."""
        return self.model.encode(audio, bandwidth=self.config.kbps).audio_codes

    def decode_batch(self, codes: Tensor) -> Tensor:
        """See `TransformersCodec.decode_batch`."""
        return self.model.decode(codes).audio_values
