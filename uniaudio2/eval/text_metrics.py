"""What a text is worth beside the right one: normalisers, word and character error rates, accuracies, intervals.

Rates are pooled (summed errors over summed length); their 95 % intervals come from a bootstrap by utterance with a
fixed seed, so that a figure and its interval are the same each time. Knows nothing about models.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.count})"


def ratio(numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0) -> Rate:
    """Pooled ratio with a bootstrap interval over items; NaN if there are none."""
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.shape != bottom.shape or top.ndim != 1:
        raise ValueError(f"expected two lists of equal length, not {top.shape} and {bottom.shape}")
    if top.size == 0 or bottom.sum() == 0:
        return Rate(math.nan, math.nan, math.nan, int(top.size))
    rng = np.random.default_rng(seed)
    draws = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        chosen = rng.integers(0, top.size, top.size)
        below = bottom[chosen].sum()
        draws[index] = top[chosen].sum() / below if below else math.nan
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Rate(float(top.sum() / bottom.sum()), float(low), float(high), int(top.size))


def mean(values: Sequence[float], *, seed: int = 0) -> Rate:
    """Mean of the finite values with a bootstrap interval; ``count`` is the number of finite ones."""
    finite = [value for value in values if math.isfinite(value)]
    return ratio(finite, [1.0] * len(finite), seed=seed)


def accuracy(right: Sequence[bool]) -> Rate:
    """Share of right answers with Wilson's interval, which is sound at 0 %, at 100 % and for few items."""
    n, z = len(right), 1.959964
    if n == 0:
        return Rate(math.nan, math.nan, math.nan, 0)
    p = sum(map(bool, right)) / n
    centre, scale = (p + z * z / (2 * n)) / (1 + z * z / n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return Rate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)


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
    seed: int = 0,
) -> TextScores:
    """Error rates of transcripts; references that are empty after normalisation are left out.

    Args:
        references: What was said.
        hypotheses: What was recognised, one for each reference.
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        normaliser: A name in `NORMALISERS`, applied to both.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If the lists differ in length or the normaliser is unknown.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} transcripts")
    normalise = get_normaliser(normaliser)
    pairs = [(normalise(r, language), normalise(h, language)) for r, h in zip(references, hypotheses, strict=True)]
    pairs = [pair for pair in pairs if pair[0]]
    errors = [count_errors(*pair) for pair in pairs]
    return TextScores(
        ratio([e.word_errors for e in errors], [e.words for e in errors], seed=seed),
        ratio([e.char_errors for e in errors], [e.chars for e in errors], seed=seed),
        accuracy([r == h for r, h in pairs]),
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
    """All classes that a caption names.

    Choice: a caption that lists every class would name the right one, so that `names_class` asks for the class alone.
    """
    text = f" {simple(caption)} ".replace("'", " ")
    return frozenset(label for label, words in classes.items() if any(f" {word} " in text for word in words))


def names_class(caption: str, label: str, classes: Mapping[str, Sequence[str]] = CLASS_WORDS) -> bool:
    """Whether a caption names this class and no other."""
    return classes_named(caption, classes) == {label}
