"""Models and prompts to measure with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uniaudio2.bench.config import BenchConfig, BenchError
from uniaudio2.checkpoint import load_lm
from uniaudio2.engine import Engine, Generation, GenerationRequest, SamplingConfig
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.lm.quantize import QUANTIZED_TYPES
from uniaudio2.sequence import Prompt, SequenceBuilder


def build_model(config: BenchConfig) -> AudioLM:
    """The model folder's language model, or one with random weights; float, on the device, not yet quantised."""
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    if config.dtype in QUANTIZED_TYPES and config.device != "cpu":
        dtype = torch.bfloat16
    if config.model is not None:
        return load_lm(config.model, device=config.device, dtype=dtype).eval()
    with torch.device("meta"):
        model = AudioLM(config.lm_config())
    model = model.to(dtype).to_empty(device=config.device)
    return model.initialise(torch.Generator(config.device).manual_seed(config.seed)).eval()


def make_prompt(lm: LMConfig, rows: int, *, text: bool, seed: int = 0) -> Prompt:
    """A prompt of exactly so many rows: text to be spoken, or audio (``text``) to be written down."""
    builder = SequenceBuilder(None, lm.audio, text=lm.text)
    generator = torch.Generator().manual_seed(seed)
    first_free = max(lm.text.ids()) + 1
    if first_free + 2 >= lm.text_vocab_size:
        first_free = 0  # special ids come last: those below are ordinary

    def ids(count: int) -> list[int]:
        """Ordinary text ids."""
        top = lm.text_vocab_size if first_free else min(lm.text.ids())
        return torch.randint(first_free, top, (count,), generator=generator).tolist()

    def codes(high: int, count: int) -> Tensor:
        """Codes below ``high``, (K, count)."""
        return torch.randint(0, high, (lm.audio.num_codebooks, count), generator=generator)

    def build(count: int) -> Prompt:
        """A prompt with ``count`` text ids or audio frames in its input."""
        instruction = [lm.text.bos, *ids(1), lm.text.eos]
        if not text:
            value: dict[str, Any] = {"transcription": [lm.text.bos, *ids(count), lm.text.eos]}
            return builder.prompt("tts", value, prompt=instruction)
        reasoning = max(1, count * 2 // 7)
        streams = (
            codes(lm.audio.streams[0].codebook_size, reasoning),
            codes(lm.audio.fine.codebook_size, count - reasoning),
        )
        return builder.prompt("asr", {"audio": streams}, prompt=instruction)

    least = 2
    count = rows - (len(build(least)) - least)
    if count < least:
        raise BenchError(f"a prompt has at least {rows - count + least} rows, got {rows}")
    return build(count)


def make_request(config: BenchConfig, lm: LMConfig, *, text: bool) -> GenerationRequest:
    """A greedy request that makes exactly ``config.frames`` text ids, or frames: 2 reasoning for 5 reconstruction."""
    reasoning = max(1, config.frames * 2 // 7)
    limits = {"reasoning": reasoning, "reconstruction": config.frames - reasoning, "text": config.frames}
    return GenerationRequest(
        make_prompt(lm, config.prompt_rows, text=text, seed=config.seed),
        sampling=SamplingConfig(temperature=0.0),
        limits={kind: (count, count) for kind, count in limits.items()},
        match_lengths=False,
        loop_guard=False,
    )


# -- measurement ---------------------------------------------------------------------------------------------------


def start_requests(engine: Engine, request: GenerationRequest, batch: int) -> Generation:
    """A session in which the same request runs several times at once."""
    session = engine.session(streaming=False)
    for _ in range(batch):
        session.add(request)
    return session
