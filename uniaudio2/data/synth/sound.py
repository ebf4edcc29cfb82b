"""Procedural sounds, and mixtures of two events, as parts of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.augment import augment, speed_perturb
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.voices import Wave

LICENCE = "procedural, made by this package (Apache-2.0)"


@dataclass(frozen=True)
class SoundTask:
    """One procedural clip: its id, class label, length in seconds, split."""

    id: str
    label: str
    seconds: float
    split: str = "train"


VARIED_OCTAVES = (-0.4, 0.4)
"""How much slower or faster a licensed clip of a varied mixture plays, pitch included."""


@dataclass(frozen=True)
class MixtureTask:
    """Two events in one clip: each a procedural class label, or a licensed recording.

    ``varied``: licensed clips play at another speed, with another colour.
    """

    id: str
    first: str | Example
    second: str | Example
    seconds: float
    split: str = "train"
    varied: bool = False


def plan_sounds(minutes: float, seed: int) -> list[SoundTask]:
    """Procedural clips of 2-5 s, classes in turn; every twentieth clip of a class goes to dev."""
    rng = np.random.default_rng([seed, 11])
    labels = list(CLASSES)
    tasks: list[SoundTask] = []
    total = 0.0
    while total < minutes * 60:
        index = len(tasks)
        seconds = round(float(rng.uniform(2.0, 5.0)), 2)
        split = "dev" if index // len(labels) % 20 == 19 else "train"
        tasks.append(SoundTask(f"sound-{index:05d}", labels[index % len(labels)], seconds, split))
        total += seconds
    return tasks


def plan_mixtures(
    minutes: float,
    licensed: Sequence[Example],
    seed: int,
    *,
    licensed_share: float = 0.5,
    varied: bool = False,
) -> list[MixtureTask]:
    """Two-event clips of 3-5 s, more than half of them of 5 s. Every twentieth clip goes to dev.

    Choice: single recordings mostly last 5 s; mixtures that do not would be told by their length.

    Args:
        minutes: How much to plan.
        licensed: Licensed training clips with captions.
        seed: Seed of every choice.
        licensed_share: Share of events that are licensed clips; the others are procedural.
        varied: Change the licensed clips, so that few recordings stand for more of their kind.
    """
    rng = np.random.default_rng([seed, 12])
    labels = list(CLASSES)
    tasks: list[MixtureTask] = []
    total = 0.0
    while total < minutes * 60:
        events: list[str | Example] = []
        taken: list[str | None] = []
        while len(events) < 2:
            if licensed and rng.random() < licensed_share:
                event = licensed[int(rng.integers(len(licensed)))]
                label = event.label
            else:
                event = label = labels[int(rng.integers(len(labels)))]
            if label not in taken:
                events.append(event)
                taken.append(label)
        seconds = round(min(5.0, float(rng.uniform(3.0, 8.0))), 2)
        # Licensed dev clips stay out of mixtures; a dev mixture is a new combination of known clips.
        split = "dev" if len(tasks) % 20 == 19 else "train"
        tasks.append(MixtureTask(f"mix-{len(tasks):05d}", events[0], events[1], seconds, split, varied))
        total += seconds
    return tasks


def render_sound(task: SoundTask, seed: int) -> Clip:
    """Make one procedural clip; a pure function of its arguments."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    item = CLASSES[task.label]
    wave = dsp.set_level(dsp.fade(item.recipe(rng, int(task.seconds * SAMPLE_RATE))), rng.normal(-23.0, 2.5))
    example = Example(
        id=task.id,
        path="-",
        duration=wave.size / SAMPLE_RATE,
        split=task.split,
        kind=item.kind,
        label=item.label,
        labels=(item.label,),
        caption=item.phrases[int(rng.integers(len(item.phrases)))],
        captions=item.phrases,
        engine="procedural",
        licence=LICENCE,
        source="synth_sound",
    )
    return example, wave


