"""The frame loop: batched equals single, cached equals full, every option matters, parts come out as they should."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch

from tests.engine.support import GREEDY, LIMITS, builder, ids_of, inputs, mixed_requests, model, request
from uniaudio2.devices import threads_for
from uniaudio2.engine import Engine, GenerationError, GenerationRequest, SamplingConfig, StreamEvent
from uniaudio2.engine.session import Generation
from uniaudio2.lm import AudioLM
from uniaudio2.lm.model import LMCache
from uniaudio2.lm.quantize import quantize_weights
from uniaudio2.tasks import TASKS


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_row_runs(task: str) -> None:
    result = Engine(model(), builder()).generate([request(task)])[0]
    assert [(part.kind, part.value) for part in result.parts] == [
        (part.kind, part.value) for part in builder().expand(TASKS[task].outputs)
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


def test_looking_at_the_device_less_often_changes_nothing() -> None:
    plain = [ids_of(result) for result in Engine(model(), builder()).generate(mixed_requests())]
    rarely = Engine(model(), builder(), sync_every=4)  # cannot tell parts apart: works out the logits of all ids
    assert [ids_of(result) for result in rarely.generate(mixed_requests())] == plain


def test_frames_that_are_compiled_begin_at_the_first_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that begins elsewhere would be other code, made while somebody waits."""
    views, pick = [], LMCache.pick

    def noted(self: LMCache, slots: Sequence[int]) -> LMCache:
        views.append(list(slots))
        return pick(self, slots)

    monkeypatch.setattr(LMCache, "pick", noted)
    requests = [request("asr", 2, limits={"text": (n, n)}) for n in (3, 12, 6)]
    plain = [ids_of(result) for result in Engine(model(), builder()).generate(requests)]
    assert any(slots[0] > 0 for slots in views)
    views.clear()
    engine = Engine(model(), builder())
    engine.compiled = True  # the batches are those of compiled code, which is not made
    assert [ids_of(result) for result in engine.generate(requests)] == plain
    assert views and all(slots == list(range(len(slots))) for slots in views)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_compiled_equals_plain() -> None:
    plain = Engine(model(), builder())
    heads = model().depth.heads.clone()
    compiled = Engine(model(), builder(), compile=True)
    requests = [request("speech_s2s", 4)]  # other code than for rows at different positions, which test_tasks.py has
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
    with pytest.raises(GenerationError, match="made no audio"):
        heard.codes()


@torch.no_grad()
def test_text_carries_its_log_probability() -> None:
    prompt = builder().prompt("asr", inputs("asr"))
    asked = request("asr", sampling=SamplingConfig(temperature=3.0), limits={"text": (3, 9)}, loop_guard=False)
    part, other = (result.parts[0] for result in Engine(model(), builder()).generate([asked, request("tts")]))
    assert part.end in ("end", "length") and part.log_probability is not None and other.log_probability is None
    rows = builder().text_rows([*part.ids.tolist(), *([model().config.text.eos] if part.end == "end" else []), 0])
    tokens, mask = (torch.cat(pair)[None] for pair in zip((prompt.tokens, prompt.mask), rows, strict=True))
    scores = model()(tokens, mask).text_logits[0, len(prompt) - 1 :].log_softmax(-1)
    said = scores.gather(1, tokens[0, len(prompt) : -1, -1:])
    assert part.log_probability == pytest.approx(float(said.mean()), abs=1e-4)


# -- several threads


def many(count: int) -> list[GenerationRequest]:
    """Requests of many kinds, lengths, settings."""
    tasks = ["asr", "tts", "audio_caption", "tta", "speech_s2s", "text_only"]
    found = []
    for number in range(count):
        task = tasks[number % len(tasks)]
        sampling = GREEDY if number % 3 else SamplingConfig(temperature=0.9, top_k=20)
        limits = {"text": (1, 3 + number % 7), "reasoning": (1, 1 + number % 4), "reconstruction": (1, 12)}
        scale = 1.5 if task == "tts" and number % 2 else 1.0
        found.append(request(task, 1 + number % 5, sampling=sampling, seed=number, limits=limits, guidance_scale=scale))
    return found


