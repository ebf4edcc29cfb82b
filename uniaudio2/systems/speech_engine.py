"""The speech engines of the data factory as systems that speak."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniaudio2.data.synth.voices import Voice
from uniaudio2.errors import UserError
from uniaudio2.systems.contract import SpeechSystem


@dataclass(frozen=True)
class EngineConfig:
    """Settings of a speech engine."""

    voice: str | None = None  # None takes the language's own


class SpeechEngine(SpeechSystem):
    """An engine of `uniaudio2.data.synth.engines`. A subclass names its module and a voice for each language."""

    module: ClassVar[str]
    voices: ClassVar[dict[str, Voice]]

    def __init__(self, config: EngineConfig, *, device: str = "cpu", download: bool = False) -> None:
        found = importlib.import_module(f"uniaudio2.data.synth.engines.{self.module}")
        self._engine: Any = found.ENGINES[0]
        self._voice = config.voice
        self.version = config.voice or ", ".join(voice.name for voice in self.voices.values())
        language, voice = next(iter(self.voices.items()))
        # One sentence tells the sample rate, and whether everything is there; loading is no part of the speed.
        self.sample_rate = self._engine.speak(["one" if language == "en" else "一"], self._chosen(voice))[0][1]

    def _chosen(self, voice: Voice) -> Voice:
        return voice if self._voice is None else replace(voice, name=self._voice)

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """See `SpeechSystem.speak`.

        Raises:
            UserError: If it has no voice of that language, or cannot take a voice from a recording.
        """
        if voice is not None:
            raise UserError(f"{self.card.title} cannot take its voice from a recording")
        if language not in self.voices:
            raise UserError(f"{self.card.title} speaks {', '.join(self.voices)}, not {language}")
        samples, rate = self._engine.speak([text], self._chosen(self.voices[language]))[0]
        self.sample_rate = rate
        return torch.from_numpy(samples)[None]
