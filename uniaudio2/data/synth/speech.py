"""Spoken clips: who says what (a deterministic plan), and the rendering of a planned clip.

Every English clip carries the same canonical phones whatever its voice. Voices in `HELD_OUT` never occur in train.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth.engines import (
    PICO_VOICES,
    RHVOICE_VOICES,
    Voice,
    Wave,
    phonemes,
    restart_espeak,
    synthesise,
)
from uniaudio2.data.synth.sentences import Sentence, common_words, load_sentences
from uniaudio2.errors import UserError

LICENCES = {
    "espeak-ng": "output of a GPL-3 program without recorded voices, unrestricted",
    "flite": "BSD-style (CMU flite and ARCTIC voices)",
    "festival": "X11-style (festival and its diphone / HTS voices)",
    "rhvoice": "LGPL-2.1 (RHVoice and its voices alan, bdl, clb)",
    "pico": "Apache-2.0 as the Android Open Source Project publishes it (its voice data come without sources)",
}
"""What the makers of each engine ask for."""

_ACCENTS = (
    "en-us",
    "gmw/en",
    "en-us",
    "gmw/en-GB-x-rp",
    "en-us",
    "gmw/en-GB-scotland",
    "gmw/en-US-nyc",
    "gmw/en-029",
    "en-us",
    "gmw/en-GB-x-gbclan",
    "gmw/en-GB-x-gbcwmd",
)
_VARIANT_NAMES = """
f1 m1 f2 m2 f3 m3 f4 m4 f5 m5 m6 m8 klatt klatt2 klatt3 klatt4 klatt5 Alex Alicia Andrea Andy Annie Denis
Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed adam anika announcer antonio aunty
belinda benjamin boris caleb david ed edward grandma grandpa gustave ian iven john linda marcelo max michel
miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac croak
"""
_VARIANTS = tuple(_VARIANT_NAMES.split())

HELD_OUT = (
    Voice("flite", "awb"),
    Voice("festival", "ked_diphone"),
    Voice("espeak-ng", "en-us+steph3", pitch=62, rate=165),
    Voice("espeak-ng", "gmw/en+m7", pitch=42, rate=170),
    Voice("espeak-ng", "gmw/en-GB-scotland+iven2", pitch=48, rate=155),
    Voice("espeak-ng", "en-us+klatt6", pitch=38, rate=175),
)
"""English voices of the dev split; none of them occurs in train."""

HELD_OUT_CHINESE = {
    "zh": (Voice("espeak-ng", "cmn+steph3", "zh", 62, 160), Voice("espeak-ng", "cmn+m7", "zh", 42, 165)),
    "yue": (Voice("espeak-ng", "yue+steph3", "yue", 62, 160), Voice("espeak-ng", "yue+m7", "yue", 42, 165)),
}
"""Mandarin and Cantonese voices of the dev split."""

HOUSE_VOICES = {
    "en": Voice("flite", "slt"),
    "zh": Voice("espeak-ng", "cmn", "zh", 50, 160),
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

CLIPS_PER_UNIT = 200


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
class SpeechHours:
    """How much speech to plan, hours by group (and clips, where it says so)."""

    flite_slt: float = 4.5  # house voice
    flite_rms: float = 1.5
    flite_kal16: float = 1.0
    festival_kal: float = 0.5
    festival_hts: float = 0.15
    espeak_en: float = 5.0
    zh_house: float = 1.0
    zh_many: float = 1.0
    yue_house: float = 0.75
    yue_many: float = 0.75
    word_clips: int = 2500
    dev_en: int = 400  # sentences
    dev_chinese: int = 100  # sentences for each of zh and yue
    dev: bool = True  # speak the dev sentences too; they are never in train
    first_sentence: int = 0  # train starts here in the shuffled lists; what comes before belongs to another corpus
    rhvoice: float = 0.0  # each of its voices
    pico: float = 0.0  # each of its voices


def espeak_voices(language: str) -> list[Voice]:
    """All espeak-ng training voices of a language, most different ones first; pitch and rate spread over them."""
    voices: list[Voice] = []
    for index, variant in enumerate(_VARIANTS):
        pitch = 32 + (index * 19) % 41
        rate = 130 + (index * 37) % 91
        if language == "en":
            voices.append(Voice("espeak-ng", f"{_ACCENTS[index % len(_ACCENTS)]}+{variant}", "en", pitch, rate))
        elif index < 30:
            prefix = {"zh": "cmn", "yue": "yue"}[language]
            voices.append(Voice("espeak-ng", f"{prefix}+{variant}", language, pitch, min(rate, 200)))
    if language == "en":
        voices.append(Voice("espeak-ng", "en-us", "en", 50, 170))
        voices.append(Voice("espeak-ng", "gmw/en", "en", 45, 160))
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


def plan_speech(text_folder: Path, hours: SpeechHours, seed: int) -> dict[str, list[SpeechTask]]:
    """Decide who says what.

    Args:
        text_folder: Folder with the sentence lists.
        hours: How much of each group.
        seed: Seed of every choice.

    Returns:
        Tasks by group name; a pure function of the arguments and the lists. No sentence of dev is in train.
    """
    groups: dict[str, list[SpeechTask]] = {}
    lists = {language: load_sentences(text_folder, language, seed=seed) for language in ("en", "zh", "yue")}
    held = {"en": hours.dev_en, "zh": hours.dev_chinese, "yue": hours.dev_chinese}
    train = {language: lists[language][held[language] + hours.first_sentence :] for language in lists}
    for language in ("en", "zh", "yue") if hours.dev else ():
        groups[f"dev_{language}"] = _plan_dev(lists[language][: held[language]], language)

    english = {
        "flite_slt": (hours.flite_slt, [HOUSE_VOICES["en"]]),
        "flite_rms": (hours.flite_rms, [Voice("flite", "rms")]),
        "flite_kal16": (hours.flite_kal16, [Voice("flite", "kal16")]),
        "festival_kal": (hours.festival_kal, [Voice("festival", "kal_diphone")]),
        "festival_hts": (hours.festival_hts, [Voice("festival", "cmu_us_slt_arctic_hts")]),
        "espeak_en": (hours.espeak_en, espeak_voices("en")),
        "rhvoice": (hours.rhvoice * len(RHVOICE_VOICES), [Voice("rhvoice", name) for name in RHVOICE_VOICES]),
        "pico": (hours.pico * len(PICO_VOICES), [Voice("pico", name) for name in PICO_VOICES]),
    }
    _plan_groups(groups, english, train["en"], "en", seed)
    for language in ("zh", "yue"):
        parts = {
            f"{language}_house": (getattr(hours, f"{language}_house"), [HOUSE_VOICES[language]]),
            f"{language}_many": (getattr(hours, f"{language}_many"), espeak_voices(language)),
        }
        _plan_groups(groups, parts, train[language], language, seed)
    groups["words"] = _plan_words(train["en"], hours.word_clips, seed)
    return {name: tasks for name, tasks in groups.items() if tasks}


def _plan_groups(
    groups: dict[str, list[SpeechTask]],
    parts: dict[str, tuple[float, list[Voice]]],
    sentences: Sequence[Sentence],
    language: str,
    seed: int,
) -> None:
    """Add the groups of one language; they draw from one pool, so that their sentences differ."""
    parts = {name: part for name, part in parts.items() if part[0] > 0}
    if not parts:
        return
    if not sentences:
        raise UserError(f"no {language} sentence is left for a preset that starts this far into the list")
    sample = sentences[:5000]
    mean_s = _SECONDS_PER_CHAR[language] * sum(len(s.text) for s in sample) / max(len(sample), 1)
    counts = {name: round(hours * 3600 / mean_s) for name, (hours, _) in parts.items()}
    pool = _Pool(sentences, sum(counts.values()), f"{seed}-{language}")
    used: dict[str, set[str]] = {}
    for name, (_, voices) in parts.items():
        rng = random.Random(f"{seed}-{name}")
        tasks: list[SpeechTask] = []
        for index in range(counts[name]):
            voice = voices[index % len(voices)]
            if voice not in HOUSE_VOICES.values() and voice.engine == "espeak-ng":
                rate = min(220, max(130, voice.rate + rng.randint(-15, 15)))
                voice = Voice(voice.engine, voice.name, language, voice.pitch, rate)
            said = used.setdefault(voice.speaker, set())
            sentence = pool.draw(said)
            said.add(sentence.text)
            tasks.append(SpeechTask(f"{name}-{index:05d}", voice, sentence, language))
        groups[name] = tasks


def _plan_dev(sentences: Sequence[Sentence], language: str) -> list[SpeechTask]:
    """Every dev sentence once by a held-out voice and once by a voice that is in train; English words too."""
    held = HELD_OUT if language == "en" else HELD_OUT_CHINESE[language]
    seen = espeak_voices(language)[:8] + [HOUSE_VOICES[language]] * (1 if language == "en" else 4)
    if language == "en":
        seen = [HOUSE_VOICES["en"], Voice("flite", "rms"), Voice("flite", "kal16"), *seen]
    tasks: list[SpeechTask] = []
    for index, sentence in enumerate(sentences):
        for kind, voices in (("unseen", held), ("seen", seen)):
            voice = voices[index % len(voices)]
            name = f"dev_{language}-{kind}-{index:04d}"
            tasks.append(SpeechTask(name, voice, sentence, language, "dev", f"synth_{kind}_voice"))
    if language == "en" and sentences:
        for voice in held:
            for word in (*DIGITS, *KEYWORDS):
                name = f"dev_words-{voice.speaker.replace('/', '_')}-{word.replace(' ', '_')}"
                tasks.append(SpeechTask(name, voice, Sentence(word, word + "."), "en", "dev", "synth_words"))
    return tasks


def _plan_words(sentences: Sequence[Sentence], count: int, seed: int) -> list[SpeechTask]:
    """Single words and pairs over many voices: digits, keywords, commands, frequent words."""
    rng = random.Random(f"{seed}-words")
    frequent = common_words(sentences[:20000], 600)
    espeak = espeak_voices("en")
    voices = [HOUSE_VOICES["en"], Voice("flite", "rms"), Voice("flite", "kal16"), Voice("festival", "kal_diphone")]
    tasks: list[SpeechTask] = []
    for index in range(count):
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
        voice = rng.choice(voices) if rng.random() < 0.3 else rng.choice(espeak)
        if voice.engine == "espeak-ng":
            voice = Voice(voice.engine, voice.name, "en", voice.pitch, rng.randint(120, 190))
        tasks.append(SpeechTask(f"words-{index:05d}", voice, Sentence(word, word + "."), "en", source="synth_words"))
    return tasks


def render_speech(tasks: Sequence[SpeechTask], rng_seed: int) -> list[tuple[Example, Wave]]:
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
            waves[index] = finish(wave, rate)
    rendered: list[tuple[Example, Wave]] = []
    for index, task in enumerate(tasks):
        wave = waves[index]
        phones = phonemes(task.sentence.text, task.language)
        # Choice: clips without known phones, or with an impossible tempo, are dropped: their label would be wrong.
        if phones is None or wave.size < 0.15 * SAMPLE_RATE or wave.size < 0.02 * SAMPLE_RATE * len(phones.split()):
            continue
        rng = np.random.default_rng([rng_seed, index, len(task.id), *task.id.encode()])
        wave = set_level(wave, -23.0 + float(np.clip(rng.normal(0.0, 1.5), -4.0, 4.0)))
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
            licence=LICENCES[task.voice.engine],
            source=task.source,
        )
        rendered.append((example, wave))
    return rendered


def finish(wave: Wave, rate: int, *, margin_s: float = 0.1) -> Wave:
    """Resample to 24 kHz and trim silence at both ends, leaving ``margin_s`` of it where there was any."""
    if wave.size == 0:
        return wave
    if rate != SAMPLE_RATE:
        wave = soxr.resample(wave, rate, SAMPLE_RATE).astype(np.float32)
    return trim_silence(wave, margin_s=margin_s)


def trim_silence(wave: Wave, *, margin_s: float = 0.1, floor_db: float = -42.0) -> Wave:
    """Cut both ends where 10 ms frames lie ``floor_db`` below the loudest frame; empty if all is silent."""
    frame = SAMPLE_RATE // 100
    usable = wave.size // frame * frame
    if usable == 0:
        return wave[:0]
    level = np.sqrt(np.mean(wave[:usable].reshape(-1, frame) ** 2, axis=1))
    loud = np.flatnonzero(level > max(float(level.max()), 1e-6) * 10 ** (floor_db / 20))
    if level.max() < 1e-5 or loud.size == 0:
        return wave[:0]
    margin = round(margin_s * SAMPLE_RATE)
    return wave[max(0, loud[0] * frame - margin) : (loud[-1] + 1) * frame + margin]


def set_level(wave: Wave, level_dbfs: float, *, ceiling: float = 0.95) -> Wave:
    """Scale to an RMS level (dB relative to full scale), but never above ``ceiling``."""
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    peak = float(np.abs(wave).max(initial=0.0))
    if rms <= 0 or peak <= 0:
        return wave
    return (wave * min(10 ** (level_dbfs / 20) / rms, ceiling / peak)).astype(np.float32)
