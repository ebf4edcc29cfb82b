"""Decoding against the published model: prefill, frames, guidance, sampling filters, both frame loops, the drivers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.fixtures import Fixture, assert_close, load_fixture
from tests.parity.llm_support import stage3_model, text_tokens
from tests.parity.test_llm_sequences import builder_for, driver_values, our_name
from uniaudio2.engine.request import GenerationRequest
from uniaudio2.engine.runner import prefill
from uniaudio2.engine.sampling import filter_probabilities, guide
from uniaudio2.engine.state import Board as _Board
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import SequenceBuilder

CASES = ["plain_text_prompt", "plain_audio_prompt", "audio_prompt_maxp1", "text_out", "cfg", "forbid", "forbid_mid"]


def frame_logits(
    model: AudioLM, hidden: Tensor, audio_ids: Tensor | None, forbid: int, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Text logits (B', V), audio logits (K, B', A) and greedy ids (B', K+1), text first; ids may be forced."""
    rows = hidden.shape[0]
    pair = torch.tensor([1]) if scale is not None else None
    factor = torch.tensor([scale]) if scale is not None else None
    count = 1 if scale is not None else rows
    text = guide(model.text_head(hidden), pair, factor, count)
    cache, inputs, logits, ids = model.depth.new_cache(rows), hidden, [], [text.argmax(dim=-1)]
    for codebook in range(model.config.audio.num_codebooks):
        each = guide(model.depth.step(inputs, codebook, cache), pair, factor, count)
        logits.append(each)
        allowed = each.clone()
        allowed[:, :forbid] = -torch.inf
        drawn = allowed.argmax(dim=-1)
        ids.append(drawn)
        fed = drawn if audio_ids is None else audio_ids[:, codebook]
        inputs = model.embed_codebook(fed.expand(rows), codebook)
    return text, torch.stack(logits), torch.stack(ids, dim=1)


@pytest.mark.parametrize("chunk", [3, 256])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_prefill_and_frames(name: str, chunk: int) -> None:
    fixture = load_fixture("llm_stage3")
    model = stage3_model(fixture)
    case = fixture.group(name)
    limits = dict(atol=fixture.tolerances["logits_atol"], rtol=fixture.tolerances["logits_rtol"])
    tokens, mask, samples = case["tokens"], case["mask"].bool(), case["samples"]
    if "prefix_text_logits" in case:
        output = model(tokens, mask)
        assert_close(output.text_logits, case["prefix_text_logits"], **limits, what="prefix text logits")
        assert_close(output.audio_logits, case["prefix_audio_logits"], **limits, what="prefix audio logits")
        assert torch.equal(output.audio_labels, case["prefix_labels"])
    rows, length, frames = tokens.shape[0], tokens.shape[1], samples.shape[0]
    scale = 2.5 if name == "cfg" else None
    cache = model.new_cache(rows, length + frames)
    prefill(model, tokens[:, :-1], mask[:, :-1], cache, torch.arange(rows), chunk=chunk)
    row, row_mask = tokens[:, -1:], mask[:, -1:]
    for frame in range(frames):
        position = length - 1 + frame
        hidden = model.step(row, row_mask, cache, torch.full((rows, 1), position), length=position + 1, exact=True)
        forbid = _forbid(fixture, name, frame)
        text, audio, ids = frame_logits(model, hidden[:, 0], None, forbid, scale)
        assert_close(text, case["text_logits"][frame], **limits, what=f"text logits of frame {frame}")
        assert_close(audio, case["audio_logits"][frame], **limits, what=f"audio logits of frame {frame}")
        assert torch.equal(ids.expand(rows, -1), samples[frame]), f"ids of frame {frame}"
        row, row_mask = _next_row(samples[frame], text=name == "text_out")


def _forbid(fixture: Fixture, name: str, frame: int) -> int:
    reason = fixture.info["config"]["reason"]
    return reason if name == "forbid" or (name == "forbid_mid" and frame >= 7) else 0


def _next_row(sample: Tensor, *, text: bool) -> tuple[Tensor, Tensor]:
    """The row that is fed next, (B, 1, K+1), from a sample (B, K+1) with text first."""
    row = torch.cat((sample[:, 1:], sample[:, :1]), dim=1)[:, None]
    mask = torch.ones(row.shape, dtype=torch.bool)
    if text:
        row[..., :-1], mask[..., :-1] = 0, False
    else:
        mask[..., -1] = False
    return row, mask


def test_sampling_filters_and_draws() -> None:
    fixture = load_fixture("llm_sampling")
    for index, settings in enumerate(fixture.info["cases"]):
        case = fixture.group(str(index))
        logits = case["logits"].clone()
        logits[:, : settings["forbid_prefix"]] = -torch.inf
        rows = logits.shape[0]
        probabilities = filter_probabilities(
            logits, torch.full((rows,), settings["temperature"]), torch.full((rows,), settings["topk"]), None
        )
        assert_close(probabilities, case["probs"], atol=fixture.tolerances["probs_atol"], what=f"case {index}")
        drawn = (probabilities / case["exp_noise"]).argmax(dim=-1, keepdim=True)
        assert torch.equal(drawn, case["sample"].long()), f"draws of case {index}"


