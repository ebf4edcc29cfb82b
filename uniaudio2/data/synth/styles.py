"""Speech in described styles, changes of style, and one sentence in two voices, as a part of a corpus.

A *persona* is a voice of an engine with its own middle pitch and vocal tract, so that a few natural voices stand for
women, men and children. An example of a style has four audios: ``styled``, the same sentence as the persona says it
anyway (``plain``), and another sentence in the persona's own way (``reference``). One of a conversion has ``spoken``,
``converted`` (the same sentence by the other persona) and ``reference`` (another sentence by that persona).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.data.example import Recording
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp, style_words, world
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.sentences import Sentence
from uniaudio2.data.synth.spoken import phones_of, speak_all, task_sentences
from uniaudio2.data.synth.voices import Voice, Wave, engine

LEVEL_DBFS = {"quiet": -34.0, "whisper": -30.0, "sad": -27.0, "loud": -15.0, "shout": -14.0, "angry": -18.0}
"""Loudness of a style; -24 of any other."""

# Factors of pitch, of its distance from the middle, and of rate.
_COURSE = {
    "slow": (1.0, 1.0, 0.62), "fast": (1.0, 1.0, 1.55), "high": (1.38, 1.0, 1.0), "low": (0.7, 1.0, 1.0),
    "excited": (1.22, 1.6, 1.15), "sad": (0.86, 0.5, 0.78), "angry": (1.12, 1.35, 1.12), "bored": (0.95, 0.12, 0.92),
    "calm": (0.95, 0.75, 0.86), "shout": (1.0, 1.0, 0.94), "whisper": (1.0, 1.0, 0.95),
}  # fmt: skip

MIDDLE_HZ = {"female": (190.0, 215.0), "male": (108.0, 124.0), "child": (280.0, 300.0)}
"""A persona's own median pitch lies here."""

_HEART = Voice("hibari", "heart")
_SLT, _RMS, _AWB = (Voice("flite", name) for name in ("slt", "rms", "awb"))


@dataclass(frozen=True)
class Persona:
    """Who speaks: a voice of an engine, resonances ``formants`` times as high, its median pitch ``middle_hz``."""

    voice: Voice
    who: str
    formants: float
    middle_hz: float

    @property
    def speaker(self) -> str:
        """Name of the speaker in manifests."""
        return f"{self.voice.speaker}-{self.who}-{self.formants:.2f}-{self.middle_hz:.0f}"

    def parts(self, wave: Wave) -> world.World:
        """A clip of the voice as this persona says it."""
        parts = world.analyse(wave)
        middle = parts.median_f0
        return world.with_formants(world.with_pitch(parts, self.middle_hz / middle if middle else 1.0), self.formants)


def _personas(language: str, split: str) -> list[Persona]:
    """Personas of a split; those of dev have voices, or vocal tracts, that train has not."""
    kokoro = {
        ("en", "train"): "af_bella af_nova af_kore bf_emma af_sky am_puck am_fenrir am_adam bm_daniel bm_fable",
        ("en", "dev"): "af_sarah am_michael bm_george",
        ("zh", "train"): "zf_xiaoxiao zf_xiaobei zf_xiaoni zm_yunjian zm_yunyang zm_yunxia",
        ("zh", "dev"): "zf_xiaoyi zm_yunxi",
    }
    natural = [
        Persona(Voice("kokoro", name, language), *(("male", 1.0, 112) if name[1] == "m" else ("female", 1.0, 205)))
        for name in kokoro[language, split].split()
    ]
    if language == "zh":
        return natural
    if split == "dev":
        made = [(_HEART, "female", 1.035, 198), (_HEART, "male", 0.82, 116), (_AWB, "male", 1.0, 118),
                (_HEART, "child", 1.16, 292)]  # fmt: skip
    else:
        made = [(_HEART, "female", 1.0, 205), (_HEART, "male", 0.85, 112), (_SLT, "female", 1.0, 195),
                (_RMS, "male", 1.0, 110), (_HEART, "child", 1.2, 285), (_HEART, "male", 0.79, 108),
                (_HEART, "female", 1.08, 212), (_HEART, "female", 0.95, 192), (_RMS, "male", 1.07, 122),
                (_SLT, "female", 1.08, 210), (_HEART, "male", 0.89, 121), (_RMS, "male", 0.93, 108)]  # fmt: skip
    return [*(Persona(*each) for each in made), *natural]


@dataclass(frozen=True)
class StyleTask:
    """One example; ``turned_to`` is the other persona of a conversion."""

    id: str
    persona: Persona
    sentence: Sentence
    other: Sentence
    language: str
    split: str
    styles: tuple[str, ...] = ()
    turned_to: Persona | None = None


@dataclass(frozen=True)
class Styles:
    """Numbers of examples of styles by split and language, and of conversions by split."""

    train: tuple[tuple[str, int], ...] = (("en", 260), ("zh", 20))
    dev: tuple[tuple[str, int], ...] = (("en", 30), ("zh", 4))
    conversions: tuple[tuple[str, int], ...] = (("train", 60), ("dev", 12))

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """A group for each split and kind."""
        groups: dict[str, Group] = {}
        for split, counts in (("train", self.train), ("dev", self.dev)):
            tasks = [task for lang, n in counts for task in _plan_styles(material, lang, n, split, seed)]
            groups[f"styles_{split}"] = Group(tasks, 20)
        for split, count in self.conversions:
            groups[f"conversion_{split}"] = Group(list(_plan_conversions(material, count, split, seed)), 20)
        return groups

    @staticmethod
    def render(tasks: Sequence[StyleTask], seed: int) -> list[Clip]:
        """An example for each task whose phones are known."""
        said = [
            pair for task in tasks for pair in ((task.sentence, task.persona.voice), (task.other, _last(task).voice))
        ]
        waves = iter(speak_all(said, seed))
        clips: list[Clip] = []
        for task, wave, other in zip(tasks, waves, waves, strict=True):
            phones = phones_of(task.sentence, wave, task.language)
            if phones and min(wave.size, other.size) > dsp.SAMPLE_RATE // 2:
                clips.append(_render(task, wave, other, phones, seed))
        return clips


