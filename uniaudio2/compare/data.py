"""What a comparison is made on: a manifest, a set of recordings, or a data set by its name and folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from uniaudio2.data.benchmarks import read_benchmark
from uniaudio2.data.example import Example
from uniaudio2.data.manifest import read_manifest
from uniaudio2.data.sources import find_data_root, read_set
from uniaudio2.data.synth.sentences import TEXT_FILES, load_sentences
from uniaudio2.data.synth.speech import Speech
from uniaudio2.errors import UserError
from uniaudio2.eval.context import Clip
from uniaudio2.eval.reconstruction import reference_page

PAGE, SENTENCES = "reference_page", "sentences"


def clips_of(
    data: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    unseen_speakers: bool = False,
) -> list[Clip]:
    """The clips that ``--data`` names.

    Args:
        data: A manifest's path, the name of a set below ``root``, ``NAME=FOLDER`` of a known data set, or
            ``sentences=LANGUAGE``, the sentences without recordings that no training text of ours holds. Several with
            ``+`` between.
        root: Folder of the sets; None looks in the usual places.
        split: Of the data; None takes test, else dev, else everything; of a known data set its first one.
        limit: Most clips, drawn by the seed; None takes all.
        seed: Of the draw.
        unseen_speakers: Leave out clips whose speaker is not named, or also is in the train part of the same set.

    Raises:
        UserError: If there is no such data, or none of that split.
    """
    parts = [data] if Path(data).exists() else data.split("+")
    clips = [clip for part in parts for clip in _part(part, root, split, unseen_speakers)]
    ids = [clip.example.id for clip in clips]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"{data}: two clips have the id {twice!r}")
    if not clips:
        unseen = " by speakers who are not in its train part" if unseen_speakers else ""
        raise UserError(f"{data}: no clips{unseen}")
    if limit is not None and limit < len(clips):
        chosen = sorted(random.Random(seed).sample(range(len(clips)), limit))
        clips = [clips[index] for index in chosen]
    return clips


def _part(data: str, root: str | Path | None, split: str | None, unseen_speakers: bool) -> list[Clip]:
    name, _, folder = ("", "", "") if Path(data).exists() else data.partition("=")
    if name == PAGE:
        return _page(Path(folder) if folder else find_data_root(root) / "seed_demo")
    if name == SENTENCES:
        return _sentences(find_data_root(root), folder or "en")
    if folder:
        examples = read_benchmark(name, folder, split)
    else:
        own = read_manifest(data) if Path(data).exists() else read_set(find_data_root(root), data)
        examples = _split(own, split, data)
        if unseen_speakers:
            train = {example.speaker for example in own if example.split == "train"}
            examples = [example for example in examples if example.speaker and example.speaker not in train]
    return [Clip(example, example.audio) for example in examples]


def _split(examples: Sequence[Example], split: str | None, data: str) -> list[Example]:
    there = {example.split for example in examples}
    wanted = split or next((name for name in ("test", "dev") if name in there), None)
    chosen = [example for example in examples if wanted in (None, example.split)]
    if not chosen:
        raise UserError(f"{data}: no clips of split {split!r}; it has {', '.join(sorted(there)) or 'none'}")
    return chosen


def _sentences(root: Path, language: str) -> list[Clip]:
    """The sentences that every synthetic corpus keeps for dev, as clips that have a text alone."""

    def nothing() -> Tensor:
        raise UserError("a sentence has no recording")

    if language not in TEXT_FILES:
        raise UserError(f"no sentences in {language!r}; there are {', '.join(TEXT_FILES)}")
    held = Speech({}).dev_sentences[language]
    return [
        Clip(Example(id=f"{language}-{number:04d}", path=TEXT_FILES[language][0], duration=1.0, split="dev",
                     text=sentence.spoken, language=language, root=root / "text"), nothing)
        for number, sentence in enumerate(load_sentences(root / "text", language, limit=held, seed=0))
    ]  # fmt: skip


def _page(folder: Path) -> list[Clip]:
    """The originals of the reference page's reconstructions."""
    recordings = reference_page(folder)
    if not recordings:
        raise UserError(f"{folder}: no tasks.jsonl of the reference page")
    return [
        Clip(Example(id=r.id, path="tasks.jsonl", duration=r.audio.shape[-1] / 24_000, kind=r.kind, speaker=r.group,
                     root=folder), lambda wave=r.audio: wave)
        for r in recordings
    ]  # fmt: skip
