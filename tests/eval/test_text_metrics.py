import math

import numpy as np
import pytest

from uniaudio2.eval import text_metrics as t


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Don\u2019t STOP, 'quoted' well-known!", "en", "don't stop quoted well known"),
        ("  a\u00a0b ", "en", "a b"),
        ("\u4f60\u597d\uff0c \u4e16\u754c\u3002", "zh", "\u4f60\u597d\u4e16\u754c"),
        ("...", "en", ""),
    ],
)
def test_simple(text, language, expected):
    assert t.simple(text, language) == expected


def test_whisper_normaliser():
    pytest.importorskip("whisper_normalizer")
    assert t.whisper("Mr. Smith's colour, twenty one") == t.whisper("mister smith's color 21")


def test_known_error_rates():
    scores = t.score_texts(["the cat sat", "a dog"], ["the cat sit down", "a dog"])
    assert scores.wer.value == pytest.approx(2 / 5)
    assert scores.exact.value == 0.5
    assert scores.cer.value == pytest.approx((1 + 5) / (11 + 5))
    assert scores.wer.low <= scores.wer.value <= scores.wer.high


def test_normalisation_comes_before_scoring():
    assert t.score_texts(["Hello, World!"], ["hello world"]).wer.value == 0
    chinese = t.score_texts(["\u4f60 \u597d\u3002"], ["\u4f60\u574f"], language="zh")
    assert chinese.cer.value == 0.5


def test_empty_hypothesis_is_all_wrong_and_empty_reference_is_left_out():
    scores = t.score_texts(["one two", "!?"], ["", "three"])
    assert scores.wer.value == 1 and scores.wer.count == 1
    with pytest.raises(ValueError, match="empty reference"):
        t.count_errors("", "a")


def test_unknown_normaliser_and_unequal_lists():
    with pytest.raises(ValueError, match="known are simple, whisper"):
        t.score_texts(["a"], ["a"], normaliser="none")
    with pytest.raises(ValueError, match="2 references but 1"):
        t.score_texts(["a", "b"], ["a"])


def test_bootstrap_is_repeatable_and_narrows():
    few, many = t.ratio([0, 1] * 10, [1] * 20), t.ratio([0, 1] * 500, [1] * 1000)
    assert few == t.ratio([0, 1] * 10, [1] * 20)
    assert many.high - many.low < 0.1 < few.high - few.low
    assert math.isnan(t.ratio([], []).value)


def test_mean_counts_out_nan():
    rate = t.mean([1.0, math.nan, 3.0])
    assert rate.value == 2 and rate.count == 2


def test_wilson_interval():
    rate = t.accuracy([True] * 9 + [False])
    assert (rate.value, rate.low, rate.high) == (0.9, pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
    sure = t.accuracy([True] * 20)
    assert sure.high == 1 and 0.8 < sure.low < 1


def test_nearest_label():
    labels = ["zero", "one", "two", "smart mirror"]
    assert t.nearest_label("smart miror", labels) == "smart mirror"
    assert t.nearest_label("too", labels) == "two"


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a dog barking", {"dog_bark"}),
        ("Barking, then rain falling.", {"dog_bark", "rain"}),
        ("someone in the training room", set()),
        ("a crackling fire", {"fire_crackling"}),
        ("waves at the seashore", {"sea_waves"}),
    ],
)
def test_classes_named(caption, named):
    assert t.classes_named(caption) == named


def test_a_caption_that_names_everything_names_nothing():
    everything = " ".join(words[0] for words in t.CLASS_WORDS.values())
    assert t.classes_named(everything) == set(t.CLASS_WORDS)
    assert t.classes_named("rain falling") == {"rain"}


def voices_of(rng, count, each, spread):
    """Values of some voices around 0.4, each voice with its own mean; and whose they are."""
    means = rng.normal(0.4, spread, count)
    return list(rng.normal(np.repeat(means, each), 0.2)), [f"voice {i // each}" for i in range(count * each)]


def test_intervals_over_few_voices_hold_the_truth_where_those_over_utterances_do_not():
    """Six voices that differ: drawn by utterance an interval misses the mean of all voices every other time."""
    rng = np.random.default_rng(1)
    held = {"utterances": 0, "voices": 0}
    for _ in range(60):
        values, voices = voices_of(rng, 6, 15, spread=0.15)
        for name, clusters in (("utterances", None), ("voices", voices)):
            rate = t.mean(values, clusters=clusters)
            held[name] += rate.low <= 0.4 <= rate.high
    assert held["utterances"] < 40
    assert held["voices"] >= 52


def test_voices_that_do_not_differ_cost_little():
    rng = np.random.default_rng(2)
    values, voices = voices_of(rng, 40, 5, spread=0.0)
    plain, clustered = t.mean(values), t.mean(values, clusters=voices)
    assert clustered.clusters == 40 and plain.clusters == 0
    assert (clustered.high - clustered.low) / (plain.high - plain.low) == pytest.approx(1, abs=0.3)


def test_clusters_of_an_interval():
    values = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    assert t.mean(values, clusters=["a"] * 6) == t.mean(values)  # one voice: its utterances are drawn
    assert t.mean(values, clusters=[None] * 6) == t.mean(values)  # nobody is named
    assert t.mean(values, clusters=["a", "b", None, None, None, None]).clusters == 6  # unnamed: each its own
    alike = [0.0, 1.0] * 3
    assert t.mean(alike, clusters=list("aabbcc")).low == t.mean(alike).low  # three voices that happen to be alike
    both = t.mean(values, clusters=[("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("a", "c"), "d"])
    assert both.clusters == 4 and both.low < both.value < both.high
    assert t.mean([1.0, math.nan], clusters=["a", "b"]).clusters == 0  # only one is left
    with pytest.raises(ValueError, match="equal length"):
        t.ratio([1.0], [1.0], clusters=["a", "b"])


def test_accuracy_by_voice_is_never_narrower_than_wilson():
    right = [True] * 30
    assert t.accuracy(right, clusters=[f"v{i % 5}" for i in range(30)]).low == t.accuracy(right).low
    mixed = [i < 15 for i in range(30)]  # one half of the voices always right, the other never
    wide = t.accuracy(mixed, clusters=[f"v{i // 5}" for i in range(30)])
    assert wide.low < t.accuracy(mixed).low and wide.high > t.accuracy(mixed).high


def test_scores_of_texts_take_voices():
    scores = t.score_texts(["one two", "three", "", "four"], ["one too", "three", "x", "for"],
                         clusters=["a", "b", "a", "b"])  # fmt: skip
    assert scores.wer.clusters == scores.cer.clusters == scores.exact.clusters == 2
