"""Real recordings as a part of a corpus: copied into shards with their own splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth.engines.espeak import phonemes
from uniaudio2.data.synth.renderer import Clip, Group, Material


@dataclass(frozen=True)
class Recordings:
    """Real sets, by name; at most ``limit`` clips of one split of one set."""

    sets: tuple[str, ...]
    limit: int | None = None

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """Train and dev clips of each set, a group each."""
        return {
            f"real_{name}_{split}": Group(material.recordings(name, split, seed, self.limit), 240)
            for name in self.sets
            for split in ("train", "dev")
        }

    @staticmethod
    def render(tasks: Sequence[Example], seed: int) -> list[Clip]:
        """Recordings at 24 kHz as they are; sounds longer than 7 s in equal pieces of at most 5 s."""
        return [clip for example in tasks for clip in _clips(example)]


def _clips(example: Example) -> list[Clip]:
    wave = example.audio().numpy()[0]
    phones = phonemes(example.text, example.language) if example.text and example.language else None
    example = dataclasses.replace(example, phonemes=phones)
    if example.kind == "speech" or wave.size <= 7 * SAMPLE_RATE:
        return [(example, wave)]
    parts = np.array_split(wave, -(-wave.size // (5 * SAMPLE_RATE)))
    return [(dataclasses.replace(example, id=f"{example.id}-{index}"), part) for index, part in enumerate(parts)]
