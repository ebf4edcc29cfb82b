"""Beam search: greedy with one hypothesis, the likeliest of all texts with enough of them, renderings that count."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.test_generate import builder, codes, ids_of, model, request
from uniaudio2.beam import beam_search
from uniaudio2.generate import Engine, GenerationError
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import Prompt


def engine() -> Engine:
    return Engine(model(), builder())


def heard(size: int, seed: int) -> Prompt:
    return builder().prompt("asr", {"audio": codes(size, seed=seed)})


@torch.no_grad()
def probabilities(prompt: Prompt, ids: list[int]) -> torch.Tensor:
    """Of every id at each place of a text and behind it, (n + 1, V), by the full forward."""
    rows = builder().text_rows(ids)
    tokens = torch.cat((prompt.tokens, rows[0], prompt.tokens[:1]))[None]
    mask = torch.cat((prompt.mask, rows[1], prompt.mask[:1]))[None]
    logits = model()(tokens, mask).text_logits[0, len(prompt) - 1 : len(prompt) + len(ids)]
    return logits.softmax(dim=-1)


def score(prompts: list[Prompt], ids: list[int], *, whole: bool = True) -> float:
    """Nats per id of a text, the end included where it is whole, by the mean of the renderings' probabilities."""
    mean = torch.stack([probabilities(prompt, ids) for prompt in prompts]).mean(dim=0)
    said = [*ids, prompts[0].phases[0].eos] if whole else ids
    return float(sum(mean[place, token].log() for place, token in enumerate(said))) / len(said)


def test_one_hypothesis_is_greedy_generation() -> None:
    requests = [request("asr", size) for size in (2, 5, 9)] + [request("audio_caption", 4)]
    assert [ids_of(one) for one in beam_search(engine(), requests, beams=1)] == [
        ids_of(one) for one in engine().generate(requests)
    ]


def test_batched_equals_single() -> None:
    requests = [request("asr", 2), request("asr", 9, limits={"text": (1, 12)}), request("audio_caption", 4)]
    renderings = [[heard(3, 1)], [heard(8, 2)], [heard(4, 3)]]
    batch = beam_search(engine(), requests, renderings=renderings, beams=3)
    for one, others, whole in zip(requests, renderings, batch, strict=True):
        alone = beam_search(engine(), [one], renderings=[others], beams=3)[0]
        assert ids_of(alone) == ids_of(whole)
        assert [part.end for part in alone.parts] == [part.end for part in whole.parts]


@pytest.mark.parametrize("count", [1, 3])
def test_wide_search_finds_the_likeliest_of_all_texts(count: int) -> None:
    prompts = [heard(size, size) for size in (4, 6, 5)[:count]]
    phase = prompts[0].phases[0]
    allowed = [token for token in range(16) if token not in phase.forbidden and token != phase.eos]
    few = replace(phase, forbidden=tuple(token for token in range(300) if token not in (*allowed, phase.eos)))
    asked = replace(request("asr", limits={"text": (0, 2)}), prompt=replace(prompts[0], phases=(few,)))
    found = beam_search(engine(), [asked], renderings=[prompts[1:]], beams=len(allowed) ** 2 + len(allowed) + 1)[0]
    texts = [list(ids) for length in (0, 1) for ids in itertools.product(allowed, repeat=length)]
    best = max(
        [(score(prompts, ids), ids) for ids in texts]
        + [(score(prompts, list(ids), whole=False), list(ids)) for ids in itertools.product(allowed, repeat=2)]
    )
    assert found.parts[0].ids.tolist() == best[1]


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
    text = beam_search(Engine(stuck, builder()), [request("asr", limits={"text": (40, 40)})], beams=1)[0].parts[0]
    assert text.end == "loop" and text.ids.shape[0] < 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(requests=[request("tts")]), "makes one text"),
        (dict(requests=[request("asr")], beams=0), "at least 1"),
        (dict(requests=[request("asr", limits={"text": (0, 5000)})]), "shorten the input"),
        (dict(requests=[request("asr")] * 2, renderings=[[], [heard(2, 1)]]), "same number"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        beam_search(engine(), **options)


def test_no_requests() -> None:
    assert beam_search(engine(), []) == []