@dataclass(frozen=True)
class _Event:
    """One event of a mixture: what it is, how it sounds, whom to credit."""

    label: str
    phrases: tuple[str, ...]
    wave: Wave
    licence: str
    credit: str | None


def _event(event: str | Example, rng: dsp.Rng, n: int, varied: bool) -> _Event:
    """Render an event of at most ``n`` samples."""
    if isinstance(event, str):
        item = CLASSES[event]
        return _Event(item.label, item.phrases, item.recipe(rng, n), LICENCE, None)
    wave = event.audio().numpy()[0]
    if varied:
        wave = augment(speed_perturb(wave, 2.0 ** rng.uniform(*VARIED_OCTAVES)), rng, strength=0.5)
    if wave.size > n:
        wave = dsp.loudest(wave, n)
    return _Event(event.label or "", event.captions, wave, event.licence or "", event.attribution)


def render_mixture(task: MixtureTask, seed: int) -> Clip:
    """Make one two-event clip, the second event softer or later; a pure function of its arguments and recordings."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    n = int(task.seconds * SAMPLE_RATE)
    out = np.zeros(n, np.float32)
    events: list[_Event] = []
    for place, planned in enumerate((task.first, task.second)):
        event = _event(planned, rng, n, task.varied)
        wave = dsp.set_level(dsp.fade(event.wave), -23.0 + float(rng.uniform(-3, 3)))
        latest = max(0, n - max(wave.size, n // 2))
        dsp.place(out, wave, (rng.uniform(0, latest / SAMPLE_RATE) if latest else 0.0) if place else 0.0)
        events.append(event)

    def pick(options: tuple[str, ...]) -> str:
        """One of the options."""
        return options[int(rng.integers(len(options)))]

    pairs = [f"{pick(events[a].phrases)} and {pick(events[1 - a].phrases)}" for a in (0, 0, 1, 0, 1, 0)]
    captions = tuple(dict.fromkeys(pairs))
    wave = dsp.set_level(out, rng.normal(-23.0, 2.0))
    labels = tuple(event.label for event in events)
    example = Example(
        id=task.id,
        path="-",
        duration=wave.size / SAMPLE_RATE,
        split=task.split,
        kind="sound",
        label=" and ".join(labels),
        labels=labels,
        caption=captions[0],
        captions=captions,
        engine="mixture",
        licence=" + ".join(dict.fromkeys(event.licence for event in events)),
        attribution="; ".join(dict.fromkeys(event.credit for event in events if event.credit)) or None,
        source="synth_mixture",
    )
    return example, wave


@dataclass(frozen=True)
class Sounds:
    """Minutes of procedural sounds; another ``seed`` makes other ones beside an older corpus."""

    minutes: float
    seed: int = 0

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group, classes in turn."""
        return {"sound": Group(plan_sounds(self.minutes, seed + self.seed), 100)}

    @staticmethod
    def render(tasks: Sequence[SoundTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [render_sound(task, seed) for task in tasks]


@dataclass(frozen=True)
class Mixtures:
    """Minutes of two-event mixtures.

    Attributes:
        minutes: How much.
        sets: Real sets whose training clips take part; at most ``limit`` of each.
        limit: None for all.
        licensed: Share of the events that are real recordings.
        varied: Change speed and colour of those recordings.
        seed: Another one makes other mixtures beside an older corpus.
    """

    minutes: float
    sets: tuple[str, ...] = ()
    limit: int | None = None
    licensed: float = 0.5
    varied: bool = False
    seed: int = 0

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group."""
        clips = [example for name in self.sets for example in material.recordings(name, "train", seed, self.limit)]
        tasks = plan_mixtures(self.minutes, clips, seed + self.seed, licensed_share=self.licensed, varied=self.varied)
        return {"mix": Group(tasks, 100)}

    @staticmethod
    def render(tasks: Sequence[MixtureTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [render_mixture(task, seed) for task in tasks]
