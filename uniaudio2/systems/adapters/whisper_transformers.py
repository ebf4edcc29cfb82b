"""Whisper by transformers, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.systems.contract import Card, SpeechSystem
from uniaudio2.systems.hub import WeightsConfig, find_weights, load_pretrained, transformers_class
from uniaudio2.systems.registry import SYSTEMS


@dataclass(frozen=True)
class WhisperTransformersConfig(WeightsConfig):
    """Settings of Whisper."""

    beams: int = 5  # 1 is greedy
    max_new_tokens: int = 200  # most tokens of a piece of 30 s


@SYSTEMS.register("whisper_transformers", WhisperTransformersConfig)
class WhisperTransformers(SpeechSystem):
    """Whisper; other sizes by ``@hub_id=openai/whisper-large-v3``."""

    card = Card(
        title="Whisper (transformers)",
        licence="Apache-2.0 on the hub, MIT in its repository",
        hub_id="openai/whisper-base",
        revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
        needs="transformers",
        traps="one piece of 30 s at a time: longer recordings are cut into such pieces",
    )
    sample_rate = 16_000

    def __init__(self, config: WhisperTransformersConfig, *, device: str = "cpu", download: bool = False) -> None:
        title = self.card.title
        model_class = transformers_class("WhisperForConditionalGeneration", title)
        folder, self.version = find_weights(self.card, config, download=download)
        self._config, self._device = config, torch.device(device)
        self._model = load_pretrained(model_class, folder, title).to(self._device)
        self._processor = transformers_class("WhisperProcessor", title).from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """See `SpeechSystem.transcribe`."""
        if language == "yue" and "<|yue|>" not in getattr(self._model.generation_config, "lang_to_id", {}):
            language = "zh"  # sizes below large-v3 know no Cantonese
        told = {} if language is None else {"language": language, "task": "transcribe"}
        parts = []
        for piece in audio[0].split(30 * self.sample_rate):
            features = self._processor(piece.numpy(), sampling_rate=self.sample_rate, return_tensors="pt")
            tokens = self._model.generate(
                features.input_features.to(self._device), num_beams=self._config.beams, do_sample=False,
                max_new_tokens=self._config.max_new_tokens, **told,
            )  # fmt: skip
            parts.append(self._processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())
        return " ".join(part for part in parts if part)
