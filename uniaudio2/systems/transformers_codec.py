"""What the codecs of transformers have in common: loading, batches of one length, codes as named streams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.errors import UserError
from uniaudio2.systems.contract import CodecSystem
from uniaudio2.systems.hub import find_weights, load_pretrained, transformers_class

STREAM = "codes"


class TransformersCodec(CodecSystem):
    """A codec of transformers. A subclass names its class and says how its batches are coded.

    Clips are padded to whole frames with zeros; only clips of one padded length go together, so that no clip's codes
    depend on another's.

    Args:
        config: A `WeightsConfig`, or more.
        device: Where it runs.
        download: Whether its weights may be fetched.
    """

    class_name: ClassVar[str]

    def __init__(self, config: Any, *, device: str = "cpu", download: bool = False) -> None:
        cls = transformers_class(self.class_name, self.card.title)
        folder, self.version = find_weights(self.card, config, download=download)
        self.config, self.device = config, torch.device(device)
        self.model = load_pretrained(cls, folder, self.card.title).to(self.device)
        self.sample_rate, hop, books, size = self.describe()
        self.streams = (Stream(STREAM, hop, books, size, self.sample_rate),)

    @abstractmethod
    def describe(self) -> tuple[int, int, int, int]:
        """Sample rate in Hz, samples a frame, codebooks in use, entries of each."""

    @abstractmethod
    def encode_batch(self, audio: Tensor) -> Tensor:
        """Codes (B, K, T) of (B, 1, N), N a whole number of frames."""

    @abstractmethod
    def decode_batch(self, codes: Tensor) -> Tensor:
        """Waveforms (B, 1, N) or (B, N) of codes (B, K, T)."""

    @torch.inference_mode()
    def encode(self, clips: Sequence[Tensor]) -> list[AudioCodes]:
        """See `CodecSystem.encode`."""
        hop = self.streams[0].hop_length
        padded = [nn.functional.pad(clip, (0, -clip.shape[-1] % hop)) for clip in clips]
        codes = _by_length(padded, lambda batch: self.encode_batch(batch.to(self.device)).cpu())
        return [self._codes(one, clip.shape[-1]) for one, clip in zip(codes, clips, strict=True)]

    @torch.inference_mode()
    def decode(self, codes: Sequence[AudioCodes]) -> list[Tensor]:
        """See `CodecSystem.decode`; a decoder that gives fewer samples than were encoded is filled up with silence."""
        waves = _by_length(
            [one[STREAM][0] for one in codes],
            lambda batch: self.decode_batch(batch.to(self.device)).flatten(1).float().cpu(),
        )
        wanted = [one.num_samples or one.covered_samples for one in codes]
        return [
            nn.functional.pad(wave, (0, max(0, n - len(wave))))[None, :n] for wave, n in zip(waves, wanted, strict=True)
        ]

    def _codes(self, codes: Tensor, num_samples: int) -> AudioCodes:
        stream = self.streams[0]
        frames = stream.num_frames(num_samples)
        if codes.shape[0] != stream.num_codebooks or codes.shape[1] < frames:
            raise UserError(
                f"{self.card.title} gave codes {tuple(codes.shape)} where {(stream.num_codebooks, frames)} were "
                "expected: its config and this adapter do not fit together"
            )
        return AudioCodes.of({STREAM: codes[None, :, :frames].long()}, self.streams, num_samples)


def _by_length(rows: Sequence[Tensor], call: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What a function of batches gives for each row; rows of one length go together."""
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.shape[-1], []).append(index)
    found: dict[int, Tensor] = {}
    for members in groups.values():
        found.update(zip(members, call(torch.stack([rows[index] for index in members])), strict=True))
    return [found[index] for index in range(len(rows))]


def books_for(kbps: float, frame_rate: float, codebook_size: int, most: int, title: str) -> int:
    """Codebooks that make a bit rate.

    Raises:
        UserError: If the bit rate is not a whole number of codebooks, or more than there are.
    """
    each = frame_rate * (codebook_size - 1).bit_length() / 1000
    books = round(kbps / each)
    if not 1 <= books <= most or abs(books * each - kbps) > 0.05 * each:
        raise UserError(f"{title} has {each:g} kbit/s a codebook and {most} of them: {kbps:g} kbit/s cannot be made")
    return books