def _last(task: StyleTask) -> Persona:
    return task.turned_to or task.persona


def _people(material: Material, language: str, split: str) -> list[Persona]:
    found = [each for each in _personas(language, split) if material.speaks(each.voice)]
    return found if world.has_pyworld(material) else []


def _combinations() -> list[tuple[str, ...]]:
    """Styles in turn: each alone, none, and two of pitch, rate and loudness together."""
    alone = [(style,) for style in style_words.STYLES]
    pairs = [(a, b) for a in ("high", "low") for b in ("fast", "slow")]
    pairs += [(a, b) for a in ("fast", "slow") for b in ("loud", "quiet")]
    return [combination for i in range(4) for combination in (*alone, (), *pairs[2 * i : 2 * i + 2])]


def _plan_styles(material: Material, language: str, count: int, split: str, seed: int) -> Iterator[StyleTask]:
    people = _people(material, language, split)
    sentences = task_sentences(material, language, split, seed, "styles") if people else []
    combinations = _combinations()
    # Choice: Kokoro is slow, so in English its voices speak less often than the others.
    weights = [0.4 if each.voice.engine == "kokoro" else 1.0 for each in people]
    rng = random.Random(f"{seed}-styles-{split}-{language}")
    for index in range(count if people else 0):
        yield StyleTask(
            id=f"style_{language}_{split}-{index:04d}",
            persona=rng.choices(people, weights)[0],
            sentence=sentences[2 * index % len(sentences)],
            other=sentences[(2 * index + 1) % len(sentences)],
            language=language,
            split=split,
            styles=combinations[index % len(combinations)],
        )


def _plan_conversions(material: Material, count: int, split: str, seed: int) -> Iterator[StyleTask]:
    people = [each for each in _people(material, "en", split) if split == "dev" or each.voice.engine != "kokoro"]
    sentences = task_sentences(material, "en", split, seed, "conversion") if people else []
    rng = random.Random(f"{seed}-conversion-{split}")
    for index in range(count if people else 0):
        # Choice: both say the sentence with one timing, as a conversion keeps it, so both come from one clip.
        source = rng.choice(people)
        others = [each for each in people if each.voice == source.voice and each != source]
        target = rng.choice(others) if others else Persona(source.voice, "female", 1.1, 210)
        yield StyleTask(
            f"conversion_{split}-{index:04d}", source, sentences[2 * index % len(sentences)],
            sentences[(2 * index + 1) % len(sentences)], "en", split, turned_to=target,
        )  # fmt: skip


def styled(parts: world.World, styles: Sequence[str], rng: np.random.Generator) -> Wave:
    """Speech in a style, at its loudness; factors vary by a twelfth."""
    level = LEVEL_DBFS.get(next((each for each in styles if each in LEVEL_DBFS), ""), -24.0)
    for style in styles:
        pitch, spread, rate = (factor ** rng.uniform(0.85, 1.2) for factor in _COURSE.get(style, (1.0, 1.0, 1.0)))
        parts = world.with_rate(world.with_pitch(parts, pitch, spread), rate)
        if style == "whisper":
            parts = world.whispered(parts)
        elif style in ("shout", "angry", "loud"):
            parts = world.shouted(parts) if style == "shout" else world.with_gain(parts, [0, 500, 2500], [0, 0, 5])
    return _level(world.synthesise(parts), level + rng.normal(0.0, 0.8))


def _level(wave: Wave, level_dbfs: float) -> Wave:
    """Bring to a level; what is loud is compressed rather than left softer."""
    if level_dbfs > -20:
        wave = np.tanh(2.5 * wave / (np.abs(wave).max() + 1e-9)).astype(np.float32)
    return dsp.set_level(dsp.fade(wave), level_dbfs)


def _render(task: StyleTask, wave: Wave, other: Wave, phones: str, seed: int) -> Clip:
    rng = np.random.default_rng([seed, *task.id.encode()])
    words = random.Random(f"{seed}-{task.id}-words")
    last, language, texts = _last(task), task.language, {}
    parts = task.persona.parts(wave)
    waves = {"spoken" if task.turned_to else "plain": styled(parts, (), rng)}
    captions: list[str] = []
    if task.turned_to:
        waves["converted"] = styled(task.turned_to.parts(wave), (), rng)
    else:
        waves["styled"] = styled(parts, task.styles, rng)
        captions = [style_words.caption(last.who, task.styles, language, words) for _ in range(8)]
        texts["style"] = style_words.style(task.styles, language, words)
        if task.styles:
            texts["instruction"] = style_words.instruction(task.styles, language, words)
    waves["reference"] = styled(last.parts(other), (), rng)
    example = Example(
        id=task.id,
        audios={name: Recording("-", each.size / dsp.SAMPLE_RATE) for name, each in waves.items()},
        split=task.split,
        text=task.sentence.text,
        phonemes=phones,
        language=language,
        speaker=last.speaker,
        label=" ".join(task.styles) or ("conversion" if task.turned_to else "normal"),
        labels=(last.who, *task.styles),
        caption=captions[0] if captions else None,
        captions=tuple(dict.fromkeys(captions[1:])),
        engine=f"{last.voice.engine}, WORLD",
        licence=engine(last.voice.engine).licence,
        source="synth_conversion" if task.turned_to else "synth_styles",
        texts=texts,
    )
    return example, waves
