"""What a corpus is made of: parts that plan and render clips, and the material that they draw from.

A preset is a tuple of parts. A new kind of clip is one file with a part: a frozen dataclass that says how much of
what, plans its tasks, and renders them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from uniaudio2.data.manifest import Example
from uniaudio2.data.sources import SETS, read_set
from uniaudio2.data.synth.sentences import TEXT_SOURCES, Sentence, has_sentences, load_sentences
from uniaudio2.data.synth.templates import built_in_sentences
from uniaudio2.data.synth.voices import Voice, Wave, remedy
from uniaudio2.errors import UserError

_LOG = logging.getLogger(__name__)

Clip = tuple[Example, Wave | Mapping[str, Wave]]
"""An example whose ``path``, ``start`` and ``audios`` are placeholders, and its samples at 24 kHz: those of its one
audio, or of each of several by name."""


@dataclass(frozen=True)
class Group:
    """Tasks of one kind, in order, and how many of them make one shard."""

    tasks: Sequence[Any]
    clips_per_unit: int


class Renderer(Protocol):
    """A part of a preset."""

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """Decide what to make: a pure function of its own fields, the material and the seed.

        Tasks are frozen dataclasses that can be pickled and whose ``repr`` says all that decides their clips.
        """
        ...

    @staticmethod
    def render(tasks: Sequence[Any], seed: int) -> list[Clip]:
        """Make the clips of planned tasks, in order; a task that cannot become a sound clip is left out."""
        ...


@dataclass
class Material:
    """Sentence lists, real recordings and voices; notes what is asked for and not here.

    Attributes:
        root: Folder with ``text`` and the real sets; None where there is none.
        left_out: What was asked for and is missing, and where it is had; filled by planning.
    """

    root: Path | None
    left_out: dict[str, None] = field(default_factory=dict)
    _sentences: dict[tuple[str, int], list[Sentence]] = field(default_factory=dict, repr=False)

    def sentences(self, language: str, seed: int) -> list[Sentence]:
        """Shuffled sentences of a language, read once; built-in ones where the folder has no list."""
        if (language, seed) not in self._sentences:
            self._sentences[language, seed] = self._read_sentences(language, seed)
        return self._sentences[language, seed]

    def _read_sentences(self, language: str, seed: int) -> list[Sentence]:
        if self.root is not None and has_sentences(self.root / "text", language):
            return load_sentences(self.root / "text", language, seed=seed)
        self.left_out[f"sentences ({language}): {TEXT_SOURCES[language]}"] = None
        return built_in_sentences(language, seed)

    def recordings(self, name: str, split: str, seed: int, limit: int | None) -> list[Example]:
        """Shuffled recordings of a real set, at most ``limit``; none where the folder lacks the set."""
        if self.root is None or not (self.root / name).is_dir():
            self.left_out[f"recordings {name}: {SETS[name].where}"] = None
            return []
        examples = read_set(self.root, name, split=split)
        random.Random(f"{seed}-{name}-{split}").shuffle(examples)
        return examples[:limit]

    def speaks(self, voice: Voice) -> bool:
        """Whether a voice speaks here."""
        missing = remedy(voice)
        if missing is not None:
            self.left_out[missing] = None
        return missing is None

    def check(self, *, available: bool) -> None:
        """Raise UserError if something was left out; with ``available`` only log it."""
        if not self.left_out:
            return
        if not available:
            raise UserError(
                f"this preset needs what is not here: {'; '.join(self.left_out)}. Sentences and recordings belong in "
                "one folder (--data-root DIR or UNIAUDIO2_DATA); --available makes what can be made without them, with "
                "built-in sentences"
            )
        for item in self.left_out:
            _LOG.warning("left out: %s", item)
