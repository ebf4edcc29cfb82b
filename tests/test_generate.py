"""The frame loop: batched equals single, cached equals full, every option matters, parts come out as they should."""

from __future__ import annotations

import shutil
from functools import cache
from itertools import chain
from typing import Any

import pytest
import torch

from uniaudio2.config import load_config, preset_path
from uniaudio2.engine.generate import (
    Engine,
    GenerationError,
    GenerationRequest,
    SamplingConfig,
    StreamEvent,
    filter_probabilities,
    guide,
    repeats,
    without_repeats,
)
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.lm.quantize import quantize_weights
from uniaudio2.sequence import Prompt, SequenceBuilder
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


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_row_runs(task: str) -> None:
    result = Engine(model(), builder()).generate([request(task)])[0]
    assert [(part.kind, part.value) for part in result.parts] == [
        (part.kind, part.value) for part in TASKS[task].outputs
    ]
    for part in result.parts:
        least, most = LIMITS[part.kind]
        assert least <= part.ids.shape[0] <= most
        if part.kind == "text":
            assert not set(part.ids.tolist()) & model().config.text.ids()
        else:
            size = 16 if part.kind == "reasoning" else 32
            assert part.codes is not None and part.codes.shape == (8, part.ids.shape[0])
            assert int(part.codes.min()) >= 0 and int(part.codes.max()) < size


def test_batched_equals_single_for_mixed_tasks_lengths_and_guidance() -> None:
    engine = Engine(model(), builder())
    sampling = SamplingConfig(temperature=0.9, top_k=9, top_p=0.95)
    requests = [
        request("asr", 2),
        request("tts", 5, guidance_scale=2.0),
        request("tta", 1, sampling=sampling, seed=5),
        request("asr", 9, sampling=sampling, seed=6, limits={"text": (1, 30)}),
        request("speech_ss", 4),
        request("text_only", sampling=sampling, seed=7),
    ]
    single = [ids_of(engine.generate([each])[0]) for each in requests]
    assert [ids_of(result) for result in engine.generate(requests)] == single
    # Few places: sequences wait, join and leave.
    assert [ids_of(result) for result in Engine(model(), builder(), max_batch=2).generate(requests)] == single


def mixed_requests() -> list[GenerationRequest]:
    free = SamplingConfig(temperature=0.9, top_k=30, top_p=0.95)
    return [request("tts", 5, guidance_scale=2.0), request("asr", 3), request("tta", 1, sampling=free, seed=5)]


def test_looking_at_the_device_less_often_changes_nothing() -> None:
    plain = [ids_of(result) for result in Engine(model(), builder()).generate(mixed_requests())]
    rarely = Engine(model(), builder(), sync_every=4)  # cannot tell parts apart: works out the logits of all ids
    assert [ids_of(result) for result in rarely.generate(mixed_requests())] == plain


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compiled_equals_plain() -> None:
    plain = Engine(model(), builder())
    heads = model().depth.heads.clone()
    compiled = Engine(model(), builder(), compile=True)
    # Other code for a single row, and for rows at different positions.
    for requests in ([request("speech_s2s", 4)], mixed_requests()):
        assert [ids_of(one) for one in compiled.generate(requests)] == [ids_of(one) for one in plain.generate(requests)]
    assert torch.equal(model().depth.heads, heads)


def test_engine_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(GenerationError, match=r"install g\+\+"):
        Engine(model(), builder(), compile=True)
    with pytest.raises(GenerationError, match="CUDA graphs"):
        Engine(model(), builder(), cuda_graphs=True)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_weights_generate(kind: str) -> None:
    light = AudioLM(model().config).eval()
    light.load_state_dict(model().state_dict())
    engine = Engine(quantize_weights(light, kind), builder())  # type: ignore[arg-type]
    requests = mixed_requests()
    for result, each in zip(engine.generate(requests), requests, strict=True):
        assert result.complete and [part.kind for part in result.parts] == [p.kind for p in each.prompt.phases]


def test_chunked_prefill_equals_one_shot() -> None:
    requests = [request("asr", 9), request("speech_s2s", 7)]
    one = [ids_of(result) for result in Engine(model(), builder()).generate(requests)]
    assert [ids_of(result) for result in Engine(model(), builder(), prefill_chunk=2).generate(requests)] == one


@torch.no_grad()
@pytest.mark.parametrize("task", ["asr", "tts", "speech_s2s"])
def test_greedy_generation_is_what_the_full_forward_says(task: str) -> None:
    prompt = builder().prompt(task, inputs(task))
    result = Engine(model(), builder()).generate([request(task)])[0]
    first = result.parts[0]
    rows = builder().text_rows(first.ids.tolist()) if first.kind == "text" else builder().audio_rows(first.ids)
    tokens = torch.cat((prompt.tokens, rows[0]))[None]
    mask = torch.cat((prompt.mask, rows[1]))[None]
    output = model()(tokens, mask)
    start, count = len(prompt) - 1, first.ids.shape[0]
    if first.kind == "text":
        logits = output.text_logits[0, start : start + count]
        logits[:, list(model().config.text.ids())] = -torch.inf
        assert torch.equal(logits.argmax(dim=-1), first.ids)
    else:
        chosen = torch.isin(output.audio_targets, torch.arange(start, start + count))
        logits = output.audio_logits[chosen][..., : model().config.audio.streams[0].codebook_size]
        assert torch.equal(logits.argmax(dim=-1), first.ids)


