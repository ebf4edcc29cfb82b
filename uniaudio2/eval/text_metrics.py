"""What a text is worth beside the right one: normalisers, word and character error rates, accuracies, intervals.

Rates are pooled (summed errors over summed length). Their 95 % intervals come from a bootstrap with a fixed seed, so
that a figure and its interval are the same each time. It draws utterances, or whole voices or source recordings where
those are what a figure speaks about (``clusters``). Knows nothing about models.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniaudio2.errors import UserError
from uniaudio2.eval.audio_metrics import need

RESAMPLES = 2000
"""Draws of every bootstrap."""

_APOSTROPHES = re.compile(r"[\u2018\u2019\u02bc`\u00b4]")
_NOT_TEXT = re.compile(r"[^\w' ]|_")
_LONE_APOSTROPHE = re.compile(r"(?<!\w)'+|'+(?!\w)")


def simple(text: str, language: str = "en") -> str:
    """Lower case, no punctuation but apostrophes inside words, single spaces; Chinese without any space."""
    text = _APOSTROPHES.sub("'", unicodedata.normalize("NFKC", text)).lower()
    words = _LONE_APOSTROPHE.sub(" ", _NOT_TEXT.sub(" ", text)).split()
    return " ".join(words) if language == "en" else "".join(words)


def whisper(text: str, language: str = "en") -> str:
    """The normaliser that published word error rates use (fillers, spellings, numbers as digits).

    Raises:
        ValueError: If whisper-normalizer is not installed.
    """
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise need("whisper-normalizer") from error
    if language == "en":
        return EnglishTextNormalizer()(text)
    return BasicTextNormalizer()(text).replace(" ", "")


def simplified(text: str, language: str) -> str:
    """Chinese in simplified script, so that a recogniser's choice of script is no error; other texts as they are."""
    return text if language == "en" else _to_simplified().normalize(text)


@functools.cache
def _to_simplified() -> Any:
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn", traditional_to_simple=True, remove_erhua=False, full_to_half=True)


NORMALISERS: dict[str, Callable[[str, str], str]] = {"simple": simple, "whisper": whisper}
"""Text normalisers by name; every report names the one it used."""


@dataclass(frozen=True)
class Rate:
    """A figure with its 95 % interval.

    Attributes:
        value: Summed numerator over summed denominator, or a mean.
        low: Lower end of the interval.
        high: Upper end.
        count: Utterances (or clips) it rests on.
        clusters: Voices or recordings that were drawn for the interval; 0 where every item was drawn by itself.
    """

    value: float
    low: float
    high: float
    count: int
    clusters: int = 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.count})"


Cluster = str | tuple[str, ...] | None
"""What an item belongs to: a voice or a recording, several where it is made of several; None is an item of its own."""


def ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    clusters: Sequence[Cluster] | None = None,
    seed: int = 0,
) -> Rate:
    """Pooled ratio with a bootstrap interval; NaN if there are no items.

    Args:
        numerators: One for each item, such as its errors.
        denominators: One for each item, such as its words.
        clusters: What each item belongs to. Clusters are then drawn instead of items, since items of one voice are
            alike and tell less about another voice than as many voices would. An item of several clusters counts as
            often as the product of their draws. The interval is never narrower than that of items, since three voices
            that happen to be alike say little. With fewer than two clusters items alone are drawn.
        seed: Seed of the draws.

    Raises:
        ValueError: If the lists differ in length.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or (clusters is not None and len(clusters) != top.size):
        raise ValueError(f"expected lists of equal length, not {top.shape}, {bottom.shape} and {len(clusters or ())}")
    if top.size == 0 or bottom.sum() == 0:
        return Rate(math.nan, math.nan, math.nan, int(top.size))
    rng = np.random.default_rng(seed)
    chosen = (rng.integers(0, top.size, top.size) for _ in range(RESAMPLES))
    low, high = _interval([(top[draw].sum(), bottom[draw].sum()) for draw in chosen], 0.025)
    members, units = _members(clusters)
    if units:
        drawn = (np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(RESAMPLES))
        weights = [np.append(counts, 1)[members].prod(axis=1) for counts in drawn]
        wide = _interval([((weight * top).sum(), (weight * bottom).sum()) for weight in weights], _tail(units))
        low, high = min(low, wide[0]), max(high, wide[1])
    return Rate(float(top.sum() / bottom.sum()), low, high, int(top.size), units)


def _interval(draws: Sequence[tuple[float, float]], tail: float) -> tuple[float, float]:
    """Quantiles of the drawn ratios; draws whose denominators are all zero are left out."""
    values = [above / below if below else math.nan for above, below in draws]
    low, high = np.nanquantile(values, (tail, 1 - tail))
    return float(low), float(high)


def _members(clusters: Sequence[Cluster] | None) -> tuple[NDArray[np.int64], int]:
    """Indices of every item's clusters (items, most clusters of one), filled up with the number of clusters."""
    if clusters is None or not any(clusters):
        return np.zeros((0, 0), np.int64), 0
    own = [(name,) if isinstance(name, str) else name or (f"item {i}",) for i, name in enumerate(clusters)]
    number = {name: index for index, name in enumerate(sorted({name for names in own for name in names}))}
    if len(number) < 2:
        return np.zeros((0, 0), np.int64), 0
    members = np.full((len(own), max(map(len, own))), len(number))
    for row, names in zip(members, own, strict=True):
        row[: len(names)] = [number[name] for name in names]
    return members, len(number)


def _tail(units: int) -> float:
    """Quantile of the draws at which a 95 % interval of few units begins.

    A bootstrap of k units is too narrow by sqrt((k - 1) / k), and takes the normal distribution for Student's. Source:
    the expanded percentile interval (T. Hesterberg, 2015, The American Statistician 69). Student's quantile by the
    Cornish-Fisher series, which is within 1 % from three degrees of freedom.
    """
    z, v = 1.959964, units - 1
    student = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    student += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return NormalDist().cdf(-student * math.sqrt(units / v))


def mean(values: Sequence[float], *, clusters: Sequence[Cluster] | None = None, seed: int = 0) -> Rate:
    """Mean of the finite values with a bootstrap interval; ``count`` is the number of finite ones."""
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    own = None if clusters is None else [clusters[index] for index in finite]
    return ratio([values[index] for index in finite], [1.0] * len(finite), clusters=own, seed=seed)


def accuracy(right: Sequence[bool], *, clusters: Sequence[Cluster] | None = None) -> Rate:
    """Share of right answers with Wilson's interval, which is sound at 0 %, at 100 % and for few items.

    With ``clusters`` the interval is the bootstrap's over clusters where that is wider.
    """
    n, z = len(right), 1.959964
    if n == 0:
        return Rate(math.nan, math.nan, math.nan, 0)
    p = sum(map(bool, right)) / n
    centre, scale = (p + z * z / (2 * n)) / (1 + z * z / n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    rate = Rate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)
    if clusters is None:
        return rate
    wide = ratio([float(ok) for ok in right], [1.0] * n, clusters=clusters)
    if not wide.clusters:
        return rate
    return replace(rate, low=min(rate.low, wide.low), high=max(rate.high, wide.high), clusters=wide.clusters)


@dataclass(frozen=True)
class Errors:
    """Edit errors of one utterance.

    Attributes:
        word_errors: Substitutions, deletions and insertions of words.
        words: Words of the reference.
        char_errors: The same for characters (spaces count in English, as in jiwer).
        chars: Characters of the reference.
    """

    word_errors: int
    words: int
    char_errors: int
    chars: int


