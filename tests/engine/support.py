"""A small model with decisive logits, and requests to it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from uniaudio2.config import load_config, preset_path
from uniaudio2.engine import GenerationRequest, SamplingConfig
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import TASKS
from uniaudio2.tokenizer import TextTokenizer

GREEDY = SamplingConfig(temperature=0.0)
LIMITS = {"text": (2, 7), "reasoning": (2, 5), "reconstruction": (1, 12)}


@cache
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["the cat sat on the mat", "a dog barks at the moon", "rain falls"] * 3, 300)


@cache
def model() -> AudioLM:
    config = load_config(LMConfig, preset_path("lm", "tiny"), ["text_vocab_size=300"])
    built = AudioLM(config).initialise(torch.Generator().manual_seed(3))
    for name, parameter in built.named_parameters():  # decisive logits
        if parameter.ndim > 1:
            parameter.data *= 6 if "embedding" in name else 3
    return built.eval()


def builder() -> SequenceBuilder:
    config = model().config
    return SequenceBuilder(tokenizer(), config.audio, text=config.text, prompt_style="short")


def codes(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 16, (8, frames), generator=generator),
        torch.randint(0, 32, (8, int(2.5 * frames)), generator=generator),
    )


def inputs(task: str, size: int = 3) -> dict[str, Any]:
    """Some value for every input of a task."""
    values: dict[str, Any] = {}
    for part in TASKS[task].inputs:
        if part.kind == "text":
            values[part.value] = "the cat sat on the mat rain"[: 4 * size]
        elif part.kind == "voice":
            values[part.value] = codes(size)[1]
        else:
            values[part.value] = codes(size, seed=len(part.value))
    return values


def request(task: str, size: int = 3, **options: Any) -> GenerationRequest:
    options = {"limits": LIMITS, "sampling": GREEDY, **options}
    return GenerationRequest(builder().prompt(task, inputs(task, size)), **options)


def ids_of(result: Any) -> list[list[Any]]:
    return [part.ids.tolist() for part in result.parts]


def mixed_requests() -> list[GenerationRequest]:
    free = SamplingConfig(temperature=0.9, top_k=30, top_p=0.95)
    return [request("tts", 5, guidance_scale=2.0), request("asr", 3), request("tta", 1, sampling=free, seed=5)]
