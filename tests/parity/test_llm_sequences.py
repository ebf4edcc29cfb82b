"""Training matrices, loss masks and prompt matrices of every task against the published ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.fixtures import load_fixture
from tests.parity.llm_support import audio_tokens, text_tokens
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import get_task
from uniaudio2.tokenizer import TextTokens

NAMES = {"InstructTTS": "instruct_tts", "Yue_ASR": "yue_asr", "Yue_TTS": "yue_tts", "D_ASR": "d_asr"}

# Published key of a value -> our value name and stream
KEYS = {
    "transcription_seq": ("transcription", "text"),
    "caption_seq": ("caption", "text"),
    "lyric_seq": ("lyric", "text"),
    "text_seq_question": ("question", "text"),
    "text_seq_answer": ("answer", "text"),
    "audio_prompt_seq": ("voice", "voice"),
    "reason_seq": ("audio", "reasoning"),
    "semantic_seq": ("audio", "reconstruction"),
    "reason_seq2": ("copy", "reasoning"),
    "semantic_seq2": ("copy", "reconstruction"),
    "reason_seq_mix": ("mixture", "reasoning"),
    "semantic_seq_mix": ("mixture", "reconstruction"),
}
TEXT_SEQ = {"text_only": "text", "speech_edit": "instruction", "speech_s2t": "answer"}


def our_name(published: str) -> str:
    return NAMES.get(published, published.lower())


def values_of(task: str, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The fixture's inputs as values of the task table."""
    values: dict[str, Any] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    separated = "mixture" in get_task(task).values
    for key, tensor in inputs.items():
        if key == "prompt":
            continue
        if key == "text_seq":
            values[TEXT_SEQ[task]] = tensor.tolist()
            continue
        if key.endswith(("_1", "_2")):
            stream = "reasoning" if key.startswith("reason") else "reconstruction"
            names = ("first", "second") if separated else ("source", "target")
            pairs.setdefault(names[int(key[-1]) - 1], {})[stream] = tensor
            continue
        name, stream = KEYS[key]
        if stream == "text":
            values[name] = tensor.tolist()
        elif stream == "voice":
            values[name] = tensor
        else:
            pairs.setdefault(name, {})[stream] = tensor
    for name, pair in pairs.items():
        values[name] = (pair.get("reasoning"), pair.get("reconstruction"))
    return values


def builder_for(info: dict[str, Any]) -> SequenceBuilder:
    special = info.get("special_tokens")
    if special is None:
        text = TextTokens(text_pad=info["ids"]["text_pad_token"])
    else:
        text = text_tokens(special, bos=special["bos"], eos=special["eos"], text_pad=info["ids"]["text_pad_token"])
    return SequenceBuilder(None, audio_tokens(info["ids"]), text=text)


def test_training_matrices_of_every_task() -> None:
    fixture = load_fixture("llm_training_batches")
    builder = builder_for(fixture.info)
    for published in fixture.info["tasks"]:
        guided = published.endswith("_cfg")
        plain = published.removesuffix("_cfg")
        task = our_name(plain)
        case = fixture.group(published)
        inputs = fixture.group(f"{plain}/in")
        built = builder.example(
            task,
            values_of(task, inputs),
            prompt=inputs["prompt"].tolist() if get_task(task).prompts else None,
            guidance_form=guided,
        )
        assert torch.equal(built.tokens, case["tokens"]), published
        assert torch.equal(built.mask, case["mask"].bool()), published
        assert torch.equal(built.loss_mask, case["loss_mask"].bool()), published


def test_batch_padding() -> None:
    fixture = load_fixture("llm_training_batches")
    builder = builder_for(fixture.info)
    case = fixture.group("batch")
    sequences = []
    for published in ("TTS", "ASR", "text_only", "speech_edit"):
        inputs = fixture.group(f"{published}/in")
        task = our_name(published)
        prompt = inputs["prompt"].tolist() if get_task(task).prompts else None
        sequences.append(builder.example(task, values_of(task, inputs), prompt=prompt))
    batch = builder.collate(sequences)
    assert torch.equal(batch.tokens, case["tokens"])
    assert torch.equal(batch.mask, case["mask"].bool())
    assert torch.equal(batch.loss_mask, case["loss_mask"].bool())
    assert torch.equal(batch.lengths, case["lengths"])


def driver_values(task: str, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Inputs of the published drivers as values; codes come as (T, 8)."""
    values: dict[str, Any] = {}
    wanted = get_task(task).required_inputs
    if "text" in inputs:
        names = ("transcription", "lyric", "instruction", "caption")
        values |= {name: inputs["text"].tolist() for name in [n for n in names if n in wanted][:1]}
    if "caption" in inputs and "caption" in wanted:
        values["caption"] = inputs["caption"].tolist()
    if "question" in inputs and "question" in wanted:
        values["question"] = inputs["question"].tolist()
    if "reason" in inputs:
        name = next((name for name in ("audio", "source", "mixture") if name in wanted), None)
        if name is not None:
            values[name] = (inputs["reason"].T, inputs["semantic"].T)
    if "voice" in inputs:
        values["voice"] = inputs["voice"].T
    return {name: value for name, value in values.items() if name in get_task(task).values}


def test_prompt_matrices_of_every_driver() -> None:
    fixture = load_fixture("llm_prompts")
    builder = builder_for(fixture.info)
    for published in fixture.info["tasks"]:
        guided = published.endswith("_uncond")
        task = our_name(published.removesuffix("_uncond").removesuffix("_8T"))
        case, inputs = fixture.group(published), fixture.group(f"{published}/in")
        built = builder.prompt(task, driver_values(task, inputs), prompt=inputs["prompt"].tolist(), published=True)
        tokens = built.guidance_tokens if guided else built.tokens
        assert tokens is not None, published
        assert torch.equal(tokens, case["tokens"]), published
        assert torch.equal(built.mask, case["mask"].bool()), published


@pytest.mark.parametrize("task", ["tts", "asr"])
def test_forced_form_appends_the_begin_rows(task: str) -> None:
    fixture = load_fixture("llm_prompts")
    builder = builder_for(fixture.info)
    inputs = fixture.group(f"{task.upper()}/in")
    values, prompt = driver_values(task, inputs), inputs["prompt"].tolist()
    plain = builder.prompt(task, values, prompt=prompt, published=True)
    forced = builder.prompt(task, values, prompt=prompt)
    assert torch.equal(forced.tokens[: len(plain)], plain.tokens)
    assert len(forced) > len(plain)