def test_same_seed_same_output_other_seed_other_output() -> None:
    engine = Engine(model(), builder())
    free = SamplingConfig(temperature=1.0)
    one, same, other = engine.generate([request("tts", sampling=free, seed=seed) for seed in (1, 1, 2)])
    assert ids_of(one) == ids_of(same)
    assert ids_of(one) != ids_of(other)


@pytest.mark.parametrize(
    "changed",
    [
        dict(sampling=SamplingConfig(temperature=2.5)),
        dict(sampling=SamplingConfig(temperature=1.5, top_k=2)),
        dict(sampling=SamplingConfig(temperature=1.5, top_p=0.3)),
        dict(guidance_scale=4.0),
        dict(limits={**LIMITS, "reasoning": (5, 5)}),
        dict(sampling_by_kind={"reconstruction": GREEDY}),
    ],
)
def test_every_option_matters(changed: dict[str, Any]) -> None:
    engine = Engine(model(), builder())
    base: dict[str, Any] = dict(sampling=SamplingConfig(temperature=1.5), limits={**LIMITS, "reasoning": (2, 3)})
    plain, with_option = engine.generate([request("tts", **base), request("tts", **{**base, **changed})])
    assert ids_of(plain) != ids_of(with_option)


def test_guidance_formula() -> None:
    logits = torch.randn(3, 5)
    guided = guide(logits, torch.tensor([2, 1]), torch.tensor([3.0, 1.0]), 2)
    assert torch.allclose(guided[0], logits[2] + 3.0 * (logits[0] - logits[2]))
    assert torch.equal(guided[1], logits[1])


def test_top_p_keeps_the_likeliest() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = filter_probabilities(logits, torch.ones(1), None, torch.tensor([0.7])) > 0
    assert kept.tolist() == [[True, True, False, False]]


def test_reconstruction_length_follows_reasoning_length() -> None:
    engine = Engine(model(), builder())
    limits = {"reasoning": (1, 6), "reconstruction": (1, 100)}
    for frames in (1, 2, 5, 6):
        result = engine.generate([request("tts", limits={**limits, "reasoning": (frames, frames)})])[0]
        assert result.parts[0].ids.shape[0] == frames
        produced = result.parts[1].ids.shape[0]
        assert int(2.5 * (frames - 1)) + 1 <= produced <= -(-5 * frames // 2)
    free = engine.generate([request("tts", limits={**limits, "reconstruction": (40, 40)}, match_lengths=False)])[0]
    assert free.parts[1].ids.shape[0] == 40


def test_stream_equals_whole_and_cancel_frees_the_place() -> None:
    engine = Engine(model(), builder())
    requests = [request("tts"), request("asr")]
    whole = engine.generate(requests)
    collected: dict[int, list[StreamEvent]] = {0: [], 1: []}
    for event in engine.stream(requests):
        collected[event.request].append(event)
    for number, events in collected.items():
        assert events[-1].result is not None and ids_of(events[-1].result) == ids_of(whole[number])
        pieces = [event.ids for event in events[:-1]]
        assert torch.cat(pieces).tolist() == list(chain(*ids_of(whole[number])))
        assert len(pieces) > 2

    session = engine.session()
    kept, dropped = session.add(request("tts")), session.add(request("asr", limits={"text": (400, 500)}))
    results = {}
    for step in range(100):
        if step == 3:
            session.cancel(dropped)
        for event in session.step():
            if event.result is not None:
                results[event.request] = event.result
        if not session.active:
            break
    assert ids_of(results[kept]) == ids_of(whole[0])
    assert [part.end for part in results[dropped].parts] == ["cancelled"]


def test_results_give_codes_and_text() -> None:
    spoken, heard = Engine(model(), builder()).generate([request("tts"), request("asr")])
    made = spoken.codes()
    assert made.reasoning.shape[:2] == (1, 8) and made.reconstruction.shape[:2] == (1, 8)
    assert spoken.text == "" and isinstance(heard.text, str)
    with pytest.raises(GenerationError, match="made no complete audio"):
        heard.codes()


def test_loop_guard() -> None:
    assert repeats([1, 2] * 6) == 2
    assert repeats([1] * 12) == 1
    assert repeats([1] * 11) == 0
    assert repeats(list(range(50))) == 0
    assert repeats([[1, 2]] * 40, text=False) == 1
    assert without_repeats([7, 8, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]) == [7, 8, 1, 2]


def test_loop_guard_ends_a_repeating_part() -> None:
    stuck = AudioLM(model().config).eval()
    stuck.load_state_dict(model().state_dict())
    stuck.text_head.weight.data.zero_()  # the first allowed id, whatever comes
    options = dict(limits={"text": (30, 60)})
    guarded, free = Engine(stuck, builder()).generate(
        [request("asr", **options), request("asr", loop_guard=False, **options)]
    )
    assert free.parts[0].ids.shape[0] >= 30 and len(set(free.parts[0].ids.tolist())) == 1
    assert guarded.parts[0].end == "loop"
    assert guarded.parts[0].ids.shape[0] == 1


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
        Engine(AudioLM(model().config), builder()).session()


def test_guidance_rows_hide_the_condition_but_not_the_begin_of_the_output() -> None:
    prompt: Prompt = builder().prompt("tts", inputs("tts"))
    assert prompt.guidance_tokens is not None
    changed = (prompt.tokens != prompt.guidance_tokens).any(dim=1)
    assert changed[:-1].all() and not changed[-1]  # all but the begin frame of the output
