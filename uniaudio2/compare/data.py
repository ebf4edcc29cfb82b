"""What a comparison is made on: a manifest, a set of recordings, or a data set by its name and folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from uniaudio2.data.benchmarks import read_benchmark
from uniaudio2.data.example import Example
from uniaudio2.data.manifest import read_manifest
from uniaudio2.data.sources import find_data_root, read_set
from uniaudio2.errors import UserError
from uniaudio2.eval.context import Clip
from uniaudio2.eval.reconstruction import reference_page

PAGE = "reference_page"


def clips_of(
    data: str, root: str | Path | None = None, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> list[Clip]:
    """The clips that ``--data`` names.

    Args:
        data: A manifest's path, the name of a set below ``root``, or ``NAME=FOLDER`` of a known data set.
        root: Folder of the sets; None looks in the usual places.
        split: Of the data; None takes test, else dev, else everything; of a known data set its first one.
        limit: Most clips, drawn by the seed; None takes all.
        seed: Of the draw.

    Raises:
        UserError: If there is no such data, or none of that split.
    """
    name, _, folder = data.partition("=")
    if name == PAGE:
        clips = _page(Path(folder) if folder else find_data_root(root) / "seed_demo")
    elif folder:
        clips = _clips(read_benchmark(name, folder, split))
    elif Path(data).exists():
        clips = _split(read_manifest(data), split, data)
    else:
        clips = _split(read_set(find_data_root(root), data), split, data)
    if limit is not None and limit < len(clips):
        chosen = sorted(random.Random(seed).sample(range(len(clips)), limit))
        clips = [clips[index] for index in chosen]
    return clips


def _split(examples: Sequence[Example], split: str | None, data: str) -> list[Clip]:
    there = {example.split for example in examples}
    wanted = split or next((name for name in ("test", "dev") if name in there), None)
    chosen = [example for example in examples if wanted in (None, example.split)]
    if not chosen:
        raise UserError(f"{data}: no clips of split {split!r}; it has {', '.join(sorted(there)) or 'none'}")
    return _clips(chosen)


def _clips(examples: Sequence[Example]) -> list[Clip]:
    return [Clip(example, example.audio) for example in examples]


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
