"""Few-shot episodes: what they show, what they ask, and how they become sequences."""

from __future__ import annotations

import numpy as np
import pytest

from uniaudio2.data.episodes import LONGEST_S, Episodes, Labelled

RECORDINGS = [
    *(Labelled(f"dog{i}", "dog_bark", "esc10") for i in range(3)),
    *(Labelled(f"rain{i}", "rain", "esc10") for i in range(3)),
    *(Labelled(f"yes{i}", "yes", "speech_commands") for i in range(3)),
    Labelled("dog0", "dog_bark", "esc10"),  # a copy of the first
    Labelled("alone", "owl", "esc10"),
    Labelled("nameless", None, "esc10"),
]


def test_an_episode_shows_both_classes_and_never_what_it_asks_about() -> None:
    episodes = Episodes(RECORDINGS)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        index = int(rng.integers(10))
        shots = 1 + seed % 2
        episode = episodes.draw(index, rng, examples=shots)
        shown = [RECORDINGS[number] for number, _ in episode.examples]
        asked = RECORDINGS[index]
        assert asked.id not in {one.id for one in shown}
        labels = {one.label for one in shown}
        assert len(labels) == 2 and asked.label in labels
        assert len(shown) == 2 * shots or len({one.id for one in RECORDINGS if one.label in labels}) < 2 * shots + 2
        called = {RECORDINGS[number].label: name for number, name in episode.examples}
        assert episode.answer == called[asked.label] == str(asked.label).replace("_", " ")


def test_order_and_classes_vary() -> None:
    episodes = Episodes(RECORDINGS)
    drawn = [episodes.draw(0, np.random.default_rng(seed), examples=1) for seed in range(60)]
    first_is_right = [episode.examples[0][1] == episode.answer for episode in drawn]
    assert 15 < sum(first_is_right) < 45
    assert {name for episode in drawn for _, name in episode.examples} == {"dog bark", "rain", "yes"}


def test_classes_are_called_by_other_words_half_of_the_time() -> None:
    episodes = Episodes(RECORDINGS, ["apple", "river", "stone", "cloud"])
    drawn = [episodes.draw(0, np.random.default_rng(seed)) for seed in range(200)]
    renamed = [episode for episode in drawn if episode.answer != "dog bark"]
    assert 70 < len(renamed) < 130
    for episode in renamed:
        names = {name for _, name in episode.examples}
        assert len(names) == 2 and names <= {"apple", "river", "stone", "cloud"} and episode.answer in names


@pytest.mark.parametrize("index", [10, 11])
def test_a_class_of_one_and_no_class_are_not_asked_about(index: int) -> None:
    assert not Episodes(RECORDINGS).has(index)


def test_what_was_made_by_a_program_or_is_long_has_no_class() -> None:
    assert Labelled.of("a", "rain", None, 1.0, recorded=True).label == "rain"
    assert Labelled.of("a", "rain", None, 1.0, recorded=False).label is None
    assert Labelled.of("a", "rain", None, LONGEST_S + 0.1, recorded=True).label is None
