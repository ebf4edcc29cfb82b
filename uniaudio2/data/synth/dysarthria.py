"""Speech that is hard to articulate, made from clear speech, as a part of a corpus.

What is changed follows the usual description of dysarthria (Darley et al., 1969): slow and irregular tempo with
pauses, slurring, imprecise consonants, monotony or an unstable pitch, a breathy voice. It is a model of the symptoms,
not of any speaker. An example has ``dysarthric`` and, in dev, the clear clip as ``plain``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from uniaudio2.data.example import Recording
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp, world
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.sentences import Sentence
from uniaudio2.data.synth.spoken import held_out_voices, phones_of, speak_all, task_sentences, training_voices
from uniaudio2.data.synth.voices import Voice, Wave, engine

SEVERITIES = {"mild": 0.4, "moderate": 0.7, "severe": 1.0}


@dataclass(frozen=True)
class DysarthriaTask:
    """One example."""

    id: str
    voice: Voice
    sentence: Sentence
    severity: str
    split: str


@dataclass(frozen=True)
class Dysarthria:
    """Numbers of examples."""

    train: int = 200
    dev: int = 24

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """A group for each split."""
        return {
            f"dysarthric_{split}": Group(list(_plan(material, count, split, seed)), 20)
            for split, count in (("train", self.train), ("dev", self.dev))
        }

    @staticmethod
    def render(tasks: Sequence[DysarthriaTask], seed: int) -> list[Clip]:
        """An example for each task whose phones are known."""
        clips: list[Clip] = []
        for task, wave in zip(tasks, speak_all([(task.sentence, task.voice) for task in tasks], seed), strict=True):
            phones = phones_of(task.sentence, wave, "en")
            if phones:
                clips.append(_render(task, wave, phones, seed))
        return clips


def _plan(material: Material, count: int, split: str, seed: int) -> Iterator[DysarthriaTask]:
    if not world.has_pyworld(material):
        return
    if split == "train":
        many = training_voices(material, ["espeak_en"])[:12]
        voices = [*training_voices(material, ["hibari", "hibari", "hibari", "flite_slt", "flite_rms"]), *many]
        weights = [4 if voice.engine != "espeak-ng" else 0.5 for voice in voices]
    else:
        voices = held_out_voices(material, ["flite", "kokoro"], "en")
        weights = [1.0] * len(voices)
    sentences = task_sentences(material, "en", split, seed, "dysarthria")
    rng = random.Random(f"{seed}-dysarthria-{split}")
    for index in range(count if voices else 0):
        severity = list(SEVERITIES)[index % 3]
        [voice] = rng.choices(voices, weights)
        sentence = sentences[index % len(sentences)]
        yield DysarthriaTask(f"dysarthric_{split}-{index:04d}", voice, sentence, severity, split)


def dysarthric(wave: Wave, severity: float, rng: np.random.Generator) -> Wave:
    """Clear speech (N,) at 24 kHz as if it were hard to articulate.

    Args:
        wave: The clear speech.
        severity: 0 (as it is) to 1.
        rng: Source of every choice.
    """
    parts = world.analyse(wave)
    frames = len(parts.f0)
    seconds = frames * world.FRAME_MS / 1000

    def course(rate_hz: float) -> world.Array:
        """A random contour between -1 and 1."""
        knots = rng.uniform(-1, 1, max(4, round(seconds * rate_hz) + 2))
        return np.interp(np.linspace(0, len(knots) - 1, frames), np.arange(len(knots)), knots)

    # Imprecise: what the tongue does in a moment is spread over up to 90 ms, and hiss loses its edge.
    width = 1 + severity * rng.uniform(6, 18)
    envelope = np.exp(ndimage.gaussian_filter1d(np.log(parts.envelope + 1e-12), width / 2.5, axis=0))
    parts = world.with_gain(
        replace(parts, envelope=envelope), [0, 2500, 5000, 12000], [0, 0, *(-severity * np.array([7, 12]))]
    )
    # Nasal and breathy.
    breath = np.clip(parts.aperiodicity + severity * rng.uniform(0.0, 0.35), 0, 1)
    parts = replace(parts, aperiodicity=breath)
    # Monotone with a tremor, or unstable.
    spread = rng.uniform(0.2, 0.6) if rng.random() < 0.5 else 1.1
    tremor = 0.04 * np.sin(2 * np.pi * rng.uniform(4, 7) * np.arange(frames) * world.FRAME_MS / 1000)
    parts = world.with_pitch(parts, 2 ** rng.uniform(-0.2, 0.1), 1 + severity * (spread - 1))
    parts = replace(parts, f0=parts.f0 * 2 ** (severity * (0.22 * course(2.5) + tremor)))
    # Slow, unevenly so, with breaks.
    pace = 1 - severity * (rng.uniform(0.25, 0.45) + 0.2 * course(1.5))
    at = np.interp(np.arange(0, (1 / pace).sum()), np.cumsum(1 / pace), np.arange(frames))
    loudness = 10 ** (severity * 5 * course(2.0) / 20)
    out = world.synthesise(world.with_times(parts, at))
    out = out * np.interp(np.linspace(0, 1, out.size), np.linspace(0, 1, frames), loudness)
    return _with_breaks(out.astype(np.float32), int(rng.integers(0, 1 + round(3 * severity))), rng)


def _with_breaks(wave: Wave, count: int, rng: np.random.Generator) -> Wave:
    """Pauses of 0.15 to 0.4 s where the speech is softest."""
    frame = dsp.SAMPLE_RATE // 50
    inner = np.square(wave[: wave.size // frame * frame]).reshape(-1, frame).mean(1)
    inner[: len(inner) // 8], inner[-(len(inner) // 8 + 1) :] = np.inf, np.inf
    for _ in range(count):
        softest = int(np.argmin(inner))
        inner[max(0, softest - 15) : softest + 15] = np.inf
        pause = np.zeros(int(rng.uniform(0.15, 0.4) * dsp.SAMPLE_RATE), np.float32)
        place = softest * frame
        wave = np.concatenate([dsp.fade(wave[:place]), pause, dsp.fade(wave[place:])])
        inner = np.concatenate([inner[:softest], np.full(pause.size // frame, np.inf), inner[softest:]])
    return wave


def _render(task: DysarthriaTask, wave: Wave, phones: str, seed: int) -> Clip:
    rng = np.random.default_rng([seed, *task.id.encode()])
    made = dysarthric(wave, SEVERITIES[task.severity] * rng.uniform(0.85, 1.0), rng)
    waves = {"dysarthric": dsp.set_level(dsp.fade(made), -25.0 + rng.normal(0, 2))}
    if task.split == "dev":
        waves["plain"] = dsp.set_level(wave, -24.0)
    example = Example(
        id=task.id,
        audios={name: Recording("-", each.size / dsp.SAMPLE_RATE) for name, each in waves.items()},
        split=task.split,
        text=task.sentence.text,
        phonemes=phones,
        language="en",
        label=task.severity,
        engine=f"{task.voice.engine}, WORLD",
        licence=engine(task.voice.engine).licence,
        source="synth_dysarthric",
    )
    return example, waves
