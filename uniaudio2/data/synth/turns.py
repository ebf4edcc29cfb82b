"""Conversations of two or three voices with who speaks when, made of recordings of single speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.example import Turn
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.voices import Wave


@dataclass(frozen=True)
class TurnsTask:
    """A conversation: recordings of its speakers, and who takes each turn by number."""

    id: str
    speakers: tuple[Example, ...]
    order: tuple[int, ...]
    split: str = "train"


def written(turns: Sequence[Turn]) -> str:
    """Turns as text: ``1 0.0 1.4; 2 1.6 3.0`` is speaker, start and end in seconds.

    Speakers are numbered in the order in which they are first heard.
    """
    numbers: dict[str | None, int] = {}
    for turn in turns:
        numbers.setdefault(turn.speaker, len(numbers) + 1)
    return "; ".join(f"{numbers[turn.speaker]} {turn.start:.1f} {turn.end:.1f}" for turn in turns)


def plan_turns(
    conversations: int, recordings: dict[str, Sequence[Example]], seed: int, *, dev: int = 0
) -> list[TurnsTask]:
    """Conversations for train, then for dev, whose speakers are those of each split's recordings."""
    rng = np.random.default_rng([seed, 24])
    tasks: list[TurnsTask] = []
    for split, count in (("train", conversations), ("dev", dev)):
        by_speaker: dict[str, list[Example]] = {}
        for example in recordings.get(split, ()):
            if example.speaker and example.duration >= 2.0:
                by_speaker.setdefault(example.speaker, []).append(example)
        names = list(by_speaker)
        if len(names) < 3:
            continue
        for _ in range(count):
            people = 3 if rng.random() < 0.2 else 2
            chosen = [by_speaker[names[i]] for i in rng.choice(len(names), people, replace=False)]
            speakers = tuple(own[int(rng.integers(len(own)))] for own in chosen)
            order = list(range(people))
            while len(order) < people + 2 and rng.random() < 0.55:
                order.append(int(rng.choice([i for i in range(people) if i != order[-1]])))
            tasks.append(TurnsTask(f"turns-{len(tasks):05d}", speakers, tuple(order), split))
    return tasks


def _stretch(wave: Wave, rng: np.random.Generator) -> Wave:
    """A loud second or two of a recording, without silence at its ends."""
    n = min(round(float(rng.uniform(0.9, 2.0)) * SAMPLE_RATE), wave.size)
    start = int(rng.integers(0, wave.size - n + 1))
    piece = dsp.trim_silence(wave[start : start + n], margin_s=0.02, floor_db=-32.0)
    if piece.size < 0.6 * SAMPLE_RATE:
        piece = dsp.loudest(wave, n)
    return dsp.set_level(dsp.fade(piece, 0.02), -22.0 + float(rng.uniform(-2, 2)))


def render_turns(task: TurnsTask, seed: int) -> Clip:
    """A conversation; a pure function of its arguments and recordings."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    waves = [speaker.audio().numpy()[0] for speaker in task.speakers]
    turns: list[Turn] = []
    pieces: list[tuple[float, Wave]] = []
    at = float(rng.uniform(0.0, 0.3))
    for number in task.order:
        wave = _stretch(waves[number], rng)
        pieces.append((at, wave))
        end = at + wave.size / SAMPLE_RATE
        turns.append(Turn(round(at, 2), round(end, 2), speaker=task.speakers[number].speaker))
        overlap = rng.random() < 0.25
        at = end - float(rng.uniform(0.1, 0.35)) if overlap else end + float(rng.uniform(0.05, 0.5))
    out = np.zeros(round((max(turn.end for turn in turns) + 0.1) * SAMPLE_RATE), np.float32)
    for start, wave in pieces:
        dsp.place(out, wave, start)
    out += 10 ** (-62 / 20) * rng.standard_normal(out.size).astype(np.float32)
    example = Example(
        id=task.id,
        path="-",
        duration=out.size / SAMPLE_RATE,
        split=task.split,
        language="en",
        texts={"turns": written(turns)},
        turns=tuple(turns),
        engine="turns",
        licence=" + ".join(dict.fromkeys(each.licence or "" for each in task.speakers)),
        attribution="; ".join(dict.fromkeys(each.attribution for each in task.speakers if each.attribution)) or None,
        source="synth_turns",
    )
    return example, dsp.set_level(out, -23.0)


@dataclass(frozen=True)
class Conversations:
    """Conversations for train and for dev, of real sets of single speakers."""

    conversations: int
    dev: int
    sets: tuple[str, ...] = ("librispeech_voices", "speechocean")

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group."""
        recordings: dict[str, Sequence[Example]] = {
            split: [e for name in self.sets for e in material.recordings(name, split, seed, None)]
            for split in ("train", "dev")
        }
        return {"turns": Group(plan_turns(self.conversations, recordings, seed, dev=self.dev), 60)}

    @staticmethod
    def render(tasks: Sequence[TurnsTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [render_turns(task, seed) for task in tasks]
