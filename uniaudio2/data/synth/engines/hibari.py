"""hibari: one natural American woman, distilled from a voice of Kokoro; all of it lies in the package hibari-tts."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uniaudio2.data.synth.voices import NORMAL_RATE, Spoken, SynthesiserMissing, Voice, VoiceGroup
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from hibari import Hibari


@functools.cache
def _hibari() -> Hibari:
    try:
        from hibari import Hibari
    except ImportError as error:
        raise SynthesiserMissing("hibari is missing: `pip install hibari-tts`") from error
    return Hibari(threads=1)


class _Engine:
    name = "hibari"
    licence = "Apache-2.0 (hibari, distilled from Kokoro-82M)"
    rates = (150, 200)

    def groups(self) -> dict[str, VoiceGroup]:
        return {"hibari": VoiceGroup("en", (Voice(self.name, "heart"),))}

    def held_out(self, language: str) -> tuple[Voice, ...]:
        return ()

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        if voice.name != "heart":
            raise UserError(f"hibari has no voice {voice.name!r}; only heart lies in its package")
        speaker, speed = _hibari(), voice.rate / NORMAL_RATE
        # Its breath is noise: a seed from the text makes it the same each time.
        return [
            (np.asarray(speaker(text, speed, zlib.crc32(text.encode())), np.float32), speaker.sample_rate)
            for text in texts
        ]


ENGINES = (_Engine(),)
