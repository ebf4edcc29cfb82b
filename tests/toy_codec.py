"""A codec in one file: one stream of 12.5 Hz, whose codes are the means of eight parts of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uniaudio2.codec.contract import AudioCodes, Codec, Stream
from uniaudio2.codec.registry import CODECS


@dataclass(frozen=True)
class MeansConfig:
    """Sizes of the toy codec."""

    codebook_size: int = 32
    num_codebooks: int = 8


@CODECS.register("means", MeansConfig)
class MeansCodec(Codec):
    """Codebook k holds the mean of part k of every frame."""

    sample_rate = 24_000

    def __init__(self, config: MeansConfig) -> None:
        super().__init__()
        self.config = config
        self.streams = (Stream("acoustic", 1920, config.num_codebooks, config.codebook_size),)
        self.loudest = nn.Parameter(torch.tensor([0.5]))

    def encode_rows(self, audio: Tensor) -> AudioCodes:
        """Levels of the means, from minus to plus the loudest."""
        means = audio[:, 0].unflatten(1, (-1, self.config.num_codebooks, 1920 // self.config.num_codebooks)).mean(-1)
        levels = (means / self.loudest + 1) / 2 * (self.config.codebook_size - 1)
        codes = levels.round().clamp(0, self.config.codebook_size - 1).long().transpose(1, 2)
        return AudioCodes.of({"acoustic": codes}, self.streams)

    def decode_stream(self, codes: AudioCodes, **options: Any) -> Iterator[Tensor]:
        """Every mean, held."""
        self.check_codes(codes)
        values = (codes["acoustic"].transpose(1, 2) / (self.config.codebook_size - 1) * 2 - 1) * self.loudest.detach()
        audio = values.flatten(1).repeat_interleave(1920 // self.config.num_codebooks, 1)[:, None]
        return iter([audio[:, :, : codes.num_samples]])
