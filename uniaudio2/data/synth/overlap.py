"""Two people who speak at once, and each of them alone, as a part of a corpus.

An example has ``mixture``, ``first`` and ``second`` of one length: first is who starts first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.example import Recording
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.spoken import Spoken, joined, plan_spoken, speak_all, stretches
from uniaudio2.data.synth.voices import Wave

Speech = Spoken | Example


@dataclass(frozen=True)
class OverlapTask:
    """One example: the second starts ``late_s`` after the first and is ``louder_db`` louder."""

    id: str
    first: Speech
    second: Speech
    late_s: float
    louder_db: float
    split: str


@dataclass(frozen=True)
class Overlaps:
    """Numbers of examples, and real sets of speech, which take a third of the parts."""

    train: int = 140
    dev: int = 20
    speech: tuple[str, ...] = ("librispeech_voices", "vctk_p239")

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """A group for each split."""
        return {
            f"overlap_{split}": Group(list(self._tasks(material, split, count, seed)), 30)
            for split, count in (("train", self.train), ("dev", self.dev))
        }

    def _tasks(self, material: Material, split: str, count: int, seed: int) -> Iterator[OverlapTask]:
        people: list[Speech] = [*plan_spoken(material, split, 2 * count, seed, "overlap")]
        recorded = stretches(material, self.speech, split, seed, count)
        rng = random.Random(f"{seed}-overlap-{split}")
        if recorded and split == "train":
            people = [rng.choice(recorded) if rng.random() < 0.33 else each for each in people]
        for index in range(count):
            first, second = people[2 * index : 2 * index + 2]
            if first.speaker != second.speaker:
                late, louder = round(rng.uniform(0.3, 1.0), 2), round(rng.uniform(-3, 3), 1)
                yield OverlapTask(f"overlap_{split}-{index:04d}", first, second, late, louder, split)

    @staticmethod
    def render(tasks: Sequence[OverlapTask], seed: int) -> list[Clip]:
        """An example for each task."""
        both = [each for task in tasks for each in (task.first, task.second)]
        said = iter(speak_all([(each.sentence, each.voice) for each in both if isinstance(each, Spoken)], seed))
        waves = iter([next(said) if isinstance(each, Spoken) else each.audio().numpy()[0] for each in both])
        pairs = zip(tasks, waves, waves, strict=True)
        return [_render(task, *pair) for task, *pair in pairs if min(wave.size for wave in pair) > SAMPLE_RATE // 2]


def _render(task: OverlapTask, first: Wave, second: Wave) -> Clip:
    late = int(task.late_s * SAMPLE_RATE)
    size = max(first.size, second.size + late)
    parts = {
        "first": np.pad(dsp.set_level(dsp.fade(first), -26.0), (0, size - first.size)),
        "second": np.pad(dsp.set_level(dsp.fade(second), -26.0 + task.louder_db), (late, size - late - second.size)),
    }
    mixture = parts["first"] + parts["second"]
    peak = max(1.0, float(np.abs(mixture).max()) / 0.95)  # all scaled alike
    waves = {name: (wave / peak).astype(np.float32) for name, wave in {"mixture": mixture, **parts}.items()}
    people = {"first": task.first, "second": task.second}
    example = Example(
        id=task.id,
        audios={name: Recording("-", wave.size / SAMPLE_RATE) for name, wave in waves.items()},
        split=task.split,
        language="en",
        label=" and ".join(str(each.speaker) for each in people.values()),
        engine="mixture",
        licence=joined((each.licence for each in people.values()), " + "),
        attribution=joined((each.attribution for each in people.values()), "; "),
        source="synth_overlap",
        texts={f"said_{name}": each.text for name, each in people.items() if each.text},
    )
    return example, waves
