"""What a caption is worth beside the right ones: CIDEr-D, and whether it names a class.

CIDEr-D: cosines of tf-idf vectors of 1- to 4-grams, clipped, times a penalty for another length, times ten. Source:
R. Vedantam and others, 2015 (arXiv:1411.5726). Choice: `text_metrics.simple` divides the words, where the first code
runs a Java tokeniser and stems nothing either.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from uniaudio2.eval.text_metrics import CLASS_WORDS, classes_named, simple

LONGEST, SIGMA = 4, 6.0
Grams = Counter[tuple[str, ...]]


def names_label(label: str, caption: str) -> bool:
    """Whether a caption names a class.

    A class of ESC-10 is named by any of its words (`text_metrics.CLASS_WORDS`), another one by its label's own words,
    each of them (``tabla_loop``: "tabla" and "loop").
    """
    if label in CLASS_WORDS:
        return label in classes_named(caption)
    return set(re.split(r"[\W_]+", label.lower())) <= set(simple(caption).split())


class Cider:
    """CIDEr-D of captions of a set of clips.

    Args:
        references: The right captions of each clip. How rare a phrase is, is counted over the clips.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._clips = len(references)
        self._seen: Grams = Counter(
            gram for own in references for gram in {gram for text in own for gram in _grams(text)}
        )

    def score(self, caption: str, references: Sequence[str]) -> float:
        """The figure of one caption, 0 to 10; NaN where there is one clip only, whose phrases are all equally rare."""
        if self._clips < 2 or not references:
            return math.nan
        hypothesis = _grams(caption)
        return 10 * sum(self._similarity(hypothesis, _grams(text)) for text in references) / len(references)

    def _similarity(self, hypothesis: Grams, reference: Grams) -> float:
        pairs = sum(n for gram, n in hypothesis.items() if len(gram) == 2)
        apart = pairs - sum(n for gram, n in reference.items() if len(gram) == 2)
        total = 0.0
        for size in range(1, LONGEST + 1):
            ours, theirs = self._weights(hypothesis, size), self._weights(reference, size)
            norm = math.sqrt(sum(w * w for w in ours.values()) * sum(w * w for w in theirs.values()))
            product = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs)
            total += product / norm if norm else 0.0
        return total / LONGEST * math.exp(-(apart**2) / (2 * SIGMA**2))

    def _weights(self, grams: Grams, size: int) -> dict[tuple[str, ...], float]:
        clips = math.log(self._clips)
        return {g: n * (clips - math.log(max(1, self._seen[g]))) for g, n in grams.items() if len(g) == size}


def _grams(text: str) -> Grams:
    words = simple(text).split()
    return Counter(
        tuple(words[start : start + size]) for size in range(1, LONGEST + 1) for start in range(len(words) - size + 1)
    )
