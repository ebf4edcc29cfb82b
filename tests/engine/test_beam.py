"""Beam search: greedy with one hypothesis, the likeliest of all texts with enough of them, renderings that count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.engine.support import builder, codes, ids_of, model, request
from uniaudio2.engine import Engine, GenerationError
from uniaudio2.engine.beam import _Search, _Step, beam_search
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import Prompt


def engine() -> Engine:
    return Engine(model(), builder())


def heard(size: int, seed: int) -> Prompt:
    return builder().prompt("asr", {"audio": codes(size, seed=seed)})


@torch.no_grad()
def agreed(prompts: list[Prompt], ids: list[int]) -> torch.Tensor:
    """Log probabilities (V,) of what follows a text, by the full forward over every rendering."""
    each = []
    for prompt in prompts:
        rows = builder().text_rows(ids)
        tokens = torch.cat((prompt.tokens, rows[0], prompt.tokens[:1]))[None]
        mask = torch.cat((prompt.mask, rows[1], prompt.mask[:1]))[None]
        each.append(model()(tokens, mask).text_logits[0, len(prompt) - 1 + len(ids)].softmax(dim=-1))
    return torch.stack(each).mean(dim=0).log()


def searched_without_caches(prompts: list[Prompt], beams: int, least: int, most: int) -> list[int]:
    """What a beam search finds, every text read from its beginning."""
    phase = prompts[0].phases[0]
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    while live and len(live[0][1]) < most:
        candidates = []
        for total, ids in live:
            following = agreed(prompts, ids)
            following[list(phase.forbidden)] = -torch.inf
            if len(ids) < least:
                following[phase.eos] = -torch.inf
            candidates += [(total + float(value), [*ids, token]) for token, value in enumerate(following)]
        candidates = sorted(candidates, reverse=True)[: 2 * beams]
        ended += [(total / len(ids), ids[:-1]) for total, ids in candidates[:beams] if ids[-1] == phase.eos]
        live = [(total, ids) for total, ids in candidates if ids[-1] != phase.eos][:beams]
        if len(ended) >= beams and max(ended)[0] >= live[0][0] / len(live[0][1]):
            break
    return max(ended or [(total / len(ids), ids) for total, ids in live])[1]


@pytest.mark.parametrize(("beams", "count"), [(2, 1), (2, 3), (4, 2)])
def test_search_is_what_reading_every_text_anew_says(beams: int, count: int) -> None:
    lengths = [(4, 7, 5), (6, 3, 8)]
    prompts = [[heard(size, 10 * row + size) for size in sizes[:count]] for row, sizes in enumerate(lengths)]
    asked = [replace(request("asr", limits={"text": (6, 12)}), prompt=each[0], loop_guard=False) for each in prompts]
    found = beam_search(engine(), asked, renderings=[each[1:] for each in prompts], beams=beams)
    expected = [searched_without_caches(each, beams, 6, 12) for each in prompts]
    assert [one.parts[0].ids.tolist() for one in found] == expected
    assert len({tuple(ids) for ids in expected}) == 2


def test_an_unlikely_end_does_not_stop_a_likely_text() -> None:
    phase = heard(2, 1).phases[0]
    a, b, c, eos = 20, 21, 22, phase.eos
    search = _Search(phase, 20, 2, True)
    search.extend([_Step(0, a, -0.01), _Step(0, eos, -6.0), _Step(0, b, -7.0)])
    search.extend([_Step(0, b, -0.02), _Step(0, eos, -6.1), _Step(1, c, -9.0), _Step(1, a, -9.5)])
    assert not search.done and search.live[0].ids == [a, b]
    search.extend([_Step(0, eos, -0.03), _Step(0, c, -8.0), _Step(1, c, -9.9)])
    assert search.done and search.best().ids == [a, b]


def test_renderings_count() -> None:
    alone = [ids_of(one) for one in beam_search(engine(), [request("asr", size) for size in (3, 5, 7)], beams=2)]
    same = [[request("asr", size).prompt] * 2 for size in (3, 5, 7)]
    assert [
        ids_of(one)
        for one in beam_search(engine(), [request("asr", size) for size in (3, 5, 7)], renderings=same, beams=2)
    ] == alone
    others = [[heard(size + 1, 40 + size)] for size in (3, 5, 7)]
    assert [
        ids_of(one)
        for one in beam_search(engine(), [request("asr", size) for size in (3, 5, 7)], renderings=others, beams=2)
    ] != alone


def test_a_text_that_repeats_itself_is_cut() -> None:
    stuck = AudioLM(model().config).eval()
    stuck.load_state_dict(model().state_dict())
    stuck.text_head.weight.data.zero_()  # the first allowed ids, whatever comes
    asked = request("asr", limits={"text": (40, 40)})
    text = beam_search(Engine(stuck, builder()), [asked], beams=1)[0].parts[0]
    assert text.end == "loop" and text.ids.shape[0] == 1
    text = beam_search(Engine(stuck, builder()), [replace(asked, loop_guard=False)], beams=1)[0].parts[0]
    assert text.end == "length" and text.ids.shape[0] == 40


def test_nothing_may_be_said() -> None:
    asked = [request("asr", limits={"text": (0, 0)}), request("asr", 5)]
    nothing, something = beam_search(engine(), asked, beams=2)
    assert nothing.parts[0].ids.shape[0] == 0 and nothing.parts[0].end == "length"
    assert ids_of(something) == ids_of(beam_search(engine(), asked[1:], beams=2)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(requests=[request("tts")]), "makes one text"),
        (dict(requests=[request("asr")], beams=0), "at least 1"),
        (dict(requests=[request("asr", limits={"text": (0, 5000)})]), "shorten the input"),
        (dict(requests=[request("asr")] * 2, renderings=[[], [heard(2, 1)]]), "same number"),
        (dict(requests=[request("asr")], renderings=[]), "same number"),
        (dict(requests=[request("asr")], renderings=[[request("audio_caption").prompt]]), "request's task"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        beam_search(engine(), **options)


def test_no_requests() -> None:
    assert beam_search(engine(), []) == []
