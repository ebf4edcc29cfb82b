"""Any program that answers JSON lines; see `uniaudio2.systems.process`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from torch import Tensor

from uniaudio2.systems.contract import Card
from uniaudio2.systems.process import ProcessSystem
from uniaudio2.systems.registry import SYSTEMS


@dataclass(frozen=True)
class ProcessConfig:
    """Settings of a program."""

    command: str  # as in a shell, without its special characters
    answer_s: float = 600.0  # most seconds for an answer


@SYSTEMS.register("process", ProcessConfig)
class Program(ProcessSystem):
    """A program of one's own."""

    card = Card(title="program", licence="of its model", needs="its own environment")

    def __init__(self, config: ProcessConfig, *, device: str = "cpu", download: bool = False) -> None:
        super().__init__(shlex.split(config.command), answer_s=config.answer_s)

    def generate_sound(self, text: str, *, seed: int) -> Tensor:
        """See `SpeechSystem.generate_sound`."""
        return self.make("tta", text=text, seed=seed)