def count_errors(reference: str, hypothesis: str) -> Errors:
    """Edit errors of two normalised texts by jiwer.

    Raises:
        ValueError: If the reference is empty, or jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise need("jiwer") from error
    if not reference:
        raise UserError("an empty reference has no error rate; leave the utterance out")
    words = jiwer.process_words(reference, hypothesis)
    chars = jiwer.process_characters(reference, hypothesis)
    return Errors(
        words.substitutions + words.deletions + words.insertions,
        words.substitutions + words.deletions + words.hits,
        chars.substitutions + chars.deletions + chars.insertions,
        chars.substitutions + chars.deletions + chars.hits,
    )


@dataclass(frozen=True)
class TextScores:
    """Scores of a set of transcripts.

    Attributes:
        wer: Word error rate; for Chinese, which has no spaces, the share of wrong sentences in effect.
        cer: Character error rate.
        exact: Share of transcripts that equal their reference after normalisation.
    """

    wer: Rate
    cer: Rate
    exact: Rate


def score_texts(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    language: str = "en",
    normaliser: str = "simple",
    clusters: Sequence[Cluster] | None = None,
    seed: int = 0,
) -> TextScores:
    """Error rates of transcripts; references that are empty after normalisation are left out.

    Args:
        references: What was said.
        hypotheses: What was recognised, one for each reference.
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        normaliser: A name in `NORMALISERS`, applied to both.
        clusters: Voice of each transcript, see `ratio`.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If the lists differ in length or the normaliser is unknown.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} transcripts")
    normalise = get_normaliser(normaliser)
    pairs = [(normalise(r, language), normalise(h, language)) for r, h in zip(references, hypotheses, strict=True)]
    kept = [index for index, pair in enumerate(pairs) if pair[0]]
    errors = [count_errors(*pairs[index]) for index in kept]
    own = None if clusters is None else [clusters[index] for index in kept]
    return TextScores(
        ratio([e.word_errors for e in errors], [e.words for e in errors], clusters=own, seed=seed),
        ratio([e.char_errors for e in errors], [e.chars for e in errors], clusters=own, seed=seed),
        accuracy([pairs[index][0] == pairs[index][1] for index in kept], clusters=own),
    )


def get_normaliser(name: str) -> Callable[[str, str], str]:
    """The normaliser of that name; raises ValueError naming the known ones."""
    if name not in NORMALISERS:
        raise UserError(f"unknown normaliser {name!r}; known are {', '.join(NORMALISERS)}")
    return NORMALISERS[name]


def nearest_label(hypothesis: str, labels: Sequence[str]) -> str:
    """The label with the fewest character errors relative to its length: recognition constrained to a list.

    Both must be normalised. Ties go to the earlier label.
    """
    if not labels:
        raise ValueError("no labels given")
    return min(labels, key=lambda label: count_errors(label, hypothesis).char_errors / len(label))


CLASS_WORDS: Mapping[str, tuple[str, ...]] = {
    "baby_cry": ("baby", "babies", "infant", "newborn", "toddler"),
    "chainsaw": ("chainsaw", "chain saw", "chainsaws"),
    "clock_tick": ("clock", "tick", "ticks", "ticking", "tick tock", "watch"),
    "dog_bark": ("dog", "dogs", "bark", "barks", "barking", "puppy", "hound"),
    "fire_crackling": ("fire", "fireplace", "bonfire", "campfire", "flames", "burning", "crackling", "crackles"),
    "helicopter": ("helicopter", "helicopters", "chopper", "rotor"),
    "person_sneeze": ("sneeze", "sneezes", "sneezing", "achoo"),
    "rain": ("rain", "rains", "raining", "rainfall", "raindrops", "rainstorm", "downpour"),
    "rooster": ("rooster", "roosters", "cock", "cockerel", "crow", "crows", "crowing", "cock a doodle doo"),
    "sea_waves": ("wave", "waves", "sea", "ocean", "surf", "seashore", "shore", "beach"),
}
"""Words (or phrases) that name each ESC-10 class in a caption; whole words only."""


def classes_named(caption: str, classes: Mapping[str, Sequence[str]] = CLASS_WORDS) -> frozenset[str]:
    """All classes that a caption names."""
    text = f" {simple(caption)} ".replace("'", " ")
    return frozenset(label for label, words in classes.items() if any(f" {word} " in text for word in words))
