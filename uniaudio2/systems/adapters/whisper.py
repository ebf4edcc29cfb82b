"""Whisper by faster-whisper, from a folder in CTranslate2's format. Source: arXiv:2212.04356."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniaudio2.data import recogniser
from uniaudio2.systems.contract import Card, SpeechSystem
from uniaudio2.systems.registry import SYSTEMS


@dataclass(frozen=True)
class WhisperConfig:
    """Settings of Whisper."""

    folder: str | None = None  # None takes the one that UNIAUDIO2_WHISPER names
    beams: int = 5  # 1 is greedy


@SYSTEMS.register("whisper", WhisperConfig)
class Whisper(SpeechSystem):
    """Whisper; int8 on a CPU, long recordings piece by piece."""

    card = Card(
        title="Whisper (faster-whisper)",
        licence="MIT",
        needs="faster-whisper",
        traps="Cantonese is heard as Mandarin by the sizes below large-v3",
    )

    def __init__(self, config: WhisperConfig, *, device: str = "cpu", download: bool = False) -> None:
        self._config = config
        recogniser.load(config.folder)
        self.version = recogniser.whisper_name(config.folder, config.beams)

    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """See `SpeechSystem.transcribe`."""
        return recogniser.hear(audio, language, beams=self._config.beams, folder=self._config.folder)
