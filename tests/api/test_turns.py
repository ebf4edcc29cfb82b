"""A recording in two languages is heard in turns, one in a single language whole."""

from collections.abc import Callable

import pytest
import torch

import uniaudio2.api.turns as turns
from tests.api.support import noise
from uniaudio2 import UniAudio2
from uniaudio2.api.turns import chinese_probabilities, language_turns
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.tasks import get_task

ASR = get_task("asr")


@pytest.mark.parametrize(
    ("chinese", "expected"),
    [
        ([0.01, 0.99, 0.98], [(0, 1), (1, 4)]),
        ([0.01, 0.02, 0.03], [(0, 4)]),
        ([0.99, 0.5, 0.01], [(0, 2), (2, 4)]),  # one that tells nothing goes with what is before it
        ([0.5, 0.99, 0.99], [(0, 4)]),
        ([0.99, 0.01, 0.99], [(0, 1), (1, 2), (2, 4)]),
    ],
)
def test_turns_follow_what_each_stretch_says(
    model: UniAudio2,
    monkeypatch: pytest.MonkeyPatch,
    chinese: list[float],
    expected: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(turns, "pauses", lambda *_: [SAMPLE_RATE, 2 * SAMPLE_RATE])
    monkeypatch.setattr(turns, "chinese_probabilities", lambda core, waves, row: chinese[: len(waves)])
    found = language_turns(model, noise(4.0), ASR, 0.3)
    assert found == [(start * SAMPLE_RATE, end * SAMPLE_RATE) for start, end in expected]


def test_a_stretch_is_judged_alone(model: UniAudio2) -> None:
    waves = [noise(0.6, 1), noise(1.5, 2)]
    together = chinese_probabilities(model, waves, ASR)
    alone = [chinese_probabilities(model, [wave], ASR)[0] for wave in waves]
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(0 < probability < 1 for probability in together)


def test_sound_without_pauses_stays_whole(model: UniAudio2, tone: Callable[..., torch.Tensor]) -> None:
    assert language_turns(model, tone(1.0), ASR, 0.3) == [(0, SAMPLE_RATE)]
