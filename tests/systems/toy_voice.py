"""A system that hears, speaks, describes, answers and makes sounds, all of it badly and at once."""

import time
from dataclasses import dataclass

import torch

from uniaudio2.systems import SYSTEMS, Card, SpeechSystem


@dataclass(frozen=True)
class ToyVoiceConfig:
    says: str = "a dog barks"
    pitch: float = 0.05
    streams: bool = True


@SYSTEMS.register("toy_voice", ToyVoiceConfig)
class ToyVoice(SpeechSystem):
    card = Card(title="toy voice", licence="none")
    sample_rate = 16000
    version = "1"

    def __init__(self, config, *, device="cpu", download=False):
        self.config = config

    def transcribe(self, audio, *, language, seed):
        return self.config.says

    def caption(self, audio, *, seed):
        return self.config.says

    def answer(self, audio, question, *, seed):
        return self.config.says if question else "a reply"

    def speak(self, text, *, language, voice, seed):
        return self.generate_sound(text, seed=seed) if voice is None else voice

    def generate_sound(self, text, *, seed):
        return 0.2 * torch.sin(torch.arange(12000) * self.config.pitch)[None]

    def stream_speech(self, text, *, language, voice, seed):
        if not self.config.streams:
            return None

        def pieces():
            yield torch.zeros(1, 0)
            time.sleep(0.02)
            yield torch.zeros(1, 160)
            raise AssertionError("only the first samples are waited for")

        return pieces()

    def stream_text(self, blocks, *, language, seed):
        if not self.config.streams:
            return None
        return (" " if number == 0 else "a" for number, _ in enumerate(blocks))
