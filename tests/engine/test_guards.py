"""Texts and sounds that repeat themselves are cut."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.support import builder, model, request
from uniaudio2.engine import Engine
from uniaudio2.engine.guards import repeats, without_repeats
from uniaudio2.lm import AudioLM


def test_loop_guard() -> None:
    assert repeats([1, 2] * 6) == 2
    assert repeats([1] * 12) == 1
    assert repeats([1] * 11) == 0
    assert repeats(list(range(50))) == 0
    assert repeats([[1, 2]] * 40, text=False) == 1
    assert without_repeats([7, 8, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]) == [7, 8, 1, 2]


@pytest.mark.parametrize("sync_every", [1, 3, 8])
def test_loop_guard_ends_a_repeating_part(sync_every: int) -> None:
    stuck = AudioLM(model().config).eval()
    stuck.load_state_dict(model().state_dict())
    stuck.text_head.weight.data.zero_()  # the first allowed id, whatever comes
    options: dict[str, Any] = dict(limits={"text": (30, 60)})
    guarded, free = Engine(stuck, builder(), sync_every=sync_every).generate(
        [request("asr", **options), request("asr", loop_guard=False, **options)]
    )
    assert free.parts[0].ids.shape[0] >= 30 and len(set(free.parts[0].ids.tolist())) == 1
    assert guarded.parts[0].end == "loop"
    assert guarded.parts[0].ids.shape[0] == 1


@pytest.mark.parametrize("sync_every", [1, 3, 8])
@pytest.mark.parametrize("reasoning", [2, 3, 4, 5])
def test_loop_guard_ends_repeating_audio_whatever_came_before(sync_every: int, reasoning: int) -> None:
    stuck = AudioLM(model().config).eval()
    stuck.load_state_dict(model().state_dict())
    stuck.depth.heads.data.zero_()  # type: ignore[union-attr]  # the first allowed id, whatever comes
    limits = {"reasoning": (reasoning, reasoning), "reconstruction": (40, 90)}
    made = Engine(stuck, builder(), sync_every=sync_every).generate(
        [request("tts", limits=limits, match_lengths=False)]
    )[0]
    assert [part.end for part in made.parts] == ["length", "loop"]
    assert 40 <= made.parts[1].ids.shape[0] < 60
