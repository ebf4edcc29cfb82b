"""Spoken clips: who says what (a deterministic plan), and the rendering of a planned clip.

Every English clip carries the same canonical phones whatever its voice. Held-out voices never occur in train.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.engines.espeak import phonemes, restart_espeak
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.sentences import Sentence, common_words
from uniaudio2.data.synth.voices import Voice, Wave, engine, synthesise, voice_group
from uniaudio2.errors import UserError

HOUSE_VOICES = {
    "en": Voice("hibari", "heart"),
    "zh": Voice("kokoro", "zf_xiaoxiao", "zh"),
    "yue": Voice("espeak-ng", "yue", "yue", 50, 160),
}
"""The voice that speaks when none is asked for."""

KEYWORDS = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COMMAND_LIST = """
yes, no, stop, go, up, down, left, right, on, off, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen,
seventeen, eighteen, nineteen, twenty, coffee, espresso, latte, cappuccino, mocha, americano, iced coffee,
hot chocolate, milk, cream, sugar, large, medium, small, single shot, double shot, triple shot, light roast,
dark roast, medium roast, eight ounce, twelve ounce, sixteen ounce, twenty ounce, brown sugar, a little milk,
hello, thank you, play music, turn on, turn off
"""
COMMAND_WORDS = tuple(word.strip() for word in _COMMAND_LIST.split(","))

_SECONDS_PER_CHAR = {"en": 0.075, "zh": 0.24, "yue": 0.24}
"""Rough speaking time, used only to turn hours into a number of clips."""

SHARED_CLIPS = 0.42
"""Part of the clips whose sentence other voices read as well; makes about a quarter of the sentences shared."""


@dataclass(frozen=True)
class SpeechTask:
    """One clip to be spoken: its id, voice, sentence, language and split."""

    id: str
    voice: Voice
    sentence: Sentence
    language: str
    split: str = "train"
    source: str = "synth_speech"


@dataclass(frozen=True)
class Speech:
    """Speech as a part of a corpus.

    Attributes:
        hours: How much by group of voices (see `uniaudio2.data.synth.voices.voice_group`), in the order in which the
            groups draw sentences.
        words: Clips of single English words.
        dev_sentences: Sentences by language that are kept for dev; they are never in train.
        speak_dev: Speak them too.
        first_sentence: Train starts here in the shuffled lists; what comes before belongs to another corpus.
        held_out_engines: Engines whose held-out voices read dev.
        seen_engines: Engines whose first training voices read dev as well.
        word_groups: Groups whose voices say three of ten words, in turn; ``many_group`` says the others.
        many_group: A group of many voices.
    """

    hours: Mapping[str, float]
    words: int = 0
    dev_sentences: Mapping[str, int] = field(default_factory=lambda: {"en": 400, "zh": 100, "yue": 100})
    speak_dev: bool = True
    first_sentence: int = 0
    held_out_engines: tuple[str, ...] = ("flite", "festival", "espeak-ng")
    seen_engines: tuple[str, ...] = ("flite", "espeak-ng")
    word_groups: tuple[str, ...] = ("flite_slt", "flite_rms", "flite_kal16", "festival_kal")
    many_group: str = "espeak_en"

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """Tasks of every group whose voices speak here."""
        groups: dict[str, Group] = {}
        for name, tasks in plan_speech(self, lambda language: material.sentences(language, seed), seed).items():
            size = voice_group(name).clips_per_unit if name in self.hours else 200
            groups[name] = Group([task for task in tasks if material.speaks(task.voice)], size)
        return groups

    @staticmethod
    def render(tasks: Sequence[SpeechTask], seed: int) -> list[Clip]:
        """See `render_speech`."""
        return render_speech(tasks, seed)


def seen_voices(language: str, engines: Sequence[str]) -> list[Voice]:
    """The first eight training voices of each engine, and the house voice."""
    voices: list[Voice] = []
    for name in engines:
        groups = [group.voices for group in engine(name).groups().values() if group.language == language]
        voices += [voice for group in groups for voice in group if voice not in HOUSE_VOICES.values()][:8]
    return voices


class _Pool:
    """Hands out sentences: mostly fresh ones, at times one that other voices read too."""

    def __init__(self, sentences: Sequence[Sentence], num_clips: int, seed: str) -> None:
        self._random = random.Random(seed)
        num_shared = min(max(1, round(num_clips * SHARED_CLIPS / 2.6)), max(1, len(sentences) // 3))
        self._shared = list(sentences[:num_shared])
        self._fresh = list(sentences[num_shared:]) or list(sentences)
        self._next = 0

    def draw(self, used: set[str]) -> Sentence:
        """A sentence that is not in ``used`` (what this voice said before), where possible."""
        if self._random.random() < SHARED_CLIPS:
            for _ in range(4):
                sentence = self._random.choice(self._shared)
                if sentence.text not in used:
                    return sentence
        sentence = self._fresh[self._next % len(self._fresh)]
        self._next += 1
        return sentence


def plan_speech(
    speech: Speech, sentences: Callable[[str], Sequence[Sentence]], seed: int
) -> dict[str, list[SpeechTask]]:
    """Decide who says what.

    Args:
        speech: How much of each group.
        sentences: Gives the shuffled sentences of a language.
        seed: Seed of every choice.

    Returns:
        Tasks by group name; a pure function of the arguments. No sentence of dev is in train.

    Raises:
        UserError: If a group is unknown, or no sentence is left for it.
    """
    hours = {name: amount for name, amount in speech.hours.items() if amount > 0}
    groups: dict[str, list[SpeechTask]] = {}
    for language, held in speech.dev_sentences.items():
        own = {name: amount for name, amount in hours.items() if voice_group(name).language == language}
        words = speech.words if language == "en" else 0
        dev = held if speech.speak_dev else 0
        if not (own or words or dev):
            continue
        ordered = sentences(language)
        train = ordered[held + speech.first_sentence :]
        groups[f"dev_{language}"] = _plan_dev(speech, ordered[:dev], language)
        groups |= _plan_groups(own, train, language, seed)
        if words:
            groups["words"] = _plan_words(speech, train, seed)
    return {name: tasks for name, tasks in groups.items() if tasks}


def _plan_groups(
    hours: Mapping[str, float], sentences: Sequence[Sentence], language: str, seed: int
) -> dict[str, list[SpeechTask]]:
    """The groups of one language; they draw from one pool, so that their sentences differ."""
    if not hours:
        return {}
    if not sentences:
        raise UserError(f"no {language} sentence is left for a preset that starts this far into the list")
    sample = sentences[:5000]
    mean_s = _SECONDS_PER_CHAR[language] * sum(len(s.text) for s in sample) / max(len(sample), 1)
    counts = {name: round(amount * 3600 / mean_s) for name, amount in hours.items()}
    pool = _Pool(sentences, sum(counts.values()), f"{seed}-{language}")
    used: dict[str, set[str]] = {}
    groups: dict[str, list[SpeechTask]] = {}
    for name, count in counts.items():
        rng = random.Random(f"{seed}-{name}")
        voices = voice_group(name).voices
        groups[name] = []
        for index in range(count):
            voice = voices[index % len(voices)]
            rates = engine(voice.engine).rates
            if rates and voice not in HOUSE_VOICES.values():
                rate = min(rates[1], max(rates[0], voice.rate + rng.randint(-15, 15)))
                voice = dataclasses.replace(voice, rate=rate)
            said = used.setdefault(voice.speaker, set())
            sentence = pool.draw(said)
            said.add(sentence.text)
            groups[name].append(SpeechTask(f"{name}-{index:05d}", voice, sentence, language))
    return groups


def _plan_dev(speech: Speech, sentences: Sequence[Sentence], language: str) -> list[SpeechTask]:
    """Every dev sentence once by a held-out voice and once by a voice that is in train; English words too."""
    held = [voice for name in speech.held_out_engines for voice in engine(name).held_out(language)]
    seen = seen_voices(language, speech.seen_engines)
    house = HOUSE_VOICES[language]
    if house.engine in speech.seen_engines:
        seen = [house, *seen, house] if language == "en" else [*seen, *[house] * 4]
    tasks: list[SpeechTask] = []
    for index, sentence in enumerate(sentences):
        for kind, voices in (("unseen", held), ("seen", seen)):
            if voices:
                name = f"dev_{language}-{kind}-{index:04d}"
                voice = voices[index % len(voices)]
                tasks.append(SpeechTask(name, voice, sentence, language, "dev", f"synth_{kind}_voice"))
    if language == "en" and sentences:
        for voice in held:
            for word in (*DIGITS, *KEYWORDS):
                name = f"dev_words-{voice.speaker.replace('/', '_')}-{word.replace(' ', '_')}"
                tasks.append(SpeechTask(name, voice, Sentence(word, word + "."), "en", "dev", "synth_words"))
    return tasks


def _plan_words(speech: Speech, sentences: Sequence[Sentence], seed: int) -> list[SpeechTask]:
    """Single words and pairs over many voices: digits, keywords, commands, frequent words."""
    rng = random.Random(f"{seed}-words")
    frequent = common_words(sentences[:20000], 600)
    many = voice_group(speech.many_group).voices
    voices = [voice for name in speech.word_groups for voice in voice_group(name).voices]
    tasks: list[SpeechTask] = []
    for index in range(speech.words):
        draw = rng.random()
        if draw < 0.34:
            word = DIGITS[index % 10]
        elif draw < 0.40:
            word = " ".join(rng.choices(DIGITS, k=rng.randint(2, 3)))
        elif draw < 0.62:
            word = KEYWORDS[index % len(KEYWORDS)]
        elif draw < 0.74:
            word = rng.choice(COMMAND_WORDS)
        elif draw < 0.90:
            word = rng.choice(frequent)
        else:
            word = " ".join(rng.sample(frequent, 2))
        voice = rng.choice(voices) if rng.random() < 0.3 else rng.choice(many)
        if engine(voice.engine).rates:
            voice = dataclasses.replace(voice, rate=rng.randint(120, 190))
        tasks.append(SpeechTask(f"words-{index:05d}", voice, Sentence(word, word + "."), "en", source="synth_words"))
    return tasks


def render_speech(tasks: Sequence[SpeechTask], rng_seed: int) -> list[Clip]:
    """Speak planned clips.

    Args:
        tasks: Any mix of voices; equal voices are spoken together.
        rng_seed: Seed of the level jitter and of espeak-ng's flutter.

    Returns:
        An example (its ``path``, ``start`` are placeholders) and 24 kHz samples for every clip that the engine could
        speak and whose phones are known, in the order of ``tasks``.
    """
    restart_espeak(rng_seed + 1)
    by_voice: dict[Voice, list[int]] = {}
    for index, task in enumerate(tasks):
        by_voice.setdefault(task.voice, []).append(index)
    waves: dict[int, Wave] = {}
    for voice, indices in by_voice.items():
        spoken = synthesise([tasks[index].sentence.spoken for index in indices], voice)
        for index, (wave, rate) in zip(indices, spoken, strict=True):
            waves[index] = dsp.finish(wave, rate)
    rendered: list[Clip] = []
    for index, task in enumerate(tasks):
        wave = waves[index]
        phones = phonemes(task.sentence.text, task.language)
        # Choice: clips without known phones, or with an impossible tempo, are dropped: their label would be wrong.
        if phones is None or wave.size < 0.15 * SAMPLE_RATE or wave.size < 0.02 * SAMPLE_RATE * len(phones.split()):
            continue
        rng = np.random.default_rng([rng_seed, index, len(task.id), *task.id.encode()])
        wave = dsp.set_level(wave, -23.0 + float(np.clip(rng.normal(0.0, 1.5), -4.0, 4.0)))
        example = Example(
            id=task.id,
            path="-",
            duration=wave.size / SAMPLE_RATE,
            split=task.split,
            kind="speech",
            text=task.sentence.text,
            phonemes=phones,
            language=task.language,
            speaker=task.voice.speaker,
            engine=task.voice.engine,
            licence=engine(task.voice.engine).licence,
            source=task.source,
        )
        rendered.append((example, wave))
    return rendered
