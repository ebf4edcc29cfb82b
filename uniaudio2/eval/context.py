"""What every evaluation is given, and how it gets its clips and sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from uniaudio2.audio import read_audio, write_audio
from uniaudio2.data.manifest import Example, read_manifest
from uniaudio2.data.sources import find_data_root, read_set
from uniaudio2.errors import UserError
from uniaudio2.eval.subject import Subject
from uniaudio2.eval.text_metrics import Cluster

Item = TypeVar("Item")
Track = Callable[[Sequence[Any], str], Iterable[Any]]


class EvaluationError(UserError):
    """An evaluation that cannot be run; the message says what is missing or allowed."""


@dataclass(frozen=True)
class Clip:
    """A labelled clip that can be loaded.

    Attributes:
        example: Its labels.
        load: Gives the waveform (1, N) at 24 kHz.
    """

    example: Example
    load: Callable[[], Tensor]

    @property
    def cluster(self) -> Cluster:
        """What intervals are drawn over: the speaker, or the recording that a sound was cut from; None if unknown."""
        if self.example.kind == "speech":
            return self.example.speaker
        return recording_of(self.example)


def recording_of(example: Example) -> str:
    """The recording that a sound was cut from: ESC-10 ends the ids of its cuts with a letter."""
    return re.sub(r"-[A-Z]$", "", example.id)


def quiet(items: Sequence[Any], _description: str) -> Iterable[Any]:
    """A progress display that shows nothing."""
    return items


@dataclass
class Context:
    """Everything that an evaluation may use.

    Attributes:
        make_subject: Loads the model under test; called at most once.
        data_root: Folder of the data sets; None looks in the usual places.
        corpus: Synthetic corpus (folder or manifest) with a dev split; None speaks the dev sentences on the fly.
        limit: Most items of a set; None takes all (or the evaluation's own number).
        seed: Seed of every random choice.
        normaliser: Text normaliser.
        work: Folder for the audio that is written and scored.
        track: Wraps a list to show progress.
        source: The model folder as it was given, for timing a fresh load.
        device: Where the model runs.
        languages: Languages to score where there is a choice.
        tell_language: Whether the recogniser is told the language of a clip.
        unseen_speakers: Whether clips are left out whose speaker is in the train part of their set too.
        untrained: Whether rows are scored that the model was not trained for.
        shots: Examples in front of each held-out one, in evaluations of rows.
        examples: What these are drawn from, by task.
        notes: Remarks for the report.
        known_speakers: Speakers of the clips that were read, and whether each has clips in the train part of its set.
    """

    make_subject: Callable[[], Subject]
    work: Path
    data_root: Path | None = None
    corpus: Path | None = None
    limit: int | None = None
    seed: int = 0
    normaliser: str = "simple"
    track: Track = quiet
    source: str | Path | None = None
    device: str = "cpu"
    languages: tuple[str, ...] = ("en", "zh", "yue")
    tell_language: bool = True
    unseen_speakers: bool = False
    untrained: bool = False
    shots: int = 0
    examples: dict[str, list[Clip]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    known_speakers: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def subject(self) -> Subject:
        """The model under test, loaded on first use."""
        return self.make_subject()

    @cached_property
    def root(self) -> Path:
        """The data folder; raises UserError if there is none."""
        return find_data_root(self.data_root)

    def sample(self, items: Sequence[Item], default: int | None = None) -> list[Item]:
        """At most ``limit`` (or ``default``) items, drawn by the seed, in their first order."""
        limit = self.limit if self.limit is not None else default
        if limit is None or limit >= len(items):
            return list(items)
        chosen = sorted(random.Random(self.seed).sample(range(len(items)), limit))
        return [items[index] for index in chosen]

    def head(self, items: Sequence[Item], default: int) -> list[Item]:
        """The first ``limit`` (or ``default``) items."""
        return list(items[: self.limit if self.limit is not None else default])

    def real(self, name: str, split: str = "dev") -> list[Clip]:
        """The clips of one set of recordings; raises `ManifestError` if it is missing."""
        return self._scored(read_set(self.root, name), split)

    def manifest(self, path: str | Path) -> list[Clip]:
        """The dev clips of a manifest, or all of them if it has no dev split."""
        examples = read_manifest(path)
        return self._scored(examples, "dev" if any(example.split == "dev" for example in examples) else None)

    def set_or_manifest(self, data: str) -> list[Clip]:
        """The clips of a manifest by its path, else of a set of recordings by its name."""
        return self.manifest(data) if Path(data).exists() else self.real(data)

    def training(self, data: str) -> list[Clip]:
        """The train clips of a manifest by its path, else of a set of recordings by its name."""
        examples = read_manifest(data) if Path(data).exists() else read_set(self.root, data)
        return [Clip(example, example.audio) for example in examples if example.split == "train"]

    def _scored(self, examples: Sequence[Example], split: str | None) -> list[Clip]:
        """The clips of a split (None: all); whether their speakers are in another one is kept in ``known_speakers``."""
        train = {example.speaker for example in examples if split and example.split == "train" and example.speaker}
        chosen = [example for example in examples if split in (None, example.split)]
        if self.unseen_speakers:
            chosen = [example for example in chosen if example.speaker and example.speaker not in train]
        self.known_speakers |= {one.speaker: one.speaker in train for one in chosen if one.speaker and one.text}
        return [Clip(example, example.audio) for example in chosen]

    @property
    def speakers(self) -> str:
        """Who was heard, for the report: how many speakers, and how many of them have training clips in their set."""
        if not self.known_speakers:
            return "not named"
        return f"{len(self.known_speakers)}, of whom {sum(self.known_speakers.values())} have clips in the train part"

    def held_out_speech(self, language: str) -> list[Clip]:
        """Unseen sentences by unseen synthetic voices: the corpus's dev clips, or the same sentences spoken now.

        Raises:
            EvaluationError: If there is no corpus, and no sentence lists or synthesiser to speak them with.
        """
        if self.corpus is not None:
            clips = [
                clip
                for clip in self.manifest(self.corpus)
                if clip.example.source == "synth_unseen_voice" and clip.example.language == language
            ]
            if not clips:
                raise EvaluationError(f"{self.corpus}: has no dev clips of unseen {language!r} voices")
            return clips
        from uniaudio2.data.synth.speech import render_speech

        tasks = [t for t in self._dev_plan(language) if t.source == "synth_unseen_voice"]
        tasks = tasks[: self.limit if self.limit is not None else (200 if language == "en" else 100)]
        rendered = render_speech(tasks, 0)
        waves = {example.id: torch.from_numpy(wave)[None] for example, wave in rendered}
        self.known_speakers |= {str(example.speaker): False for example, _ in rendered}
        return [Clip(example, lambda name=example.id: waves[name]) for example, _ in rendered]

    def held_out_sentences(self, language: str) -> list[str]:
        """Sentences that no training text holds, as the corpus planned them (the same for every corpus of seed 0)."""
        return list(
            dict.fromkeys(t.sentence.text for t in self._dev_plan(language) if t.source == "synth_unseen_voice")
        )

    def _dev_plan(self, language: str) -> list[Any]:
        """The planned dev clips of a language."""
        from uniaudio2.data.synth.sentences import load_sentences
        from uniaudio2.data.synth.speech import Speech, plan_speech

        text = self.root / "text"
        try:
            groups = plan_speech(Speech({}), lambda language: load_sentences(text, language, seed=0), 0)
        except UserError as error:
            raise EvaluationError(f"no unseen sentences: {error}; give --corpus DIR or --data-root DIR") from error
        return groups.get(f"dev_{language}", [])

    def written(self, audio: Tensor, name: str) -> Tensor:
        """The waveform as it is after being written as a 16-bit file and read again; the file stays in ``work``."""
        path = self.work / (re.sub(r"[^\w.-]+", "_", name)[:120] + ".wav")
        write_audio(path, audio)
        return read_audio(path)


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
