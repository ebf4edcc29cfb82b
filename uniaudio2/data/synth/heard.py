"""Recordings without a transcript, with what Whisper hears in them; kept where two ways of decoding agree.

The recogniser (see `uniaudio2.data.recogniser`) runs when data is made and is not shipped.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from uniaudio2.data.manifest import Example
from uniaudio2.data.recogniser import REMEDY, has_whisper, hear
from uniaudio2.data.sources import normalise_transcript
from uniaudio2.data.synth.engines.espeak import phonemes
from uniaudio2.data.synth.renderer import Clip, Group, Material

NOTE = "; words by Whisper base, two decodings agree"
"""Added to a clip's attribution: who wrote its words."""


@dataclass(frozen=True)
class Heard:
    """Real sets without text, by name: the clips whose words Whisper hears twice alike."""

    sets: tuple[str, ...]
    limit: int | None = None

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """Train and dev clips of each set that have no text."""
        if not has_whisper():
            material.left_out[REMEDY] = None
            return {}
        return {
            f"heard_{name}_{split}": Group(
                [e for e in material.recordings(name, split, seed, self.limit) if e.kind == "speech" and not e.text], 60
            )
            for name in self.sets
            for split in ("train", "dev")
        }

    @staticmethod
    def render(tasks: Sequence[Example], seed: int) -> list[Clip]:
        """Recordings as they are, with text and phones; those that are heard in two ways are left out."""
        clips: list[Clip] = []
        for example in tasks:
            wave = example.audio()
            text = heard_twice(wave, example.language or "en")
            phones = phonemes(text, example.language or "en") if text else None
            if text and phones:
                attribution = f"{example.attribution or ''}{NOTE}"
                clip = dataclasses.replace(example, text=text, phonemes=phones, attribution=attribution)
                clips.append((clip, wave.numpy()[0]))
        return clips


def heard_twice(wave: Tensor, language: str) -> str | None:
    """What is said in a wave (1, N), in the normal form of transcripts; None where two decodings differ.

    Once the best of five hypotheses, once greedily.
    """
    said = [normalise_transcript(hear(wave, language, beams=beams), language) for beams in (5, 1)]
    first, second = (re.sub(r"\W", "", text or "") for text in said)
    return said[0] if first == second else None