def published_board(builder: SequenceBuilder, task: str, values: dict[str, Any], prompt: list[int]) -> _Board:
    request = GenerationRequest(builder.prompt(task, values, prompt=prompt, published=True))
    board = _Board(1, request.max_steps, builder.audio.num_codebooks, torch.device("cpu"))
    board.place(0, request)
    return board


def parts_of(
    builder: SequenceBuilder, task: str, values: dict[str, Any], prompt: list[int], board: _Board
) -> list[Tensor]:
    """What the loop kept, per phase: codes (K, T) or text ids."""
    phases = builder.prompt(task, values, prompt=prompt, published=True).phases
    written = int(board.written[0])
    ids, numbers = board.history[0, :written], board.history_phase[0, :written]
    return [
        ids[numbers == index][:, -1] if phase.is_text else builder.ids_to_codes(phase, ids[numbers == index][:, :-1])
        for index, phase in enumerate(phases)
    ]


@pytest.mark.parametrize(("loop", "published"), [("loop_audio", "TTS"), ("loop_text", "ASR")])
def test_frame_loops(loop: str, published: str) -> None:
    fixture = load_fixture("llm_prompts")
    builder, case = builder_for(fixture.info), fixture.group(loop)
    inputs, task = fixture.group(f"{published}/in"), our_name(published)
    values, prompt = driver_values(task, inputs), inputs["prompt"].tolist()
    built = builder.prompt(task, values, prompt=prompt, published=True)
    assert torch.equal(built.tokens[None, :-1], case["prefix_tokens"])
    board = published_board(builder, task, values, prompt)
    slots = torch.zeros(1, dtype=torch.int64)
    for step, sample in enumerate(case["script"]):
        fed, mask = board.tokens[0], board.mask[0]
        assert torch.equal(mask, case["fed_mask"][step, 0].bool()), step
        assert torch.equal(fed[mask], case["fed_tokens"][step, 0][mask]), step
        assert int(board.position[0]) == int(case["fed_pos"][step]), step
        if loop == "loop_audio":
            assert int(board.current("low", slots)[0]) == int(case["forbid"][step]), step
        board.advance(torch.cat((sample[1:], sample[:1]))[None])
    assert bool(board.done[0])
    parts = parts_of(builder, task, values, prompt, board)
    expected = [case["reason"], case["semantic"]] if loop == "loop_audio" else [case["text"]]
    for part, wanted in zip(parts, expected, strict=True):
        assert torch.equal(part, wanted)


@torch.no_grad()
def test_drivers() -> None:
    fixture = load_fixture("llm_driver")
    weights = load_fixture(fixture.info["weights"].removesuffix(".safetensors"))
    model = stage3_model(weights, fixture.info["ids"])
    base = builder_for({"ids": fixture.info["ids"]})
    end = fixture.info["forced"]["text_end_id"]
    pad = fixture.info["ids"]["text_pad_token"]
    text = text_tokens(fixture.info["special_tokens"], bos=end - 1, eos=end, text_pad=pad)
    builder = SequenceBuilder(None, base.audio, text=text)
    atol, inputs = fixture.tolerances["logits_atol"], fixture.group("in")
    prompt = inputs["prompt"].tolist()
    for published in fixture.info["cases"]:
        task, case = our_name(published), fixture.group(published)
        values = _driver_inputs(task, inputs)
        built = builder.prompt(task, values, prompt=prompt, published=True)
        board = published_board(builder, task, values, prompt)
        cache = model.new_cache(1, len(built) + case["used"].shape[0])
        prefill(model, built.tokens[None, :-1], built.mask[None, :-1], cache, torch.arange(1))
        for step, (sampled, used) in enumerate(zip(case["sampled"], case["used"], strict=True)):
            position = board.position[:, None]
            where = dict(length=int(position) + 1, exact=True)
            hidden = model.step(board.tokens[:, None], board.mask[:, None], cache, position, **where)
            what = f"{published} frame {step}"
            text_logits, audio_logits, ids = frame_logits(
                model, hidden[:, 0], sampled[None, 1:], int(case["forbid"][step]), None
            )
            assert_close(text_logits[0], case["text_logits"][step], atol=atol, what=what)
            assert_close(audio_logits[:, 0], case["audio_logits"][step], atol=atol, what=what)
            assert torch.equal(ids[0], sampled), what
            board.advance(torch.cat((used[1:], used[:1]))[None])
        assert bool(board.done[0]), published
        parts = parts_of(builder, task, values, prompt, board)
        expected = [case["text"]] if "text" in case else [case["reason"], case["semantic"]]
        for part, wanted in zip(parts, expected, strict=True):
            assert torch.equal(part, wanted), published


def _driver_inputs(task: str, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The fixture's common inputs that a task takes; TTA's caption is the text."""
    values = driver_values(task, inputs)
    if task == "tta":
        values = {"caption": inputs["text"].tolist()}
    return values
