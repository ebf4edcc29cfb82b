"""Requests that cannot be served are refused with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.support import builder, inputs, model, request
from uniaudio2.engine import Engine, GenerationError, SamplingConfig
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import Prompt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(guidance_scale=0.5), "guidance_scale"),
        (dict(limits={"text": (5, 2)}), "least <= most"),
        (dict(limits={"words": (1, 2)}), "unknown kind 'words'"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        request("tts", **options)


def test_bad_sampling_and_too_long() -> None:
    with pytest.raises(GenerationError, match="temperature"):
        SamplingConfig(temperature=-1.0)
    with pytest.raises(GenerationError, match="top_k"):
        SamplingConfig(top_k=0)
    with pytest.raises(GenerationError, match="no guidance form"):
        request("asr", guidance_scale=2.0)
    with pytest.raises(GenerationError, match="shorten the input"):
        Engine(model(), builder()).generate([request("asr", limits={"text": (1, 5000)})])
    with pytest.raises(GenerationError, match="training mode"):
        Engine(AudioLM(model().config), builder()).submit(request("asr"))


def test_guidance_rows_hide_the_condition_but_not_the_begin_of_the_output() -> None:
    prompt: Prompt = builder().prompt("tts", inputs("tts"))
    assert prompt.guidance_tokens is not None
    changed = (prompt.tokens != prompt.guidance_tokens).any(dim=1)
    assert changed[:-1].all() and not changed[-1]  # all but the begin frame of the output
