"""Sounds one after another and at the same time, with captions that tell the order."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.sources import CAPTIONS
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.sound import LICENCE
from uniaudio2.data.synth.voices import Wave

EVENTS = (
    "dog_bark", "rooster", "baby_cry", "person_sneeze", "bell", "beep", "telephone", "door_knock", "car_horn",
    "bird_chirp", "clapping", "siren", "footsteps", "water_drops",
)  # fmt: skip
"""What begins and ends."""

BEDS = ("rain", "sea_waves", "wind", "engine", "fire_crackling", "helicopter", "chainsaw", "white_noise")
"""What goes on and on."""

THEN = ("{0} then {1}", "{0} followed by {1}", "first {0} and then {1}", "{1} after {0}", "{0} before {1}")
WHILE = ("{0} while {1}", "{1} and {0} at the same time", "{0} with {1} in the background", "{1} behind {0}")
"""How captions join two phrases, the first of each the usual one; of a bed and an event the event comes first."""


@dataclass(frozen=True)
class Sound:
    """One sound of a scene: its class, and the recording of it; None makes it."""

    label: str
    recording: Example | None = None

    @property
    def phrases(self) -> tuple[str, ...]:
        """What it is called, the usual phrase first."""
        return CLASSES[self.label].phrases if self.label in CLASSES else CAPTIONS[self.label]

    def wave(self, rng: np.random.Generator, seconds: float) -> Wave:
        """Its loudest stretch, at most so long."""
        n = round(seconds * SAMPLE_RATE)
        if self.recording is None:
            wave = CLASSES[self.label].recipe(rng, n)
        else:
            wave = self.recording.audio().numpy()[0]
            wave = dsp.loudest(wave, n) if wave.size > n else wave
        return dsp.set_level(dsp.fade(wave, 0.03), float(rng.uniform(-25, -21)))


@dataclass(frozen=True)
class SceneTask:
    """Sounds one after another, or two at the same time."""

    id: str
    sounds: tuple[Sound, ...]
    together: bool
    split: str = "train"


def captions(task: SceneTask, rng: np.random.Generator) -> tuple[str, ...]:
    """Wordings of a scene, the usual one first."""

    def pick(sound: Sound) -> str:
        """One of a sound's phrases."""
        return sound.phrases[int(rng.integers(len(sound.phrases)))]

    usual = [sound.phrases[0] for sound in task.sounds]
    if len(task.sounds) > 2:
        return " then ".join(usual), " then ".join(pick(sound) for sound in task.sounds)
    forms = WHILE if task.together else THEN
    others = [form.format(*(pick(sound) for sound in task.sounds)) for form in forms]
    return tuple(dict.fromkeys((forms[0].format(*usual), *others)))


def render_scene(task: SceneTask, seed: int) -> Clip:
    """Make a scene of 3 to 5 s; a pure function of its arguments and recordings."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    if task.together:
        out = np.zeros(round(4.0 * SAMPLE_RATE), np.float32)
        event, bed = (sound.wave(rng, seconds) for sound, seconds in zip(task.sounds, (2.2, 4.0), strict=True))
        dsp.place(out, np.resize(bed, out.size), 0.0, 0.45)
        dsp.place(out, event, float(rng.uniform(0.4, 1.4)))
    else:
        gap = np.zeros(round(float(rng.uniform(0.15, 0.4)) * SAMPLE_RATE), np.float32)
        seconds = 4.2 / len(task.sounds)
        waves = [sound.wave(rng, float(rng.uniform(0.85, 1.1)) * seconds) for sound in task.sounds]
        out = np.concatenate([part for wave in waves for part in (wave, gap)][:-1])
    wave = dsp.set_level(out, float(rng.normal(-23.0, 1.5)))
    first, *others = captions(task, rng)
    labels = tuple(sound.label for sound in task.sounds)
    real = [sound.recording for sound in task.sounds if sound.recording is not None]
    example = Example(
        id=task.id,
        path="-",
        duration=wave.size / SAMPLE_RATE,
        split=task.split,
        kind="sound",
        label=(" while " if task.together else " then ").join(labels),
        labels=labels,
        caption=first,
        captions=tuple(others),
        engine="mixture",
        licence=" + ".join(dict.fromkeys((LICENCE, *(each.licence or "" for each in real)))),
        attribution="; ".join(dict.fromkeys(each.attribution for each in real if each.attribution)) or None,
        source="synth_scene",
    )
    return example, wave


def is_held_out(labels: Sequence[str]) -> bool:
    """Whether a scene of these classes in this order is for dev alone: about one pair in ten."""
    pairs = itertools.pairwise(labels)
    return any(zlib.crc32(" ".join(pair).encode()) % 10 == 0 for pair in pairs)


def plan_scenes(
    scenes: int, recordings: Mapping[str, Mapping[str, Sequence[Example]]], seed: int, *, dev: int = 0
) -> list[SceneTask]:
    """Scenes for train, then for dev: those have other recordings, and classes in an order that train has not.

    Args:
        scenes: Training scenes.
        recordings: Split → class → its recordings.
        seed: Seed of every choice.
        dev: Dev scenes.
    """
    rng = np.random.default_rng([seed, 22])
    tasks: list[SceneTask] = []
    for split, count in (("train", scenes), ("dev", dev)):
        known = recordings.get(split, {})
        events, beds = ([name for name in names if name in CLASSES or known.get(name)] for names in (EVENTS, BEDS))
        while count:
            together, three = rng.random() < 0.35, rng.random() < 0.15
            if together:
                labels = [str(rng.choice(events)), str(rng.choice(beds))]
            else:
                labels = [str(label) for label in rng.choice(events, 3 if three else 2, replace=False)]
            if is_held_out(labels) != (split == "dev"):
                continue
            sounds: list[Sound] = []
            for label in labels:
                real = known.get(label, ())
                taken = (
                    real[int(rng.integers(len(real)))]
                    if real and (label not in CLASSES or rng.random() < 0.6)
                    else None
                )
                sounds.append(Sound(label, taken))
            tasks.append(SceneTask(f"scene-{len(tasks):05d}", tuple(sounds), together, split))
            count -= 1
    return tasks


def by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Recordings by their class."""
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.label or "", []).append(example)
    return found


@dataclass(frozen=True)
class Scenes:
    """Scenes for train and for dev; the sets' recordings take part beside made sounds."""

    scenes: int
    dev: int
    sets: tuple[str, ...] = ("esc10",)

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group."""
        recordings = {
            split: by_label([e for name in self.sets for e in material.recordings(name, split, seed, None)])
            for split in ("train", "dev")
        }
        return {"scene": Group(plan_scenes(self.scenes, recordings, seed, dev=self.dev), 60)}

    @staticmethod
    def render(tasks: Sequence[SceneTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [render_scene(task, seed) for task in tasks]
