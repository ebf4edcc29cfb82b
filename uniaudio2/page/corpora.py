"""Items of a section from the held-out examples of manifests: whatever has all that the section's row needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from uniaudio2.data.episodes import Episodes, Labelled
from uniaudio2.data.manifest import Example, read_manifest
from uniaudio2.page.items import Item, Sound, Value
from uniaudio2.tasks import Audio, Source, Task, Text, Voice, get_task

if TYPE_CHECKING:
    from uniaudio2.page.sections import Section

LONGEST_S = 12.0
"""Longer recordings are left to other uses than a page."""

Any_ = TypeVar("Any_")


def read_examples(manifests: Sequence[str | Path]) -> list[Example]:
    """The dev examples of manifests; all of those that have no dev part.

    Raises:
        ManifestError: If a manifest is missing or a line of it is broken; the message names it.
    """
    found: list[Example] = []
    for path in manifests:
        examples = read_manifest(path)
        dev = [example for example in examples if example.split == "dev"]
        found += dev or examples
    return found


def spread(items: Sequence[Any_], count: int) -> list[Any_]:
    """At most so many items, evenly over the list."""
    if len(items) <= count:
        return list(items)
    return [items[int((index + 0.5) * len(items) / count)] for index in range(count)]


def corpus_items(section: Section, examples: Sequence[Example], count: int) -> list[Item]:
    """At most ``count`` items of a section."""
    if section.row is None or section.corpus is None:
        return []
    row = get_task(section.row)
    if section.corpus == "classes":
        return _classes(examples, count)
    fitting = [example for example in examples if fits(row, example)]
    if section.corpus == "shot":
        return [_item(row, example, shot=_partner(example, fitting)) for example in spread(fitting, count)]
    return [_item(row, example) for example in spread(fitting, count)]


def fits(row: Task, example: Example) -> bool:
    """Whether an example has all that a row needs and is short enough."""
    if row.training is None or example.kind not in row.training.kinds:
        return False
    names = (*row.required_inputs, *(part.value for part in row.outputs))
    found = [value_of(example, row.source(name)) for name in names]
    return None not in found and all(each.duration <= LONGEST_S for each in example.recordings.values())


def value_of(example: Example, source: Source) -> Value | None:
    """What an example has for a value; None where it has nothing."""
    if isinstance(source, Audio | Voice):
        name = source.audio if isinstance(source, Voice) else source.name
        own = example.recordings.get(name) if name is not None else None
        return None if own is None else Sound.of(example.root / own.path, own.start, own.duration)
    if isinstance(source, Text):
        own_text = {"text": example.text, "caption": example.caption}
        return own_text.get(source.name) or example.texts.get(source.name)
    return None


def _item(row: Task, example: Example, shot: Example | None = None) -> Item:
    names = [part.value for part in row.outputs]
    given, truth = _sides(row, example)
    says = {name: text for name in names if (text := _said(row, example, name))} if row.makes_audio else {}
    spoken = row.makes_audio or example.kind == "speech"
    note = "; ".join(filter(None, (example.attribution, example.licence)))
    return Item(
        example.id, given, truth, says=says, language=example.language if spoken else None, note=note,
        shots=() if shot is None else (_sides(row, shot),),
    )  # fmt: skip


def _sides(row: Task, example: Example) -> tuple[dict[str, Value], dict[str, Value]]:
    """Inputs and outputs of a row, of an example that fits."""

    def side(names: Sequence[str]) -> dict[str, Value]:
        """Values by name."""
        found = {name: value_of(example, row.source(name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    return side(row.required_inputs), side([part.value for part in row.outputs])


def _said(row: Task, example: Example, name: str) -> str | None:
    """What is said in an output of a row."""
    source = row.source(name)
    if isinstance(source, Audio):
        if source.says == "text" and example.text:
            return example.text
        return example.texts.get(source.name) or example.texts.get(f"said_{name}") or example.texts.get("lyric")
    return None


def _partner(example: Example, fitting: Sequence[Example]) -> Example | None:
    """Another example to show first: of the same speaker, else the next one."""
    others = [other for other in fitting if other.id != example.id]
    same = [other for other in others if example.speaker and other.speaker == example.speaker]
    after = others[fitting.index(example) % len(others) :] if others else []
    return next(iter((*same, *after)), None)


def _classes(examples: Sequence[Example], count: int) -> list[Item]:
    """Episodes of two classes with one example of each, see `Episodes`."""
    sounds = [example for example in examples if example.path and example.kind != "speech"]
    labelled = [Labelled.of(one.id, one.label, one.source, one.duration, recorded=one.engine is None) for one in sounds]
    episodes = Episodes(labelled)
    asked = [index for index in range(len(sounds)) if episodes.has(index)]
    rng = np.random.default_rng(0)
    items = []
    for index in spread(asked, count):
        episode = episodes.draw(index, rng, examples=1)

        def audio(number: int) -> dict[str, Any]:
            """A recording as the row's input."""
            own = sounds[number].first
            return {"audio": Sound.of(sounds[number].root / own.path, own.start, own.duration)}

        shots = tuple((audio(number), {"label": name}) for number, name in episode.examples)
        note = "; ".join(filter(None, (sounds[index].attribution, sounds[index].licence)))
        items.append(Item(sounds[index].id, audio(index), {"label": episode.answer}, shots=shots, note=note))
    return items
