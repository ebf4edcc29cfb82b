"""CIDEr-D against figures of the code that was published with it."""

from __future__ import annotations

import math

import pytest

from uniaudio2.eval.caption_metrics import Cider, names_label

REFERENCES = [
    ["a dog barks in the rain", "a dog is barking while rain falls"],
    ["people talk near water"],
    ["cars pass by loudly and people talk", "traffic passes by", "cars on a road"],
]


def test_figures_of_the_first_code():
    """`pycocoevalcap` 1.2 (n = 4, sigma = 6) on the same words."""
    cider = Cider(REFERENCES)
    captions = ["a dog barks while people talk", "people talk near water", "loud cars pass by on a road"]
    found = [cider.score(text, own) for text, own in zip(captions, REFERENCES, strict=True)]
    assert found == pytest.approx(PUBLISHED, abs=1e-4)


PUBLISHED = [2.3237, 10.0, 2.1669]


def test_what_it_must_keep_to():
    cider = Cider(REFERENCES)
    assert cider.score("People talk near water!", REFERENCES[1]) == pytest.approx(10)
    assert cider.score("", REFERENCES[0]) == 0 and cider.score("silence", REFERENCES[0]) == 0
    once, often = (cider.score(text, REFERENCES[1]) for text in ("water", "water water water water water water"))
    assert 0 < often < once  # repeating a word gains nothing
    assert math.isnan(Cider(REFERENCES[:1]).score("a dog", REFERENCES[0]))


@pytest.mark.parametrize(
    ("label", "caption", "named"),
    [("dog_bark", "a puppy", True), ("tabla_loop", "a loop of a tabla", True), ("tabla_loop", "a tabla", False)],
)
def test_classes_are_named_by_their_words(label, caption, named):
    assert names_label(label, caption) is named
