"""Few-shot episodes: examples of two classes in front of a recording whose class is asked for.

Source: the paper's few-shot audio classification, two classes, one or two examples of each, "output is one of …".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST_S = 6.0
"""Longer recordings are in no episode: five of them have to fit."""

MOST_EXAMPLES = 2
"""Examples of each class in front of the question."""


@dataclass(frozen=True)
class Labelled:
    """What of a recording matters here."""

    id: str  # the same for all copies of a recording
    label: str | None  # its class; None: it is in no episode
    collection: str | None = None  # where it comes from

    @classmethod
    def of(cls, id: str, label: str | None, collection: str | None, duration_s: float, *, recorded: bool) -> Labelled:
        """A recording as it is; what was made by a program or is too long has no class."""
        return cls(id, label if recorded and duration_s <= LONGEST_S else None, collection)


@dataclass(frozen=True)
class Episode:
    """Examples in their order, and the name of the class that is asked for."""

    examples: tuple[tuple[int, str], ...]  # number of a recording, name of its class
    answer: str


class Episodes:
    """Draws episodes from labelled recordings.

    Choice: half of the episodes call the classes by other words, so that only the examples can tell which is which;
    half of them take both classes from one collection, whose loudness and rooms say nothing then.

    Args:
        recordings: All that there is.
        names: Words to call classes by.
        renamed: Share of the episodes with such names.
    """

    def __init__(self, recordings: Sequence[Labelled], names: Sequence[str] = (), *, renamed: float = 0.5) -> None:
        self.recordings, self.names, self.renamed = recordings, tuple(names), renamed
        found: dict[str, list[int]] = {}
        for index, one in enumerate(recordings):
            if one.label:
                found.setdefault(one.label, []).append(index)
        self._classes = {
            label: np.array(items)
            for label, items in found.items()
            if len({recordings[index].id for index in items}) > 1
        }
        self._near: dict[str | None, list[str]] = {}
        for label, items in self._classes.items():
            for collection in dict.fromkeys(recordings[index].collection for index in items):
                self._near.setdefault(collection, []).append(label)

    def has(self, index: int) -> bool:
        """Whether a recording can be asked about: its class has others, and there is another class."""
        return self.recordings[index].label in self._classes and len(self._classes) > 1

    def draw(self, index: int, rng: np.random.Generator, *, examples: int | None = None) -> Episode:
        """Examples for one recording.

        Args:
            index: The recording that is asked about; it is never among its examples.
            rng: Source of every choice.
            examples: Of each class; None: one or two.
        """
        asked = self.recordings[index]
        own = str(asked.label)
        near = [label for label in self._near[asked.collection] if label != own]
        others = near if near and rng.random() < 0.5 else [label for label in self._classes if label != own]
        other = others[int(rng.integers(len(others)))]
        names = [class_name(own), class_name(other)]
        if self.names and rng.random() < self.renamed:
            names = [self.names[int(i)] for i in rng.choice(len(self.names), 2, replace=False)]
        count = examples or int(rng.integers(1, MOST_EXAMPLES + 1))
        own_class = self._classes[own]
        pools = (own_class[[self.recordings[int(i)].id != asked.id for i in own_class]], self._classes[other])
        shown = [
            (int(i), name)
            for pool, name in zip(pools, names, strict=True)
            for i in rng.choice(pool, min(count, len(pool)), replace=False)
        ]
        return Episode(tuple(shown[int(i)] for i in rng.permutation(len(shown))), names[0])


def class_name(label: str) -> str:
    """A label as it is written in text."""
    return label.replace("_", " ").lower()
