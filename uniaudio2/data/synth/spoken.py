"""What the parts that make speech for a task share: which sentences and voices, and their speech."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.engines.espeak import phonemes, restart_espeak
from uniaudio2.data.synth.renderer import Material
from uniaudio2.data.synth.sentences import Sentence
from uniaudio2.data.synth.voices import Voice, Wave, engine, synthesise, voice_group

DEV_SENTENCES = {"en": 400, "zh": 100}
"""The first of the shuffled lists belong to dev, as in the preset ``nano``."""

FIRST_SENTENCE = 20000
"""Train starts here, behind what the other presets use."""

CHARACTERS = {"en": (18, 42), "zh": (5, 12)}
"""Shortest and longest sentence, so that a clip lasts about 1.5 to 4 s."""


LONGEST_STRETCH_S = 3.4
"""Longer recordings are cut."""


@dataclass(frozen=True)
class Spoken:
    """A sentence and who is to say it; it names itself as a recording (an `Example`) does."""

    sentence: Sentence
    voice: Voice

    @property
    def speaker(self) -> str:
        """Name of the speaker in manifests."""
        return self.voice.speaker

    @property
    def text(self) -> str:
        """What is said."""
        return self.sentence.text

    @property
    def engine(self) -> str:
        """Who makes it."""
        return self.voice.engine

    @property
    def licence(self) -> str:
        """What the engine's makers ask for."""
        return engine(self.voice.engine).licence

    @property
    def attribution(self) -> str | None:
        """Nobody is to be credited."""
        return None


def joined(values: Iterable[str | None], between: str) -> str | None:
    """Licences or credits of all that went into a clip, each once; None if there are none."""
    return between.join(dict.fromkeys(value for value in values if value)) or None


def task_sentences(material: Material, language: str, split: str, seed: int, part: str) -> list[Sentence]:
    """Sentences of a split in an order of one's own; ``part`` names whose."""
    ordered = material.sentences(language, seed)
    if split == "train":
        # Choice: the built-in list is shorter than where train starts; without lists it starts behind dev.
        ordered = ordered[FIRST_SENTENCE if len(ordered) > 1.5 * FIRST_SENTENCE else DEV_SENTENCES[language] :]
    else:
        ordered = ordered[: DEV_SENTENCES[language]]
    shortest, longest = CHARACTERS[language]
    kept = [sentence for sentence in ordered if shortest <= len(sentence.text) <= longest]
    random.Random(f"{seed}-{part}-{split}-{language}").shuffle(kept)
    return kept


def training_voices(material: Material, groups: Sequence[str]) -> list[Voice]:
    """Voices of groups that speak here."""
    return [voice for name in groups for voice in voice_group(name).voices if material.speaks(voice)]


def held_out_voices(material: Material, engines: Sequence[str], language: str) -> list[Voice]:
    """Voices for dev alone that speak here."""
    return [voice for name in engines for voice in engine(name).held_out(language) if material.speaks(voice)]


def plan_spoken(material: Material, split: str, count: int, seed: int, part: str) -> list[Spoken]:
    """English sentences by voices of every engine, natural ones most often; held-out voices in dev."""
    if split == "train":
        natural = training_voices(material, ["hibari", "flite_slt", "flite_rms"])
        others = training_voices(material, ["espeak_en"])[:24]
    else:
        natural = held_out_voices(material, ["flite", "kokoro"], "en")
        others = held_out_voices(material, ["espeak-ng"], "en")
    sentences = task_sentences(material, "en", split, seed, part)
    rng = random.Random(f"{seed}-{part}-{split}-voices")
    voices = [rng.choice(natural if natural and (not others or rng.random() < 0.6) else others) for _ in range(count)]
    return [Spoken(sentences[index % len(sentences)], voice) for index, voice in enumerate(voices)]


def stretches(material: Material, sets: Sequence[str], split: str, seed: int, count: int) -> list[Example]:
    """Recordings of real sets in turn, cut to a length; without text where they were cut."""
    found = [example for name in sets for example in material.recordings(name, split, seed, None)]
    rng = random.Random(f"{seed}-stretches-{split}")
    rng.shuffle(found)
    cut: list[Example] = []
    for example in found[:count]:
        if example.duration > LONGEST_STRETCH_S + 0.3:
            start = example.start + rng.uniform(0.0, example.duration - LONGEST_STRETCH_S)
            example = dataclasses.replace(example, start=round(start, 2), duration=LONGEST_STRETCH_S, text=None)
        cut.append(example)
    return cut


def speak_all(said: Sequence[tuple[Sentence, Voice]], seed: int) -> list[Wave]:
    """Speak sentences, equal voices together; 24 kHz, without silence at the ends, in order; empty where one failed."""
    restart_espeak(seed + 1)
    by_voice: dict[Voice, list[int]] = {}
    for index, (_, voice) in enumerate(said):
        by_voice.setdefault(voice, []).append(index)
    waves: dict[int, Wave] = {}
    for voice, indices in by_voice.items():
        for index, (wave, rate) in zip(
            indices, synthesise([said[index][0].spoken for index in indices], voice), strict=True
        ):
            waves[index] = dsp.finish(wave, rate)
    return [waves[index] for index in range(len(said))]


def phones_of(sentence: Sentence, wave: Wave, language: str) -> str | None:
    """The phones that are said; None where they are unknown or the tempo is impossible: such a clip is left out."""
    phones = phonemes(sentence.text, language)
    return phones if phones and wave.size >= 0.02 * SAMPLE_RATE * len(phones.split()) else None
