"""Qwen2.5-Omni, by transformers: listens, answers, and speaks what it answers. Source: arXiv:2503.20215."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.audio import resample
from uniaudio2.errors import CheckpointError, UserError
from uniaudio2.systems.contract import Card, SpeechSystem
from uniaudio2.systems.hub import WeightsConfig, find_weights, load_pretrained, transformers_class
from uniaudio2.systems.registry import SYSTEMS

PERSONA = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
"""The system prompt that its makers require where speech is to come out."""

_NAMES = {"en": "English", "zh": "Chinese", "yue": "Cantonese"}
_OUTPUT_RATE = 24_000


@dataclass(frozen=True)
class QwenOmniConfig(WeightsConfig):
    """Settings of Qwen2.5-Omni."""

    speaker: str = "Chelsie"
    dtype: str = "bfloat16"
    max_new_tokens: int = 1024  # of text
    max_audio_tokens: int = 4096  # of speech, 50 a second
    caption_prompt: str = "Describe this audio in one sentence."


@SYSTEMS.register("qwen_omni", QwenOmniConfig)
class QwenOmni(SpeechSystem):
    """Qwen2.5-Omni 7B; the 3B by ``@hub_id=Qwen/Qwen2.5-Omni-3B``."""

    card = Card(
        title="Qwen2.5-Omni 7B",
        licence="Apache-2.0 (7B); the 3B for research only",
        hub_id="Qwen/Qwen2.5-Omni-7B",
        revision="ae9e1690543ffd5c0221dc27f79834d0294cba00",
        needs="transformers, about 20 GiB of GPU memory in bfloat16",
        traps="16 kHz in, 24 kHz out; it speaks its own answer, so read speech is asked for in words; its vocoder is "
        "kept in float32 and run clip by clip",
    )
    sample_rate = 16_000

    def __init__(self, config: QwenOmniConfig, *, device: str = "cpu", download: bool = False) -> None:
        title = self.card.title
        cls = transformers_class("Qwen2_5OmniForConditionalGeneration", title)
        folder, self.version = find_weights(self.card, config, download=download, also=["spk_dict.pt"])
        dtype = getattr(torch, config.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise UserError(f"unknown dtype {config.dtype!r}; choose bfloat16 or float32")
        self._config, self._device, self._dtype = config, torch.device(device), dtype
        # Its own from_pretrained cannot tell which weights were missing; the one that it inherits can.
        self._model = load_pretrained(super(cls, cls), folder, title, dtype=dtype).to(self._device)
        if not (folder / "spk_dict.pt").is_file():
            raise CheckpointError(f"{folder}: spk_dict.pt, the voices of {title}, is missing")
        self._model.load_speakers(folder / "spk_dict.pt")  # transformers reads it with weights_only
        # Choice: its tokenizer and features alone, since its processor also wants torchvision for pictures and video.
        self._tokenizer = transformers_class("AutoTokenizer", title).from_pretrained(folder, local_files_only=True)
        features = transformers_class("WhisperFeatureExtractor", title)
        self._features = features.from_pretrained(folder, local_files_only=True)

    def _inputs(self, text: str, audio: Tensor | None) -> dict[str, Tensor]:
        """A question in the form of its chat template, with an audio before it where one is given."""
        heard, sound = "", {}
        if audio is not None:
            found = self._features(
                audio[0].numpy(), sampling_rate=self.sample_rate, padding=True, truncation=False,
                return_attention_mask=True, return_tensors="pt",
            )  # fmt: skip
            frames = int(found.attention_mask.sum())
            tokens = ((frames - 1) // 2 + 1 - 2) // 2 + 1  # two strides of two, as its audio encoder takes them
            heard = f"<|audio_bos|>{'<|AUDIO|>' * tokens}<|audio_eos|>"
            sound = {"input_features": found.input_features.to(self._device, self._dtype),
                     "feature_attention_mask": found.attention_mask.to(self._device)}  # fmt: skip
        turns = (("system", PERSONA), ("user", heard + text))
        chat = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns) + "<|im_start|>assistant\n"
        return {**self._tokenizer(chat, return_tensors="pt").to(self._device), **sound}

    @torch.inference_mode()
    def _ask(self, audio: Tensor, question: str) -> str:
        inputs = self._inputs(question, audio)
        tokens = self._model.generate(
            **inputs, generation_mode="text", thinker_max_new_tokens=self._config.max_new_tokens,
            thinker_do_sample=False,
        )  # fmt: skip
        answer = tokens[:, inputs["input_ids"].shape[1] :]
        return self._tokenizer.batch_decode(answer, skip_special_tokens=True)[0].strip()

    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """See `SpeechSystem.transcribe`."""
        name = _NAMES.get(language or "", "")
        return self._ask(
            audio, f"Transcribe the {name} audio into text without any punctuation marks.".replace("  ", " ")
        )

    def caption(self, audio: Tensor, *, seed: int) -> str:
        """See `SpeechSystem.caption`."""
        return self._ask(audio, self._config.caption_prompt)

    def answer(self, audio: Tensor, question: str, *, seed: int) -> str:
        """See `SpeechSystem.answer`."""
        return self._ask(audio, question)

    @torch.inference_mode()
    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """See `SpeechSystem.speak`; the answer's speech at 24 kHz is brought to ``sample_rate``."""
        if voice is not None:
            raise UserError(f"{self.card.title} speaks in its own voices, not in that of a recording")
        torch.manual_seed(seed)
        # Choice: it has no mode that reads aloud; it is told to repeat the text, as its makers' evaluation does.
        question = f"Read the following text aloud, word for word, and say nothing else: {text}"
        _, wave = self._model.generate(
            **self._inputs(question, None), generation_mode="audio", speaker=self._config.speaker,
            thinker_max_new_tokens=self._config.max_new_tokens, thinker_do_sample=False,
            talker_max_new_tokens=self._config.max_audio_tokens,
        )  # fmt: skip
        return resample(wave.reshape(1, -1).float().cpu(), _OUTPUT_RATE, self.sample_rate)