def test_four_threads_get_the_answers_of_one() -> None:
    asked = many(200)
    engine = Engine(model(), builder(), max_batch=8)
    alone = [ids_of(engine.generate([each])[0]) for each in asked]
    engine.generate(asked[:8])
    cache = engine._session._cache
    assert cache is not None
    places = [tensor.data_ptr() for tensor in (*cache.backbone.keys, *cache.backbone.values)]
    found: dict[int, Any] = {}

    def work(which: int) -> None:
        mine = list(range(which, 200, 4))
        if which == 0:  # one by one, frame by frame
            for number in mine:
                found[number] = list(engine.stream(asked[number]))[-1].result
        else:
            for first in range(0, len(mine), 5 * which):
                part = mine[first : first + 5 * which]
                found.update(zip(part, engine.generate([asked[number] for number in part]), strict=True))

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert [ids_of(found[number]) for number in range(200)] == alone
    assert cache is engine._session._cache  # neither copied nor grown
    assert places == [tensor.data_ptr() for tensor in (*cache.backbone.keys, *cache.backbone.values)]
    assert not engine._owners and not engine._orders and not engine._session.active


def test_a_handle_is_cancelled_and_a_closed_stream_frees_its_place() -> None:
    engine = Engine(model(), builder(), max_batch=2)
    endless = {"text": (1500, 1600)}
    events = engine.stream([request("asr", limits=endless), request("asr", limits=endless)])
    assert next(events).result is None
    waiting = engine.submit(request("asr"))
    events.close()
    assert [ids_of(waiting.result())] == [ids_of(engine.generate([request("asr")])[0])]
    assert not engine._session.active
    handle = engine.submit([request("asr", limits=endless), request("asr")], streaming=True)
    for event in handle:
        if event.request == 0 and event.result is None:
            handle.cancel(0)
    first, second = handle.results()
    assert [part.end for part in first.parts] == ["cancelled"] and second.complete
    early = engine.submit([request("asr")] * 3)
    early.cancel()
    assert [len(result.parts) for result in early.results()] == [0, 0, 0]


def test_a_failed_step_is_told_to_everyone_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model(), builder())
    expected = ids_of(engine.generate([request("tts")])[0])
    other = engine.submit(request("asr", limits={"text": (500, 600)}))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "model_step", lambda *_, **__: (_ for _ in ()).throw(MemoryError("no room")))
        with pytest.raises(MemoryError, match="no room"):
            engine.generate([request("tts")])
    with pytest.raises(GenerationError, match="stopped by another request.*no room"):
        other.results()
    assert ids_of(engine.generate([request("tts")])[0]) == expected


def test_an_interrupted_call_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model(), builder())

    def interrupted(handle: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.generate([request("asr", limits={"text": (1500, 1600)})])
    assert ids_of(engine.generate([request("tts")])[0]) and not engine._session.active


def test_nothing_is_handed_in_when_one_request_cannot_be_served() -> None:
    engine = Engine(model(), builder())
    with pytest.raises(GenerationError, match="shorten the input"):
        engine.submit([request("asr"), request("asr", limits={"text": (1, 5000)})])
    assert not engine._orders
    assert engine.generate([]) == []


def test_a_small_model_steps_on_one_thread_and_leaves_torchs_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before, step = torch.get_num_threads(), Generation.step
    monkeypatch.setattr(Generation, "step", lambda self: (seen.append(torch.get_num_threads()), step(self))[1])
    torch.set_num_threads(2)
    try:
        Engine(model(), builder()).generate([request("asr")])
        assert set(seen) == {1} and torch.get_num_threads() == 2
        with threads_for(4096, torch.device("cpu")):
            assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError), threads_for(64, torch.device("cpu")):
            raise RuntimeError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
