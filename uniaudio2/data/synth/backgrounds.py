"""Speech and a sound behind it: scenes with a caption of the sound, and noisy speech beside the clean, as parts.

A scene is one audio, ``scene``. Noisy speech is ``noisy`` and ``clean``: a background at 0 to 15 dB, a room, or both.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.augment import coloured_noise, room_response
from uniaudio2.data.example import Recording
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.sound import LICENCE
from uniaudio2.data.synth.spoken import (
    Spoken,
    joined,
    phones_of,
    plan_spoken,
    speak_all,
    stretches,
    task_sentences,
    training_voices,
)
from uniaudio2.data.synth.voices import Wave

_WITH = (
    "{sound}|{sound} in the background|with {sound} in the background|someone speaks while there is {sound}|"
    "{sound} while somebody talks|a voice and {sound}|speech over {sound}|{sound} behind the voice"
)

Background = str | Example
"""A procedural class by its label, or a recording."""


@dataclass(frozen=True)
class SceneTask:
    """Words with a sound behind them."""

    id: str
    spoken: Spoken
    sound: Background
    split: str


@dataclass(frozen=True)
class NoiseTask:
    """Speech or a stretch of a recording, with a background (None: coloured noise) at ``snr_db``, perhaps in a room."""

    id: str
    speech: Spoken | Example
    background: Background | None
    snr_db: float
    room: bool
    split: str


@dataclass(frozen=True)
class SpokenScenes:
    """Speech with a described sound: numbers of examples, and real sets of sounds."""

    train: int = 240
    dev: int = 24
    sets: tuple[str, ...] = ("esc10",)

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """A group for each split; half of the sounds are recordings."""
        return {
            f"scenes_{split}": Group(list(self._tasks(material, split, count, seed)), 30)
            for split, count in (("train", self.train), ("dev", self.dev))
        }

    def _tasks(self, material: Material, split: str, count: int, seed: int) -> Iterator[SceneTask]:
        # Choice: no voice is asked for, so the house voice speaks.
        voices = training_voices(material, ["hibari"]) or training_voices(material, ["espeak_en"])[-2:]
        sentences = task_sentences(material, "en", split, seed, "scenes")
        classes = [label for label, item in CLASSES.items() if item.kind == "sound"]
        recorded = [each for name in self.sets for each in material.recordings(name, split, seed, None)]
        rng = random.Random(f"{seed}-scenes-{split}")
        for index in range(count if voices else 0):
            sound = classes[index // 2 % len(classes)]
            if index % 2 and recorded:
                sound = recorded[index // 2 % len(recorded)]
            spoken = Spoken(sentences[index % len(sentences)], rng.choice(voices))
            yield SceneTask(f"scene_{split}-{index:04d}", spoken, sound, split)

    @staticmethod
    def render(tasks: Sequence[SceneTask], seed: int) -> list[Clip]:
        """An example for each task whose phones are known."""
        waves = speak_all([(task.spoken.sentence, task.spoken.voice) for task in tasks], seed)
        clips: list[Clip] = []
        for task, wave in zip(tasks, waves, strict=True):
            if phones := phones_of(task.spoken.sentence, wave, "en"):
                clips.append(_scene(task, wave, phones, np.random.default_rng([seed, *task.id.encode()])))
        return clips


def _scene(task: SceneTask, wave: Wave, phones: str, rng: np.random.Generator) -> Clip:
    lead, tail = (int(rng.uniform(0.2, 0.7) * SAMPLE_RATE) for _ in range(2))
    size = wave.size + lead + tail
    sound = background(task.sound, size, rng)
    out = np.pad(dsp.set_level(wave, -24.0), (lead, tail))
    out = out + dsp.set_level(sound, -24.0 - rng.uniform(3.0, 9.0))
    out = dsp.set_level(dsp.fade(out, 0.03), -23.0 + rng.normal(0, 1))
    real = task.sound if isinstance(task.sound, Example) else None
    phrases = CLASSES[task.sound].phrases if isinstance(task.sound, str) else task.sound.captions
    captions = [str(rng.choice(_WITH.split("|"))).format(sound=rng.choice(phrases)) for _ in range(8)]
    captions = [str(phrases[0]), *dict.fromkeys(captions)]
    example = Example(
        id=task.id,
        audios={"scene": Recording("-", out.size / SAMPLE_RATE)},
        split=task.split,
        text=task.spoken.text,
        phonemes=phones,
        language="en",
        label=task.sound if isinstance(task.sound, str) else task.sound.label,
        caption=captions[0],
        captions=tuple(captions[1:]),
        engine=f"{task.spoken.engine}, mixture",
        licence=joined((task.spoken.licence, real.licence if real else LICENCE), " + "),
        attribution=real.attribution if real else None,
        source="synth_spoken_scene",
    )
    return example, {"scene": out.astype(np.float32)}


@dataclass(frozen=True)
class Noisy:
    """Noisy and clean speech: numbers of examples, real sets of speech, of sounds, and of ambience."""

    train: int = 200
    dev: int = 24
    speech: tuple[str, ...] = ("librispeech_voices", "librispeech_text", "vctk_p239")
    sounds: tuple[str, ...] = ("esc10", "ambience")

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """A group for each split; half of the speech is recorded."""
        return {
            f"noisy_{split}": Group(list(self._tasks(material, split, count, seed)), 30)
            for split, count in (("train", self.train), ("dev", self.dev))
        }

    def _tasks(self, material: Material, split: str, count: int, seed: int) -> Iterator[NoiseTask]:
        spoken = plan_spoken(material, split, count, seed, "noisy")
        recorded = stretches(material, self.speech, split, seed, count)
        sounds = [each for name in self.sounds for each in material.recordings(name, split, seed, None)]
        rng = random.Random(f"{seed}-noisy-{split}")
        for index in range(count):
            speech = recorded[index % len(recorded)] if index % 2 and recorded else spoken[index % len(spoken)]
            draw = rng.random()
            noise = rng.choice(sounds) if sounds and draw < 0.6 else None if draw < 0.85 else "rain"
            snr_db = round(rng.uniform(0.0, 15.0), 1)
            room = rng.random() < 0.3
            yield NoiseTask(f"noisy_{split}-{index:04d}", speech, noise, snr_db, room, split)

    @staticmethod
    def render(tasks: Sequence[NoiseTask], seed: int) -> list[Clip]:
        """An example for each task."""
        ours = [(t.speech.sentence, t.speech.voice) for t in tasks if isinstance(t.speech, Spoken)]
        said = iter(speak_all(ours, seed))
        clips: list[Clip] = []
        for task in tasks:
            wave = next(said) if isinstance(task.speech, Spoken) else task.speech.audio().numpy()[0]
            if wave.size > SAMPLE_RATE // 2:
                clips.append(_noisy(task, wave, np.random.default_rng([seed, *task.id.encode()])))
        return clips


def _noisy(task: NoiseTask, wave: Wave, rng: np.random.Generator) -> Clip:
    clean = dsp.set_level(dsp.fade(wave), -25.0 + rng.normal(0, 1))
    heard = clean
    if task.room:
        response = room_response(rng, 1.0)
        heard = np.convolve(clean, response)[: clean.size].astype(np.float32)
    if task.background is None:
        noise = coloured_noise(rng, clean.size, rng.uniform(0.0, 2.0))
    else:
        noise = background(task.background, clean.size, rng)
    level = np.sqrt(np.mean(clean**2)) / (np.sqrt(np.mean(noise**2)) + 1e-9)
    noisy = heard + noise * level * 10 ** (-task.snr_db / 20)
    peak = max(1.0, float(np.abs(noisy).max()) / 0.95)  # both scaled alike
    waves = {"noisy": (noisy / peak).astype(np.float32), "clean": (clean / peak).astype(np.float32)}
    parts = [task.speech, *([task.background] if isinstance(task.background, Example) else [])]
    example = Example(
        id=task.id,
        audios={name: Recording("-", each.size / SAMPLE_RATE) for name, each in waves.items()},
        split=task.split,
        text=task.speech.text if isinstance(task.speech, Spoken) else None,
        language="en",
        label=f"{task.snr_db} dB{', room' if task.room else ''}",
        engine=f"{task.speech.engine}, mixture" if isinstance(task.speech, Spoken) else "mixture",
        licence=joined((part.licence for part in parts), " + "),
        attribution=joined((part.attribution for part in parts), "; "),
        source="synth_noisy",
    )
    return example, waves


def background(sound: Background, size: int, rng: np.random.Generator) -> Wave:
    """``size`` samples of a sound: a procedural one of that length, or a stretch of a recording, repeated if short."""
    if isinstance(sound, str):
        return dsp.fade(CLASSES[sound].recipe(rng, size))
    wave = sound.audio().numpy()[0]
    if wave.size >= size:
        return dsp.loudest(wave, size)
    return np.resize(wave, size)
