"""A stand-in for corpus and codec: every letter is one frame of a constant level, and the codec reads it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uniaudio2.codec.contract import Codec
from uniaudio2.codes import (
    REASONING_HOP,
    RECONSTRUCTION_HOP,
    AudioCodes,
    Stream,
    reasoning_length,
    reconstruction_length,
)
from uniaudio2.data.manifest import Example

LETTERS = "abcdefghijklmnopqrstuvwxyz "


def spell(text: str) -> np.ndarray:
    levels = np.array([(LETTERS.index(letter) + 1) / 32 for letter in text], dtype=np.float32)
    return np.repeat(levels, RECONSTRUCTION_HOP)


class Spelled:
    """Clips of ``texts``, two voices, every fifth clip held out, and some sounds."""

    def __init__(self, texts: list[str], sounds: int = 4) -> None:
        self.examples: list[Example] = []
        self.waves: list[np.ndarray] = []
        for number, text in enumerate(texts):
            wave = spell(text)
            about: dict[str, Any] = dict(
                text=text,
                phonemes=" ".join(text.replace(" ", "_")),
                language="en",
                speaker=f"voice{number % 2}",
                split="dev" if number % 5 == 4 else "train",
                engine="espeak-ng" if number % 4 else None,
                source="spelled",
            )
            self._add(f"clip{number}", wave, about)
        for number in range(sounds):
            wave = spell("z" * (5 + 2 * number))
            about = dict(
                kind="sound",
                caption="a buzz",
                captions=("buzzing", "something buzzes"),
                split="dev" if number % 2 else "train",
            )
            self._add(f"sound{number}", wave, about)
        self.calls = 0

    def _add(self, name: str, wave: np.ndarray, about: dict[str, Any]) -> None:
        self.examples.append(Example(id=name, path="none.wav", duration=len(wave) / 24000, **about))
        self.waves.append(wave)

    def wave(self, index: int, audio: str | None = None) -> np.ndarray:
        return self.waves[index]


class Speller(Codec):
    """Codes of spelled audio: all eight books hold the letter's number (silence is 31); so does reasoning.

    A reasoning frame holds three letters in two books each: half the number, and its last bit.
    """

    streams = (Stream("reasoning", REASONING_HOP, 8, 32), Stream("reconstruction", RECONSTRUCTION_HOP, 8, 32))
    sample_rate = 24_000

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(32.0))
        self.batches: list[tuple[int, ...]] = []

    def num_frames(self, num_samples: int) -> dict[str, int]:
        return {"reasoning": reasoning_length(num_samples), "reconstruction": reconstruction_length(num_samples)}

    def encode_rows(self, audio: Tensor) -> AudioCodes:
        self.batches.append(tuple(audio.shape))
        levels = audio[:, 0].reshape(audio.shape[0], -1, RECONSTRUCTION_HOP).mean(-1)
        letters = (levels * self.scale).round().long() - 1
        letters = torch.where(letters < 0, 31, letters).clamp(max=31)
        reconstruction = letters[:, None].expand(-1, 8, -1)
        five = letters[:, : letters.shape[1] // 5 * 5].reshape(len(letters), -1, 5)
        three = torch.stack((five[..., [0, 1, 2]], five[..., [2, 3, 4]]), 2).flatten(1, 2)  # (B, T, 3)
        three[:, 1::2, 0] = 0  # the third letter belongs to the frame before
        six = torch.stack((three // 2, three % 2), -1).flatten(2)
        reasoning = torch.nn.functional.pad(six, (0, 2)).transpose(1, 2)
        return AudioCodes(reasoning.contiguous(), reconstruction.contiguous(), audio.shape[2])

    def decode_stream(self, codes: AudioCodes, **options: Any) -> Iterator[Tensor]:
        """Every letter as a constant level, silence as zeros."""
        letters = codes.reconstruction[:, 0]
        levels = torch.where(letters == 31, 0, letters + 1) / self.scale
        yield levels.repeat_interleave(RECONSTRUCTION_HOP, 1)[:, None, : codes.num_samples].detach()
