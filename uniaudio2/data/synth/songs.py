"""Short songs: spoken words put on the notes of a tune with WORLD, over a simple accompaniment.

Each word is spoken alone, analysed into pitch, envelope and aperiodicity, its vowel stretched to the length of the
note, and synthesised at the note's pitch.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp, soundfont
from uniaudio2.data.synth.engines.espeak import phonemes
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.soundfont import Note
from uniaudio2.data.synth.vocoder import FRAME_S, world
from uniaudio2.data.synth.voices import SynthesiserMissing, Voice, Wave, engine, synthesise

TUNES = (
    (0, 0, 4, 4, 5, 5, 4, 0),
    (4, 2, 0, 2, 4, 4, 2, 0),
    (0, 1, 2, 3, 4, 2, 1, 0),
)
"""Tunes as degrees of the major scale; a line takes as many notes from the start, and its last note is the tonic."""

_MAJOR = (0, 2, 4, 5, 7, 9, 11)

SINGERS = {
    Voice("hibari", "heart"): 60,
    Voice("flite", "rms"): 47,
    Voice("kokoro", "zf_xiaoxiao", "zh"): 60,
}
"""Who sings, and the MIDI key of the lowest tonic."""

_WORDS = {
    "noun": "moon sun star bird rose wind rain heart snow boat fox tree child king wolf bell",
    "verb": "shines sings sleeps falls calls waits flies dreams glows stays",
    "place": "sea hill sky road shore field lake house",
    "colour": "blue gold cold sweet soft bright old dark warm wild",
}
_LINES = (
    "the {noun} {verb} on the {place}",
    "the {colour} {noun} {verb} for me",
    "come with me to the {colour} {place}",
    "oh my {noun} you are so {colour}",
    "a {colour} {noun} {verb} in the {place}",
    "i will wait by the {colour} {place}",
)
_MANDARIN = ("月亮 小鸟 白云 春风 星星 红花 大雪 小船", "飞过 照着 看见 爱上 走过", "大海 高山 蓝天 草地 小河 我家")


@dataclass(frozen=True)
class SongTask:
    """One line of a song: who sings which words to which tune, the tonic's MIDI key, and seconds a beat."""

    id: str
    voice: Voice
    lyric: str
    tune: int
    tonic: int
    beat_s: float
    backing: int
    split: str = "train"

    @property
    def words(self) -> list[str]:
        """What is sung on a note each."""
        return list(self.lyric) if self.voice.language == "zh" else self.lyric.split()


def melody(count: int, tune: int, tonic: int) -> list[int]:
    """MIDI keys of a line of ``count`` notes."""
    degrees = [*TUNES[tune][: count - 1], 0]
    return [tonic + _MAJOR[degree] for degree in degrees]


def lyrics(language: str, seed: int) -> list[str]:
    """All lines of a language, shuffled."""
    if language == "zh":
        lines = ["".join(parts) for parts in itertools.product(*(words.split() for words in _MANDARIN))]
    else:
        lines = []
        for line in _LINES:
            slots = [name for name in _WORDS if "{" + name + "}" in line]
            for words in itertools.product(*(_WORDS[name].split() for name in slots)):
                lines.append(line.format(**dict(zip(slots, words, strict=True))).replace("a old", "an old"))
    random.Random(f"{seed}-{language}-lyrics").shuffle(lines)
    return lines


def plan_songs(songs: int, seed: int, *, dev: int = 0) -> list[SongTask]:
    """Lines for train, then for dev; no line is sung twice. Half are by the house voice."""
    rng = np.random.default_rng([seed, 23])
    heart, man, mandarin = SINGERS
    turns = (heart, mandarin, heart, man, heart, heart, mandarin, heart)
    left = {language: iter(lyrics(language, seed)) for language in ("en", "zh")}
    tasks: list[SongTask] = []
    for index in range(songs + dev):
        voice = turns[index % len(turns)]
        tonic = SINGERS[voice] + int(rng.integers(0, 4))
        tasks.append(
            SongTask(
                f"song-{index:05d}",
                voice,
                next(left[voice.language]),
                int(rng.integers(len(TUNES))),
                tonic,
                round(float(rng.uniform(0.36, 0.46)), 3),
                int(rng.choice([0, 24])),
                "train" if index < songs else "dev",
            )
        )
    return tasks


@dataclass(frozen=True)
class _Word:
    """A spoken word as WORLD has it: envelope and aperiodicity (frames, bins), which frames are voiced."""

    envelope: np.ndarray
    aperiodicity: np.ndarray
    voiced: np.ndarray


@functools.lru_cache(maxsize=512)
def _word(text: str, voice: Voice) -> _Word | None:
    """Speak and analyse a word; None if nothing in it is voiced."""
    pyworld = world()
    ((wave, rate),) = synthesise([text + ("。" if voice.language == "zh" else ".")], voice)
    wave = dsp.set_level(dsp.finish(wave, rate, margin_s=0.02), -20.0).astype(np.float64)
    if wave.size < 0.05 * SAMPLE_RATE:
        return None
    pitch, times = pyworld.dio(wave, SAMPLE_RATE, frame_period=FRAME_S * 1000)
    pitch = pyworld.stonemask(wave, pitch, times, SAMPLE_RATE)
    if not (pitch > 0).any():
        return None
    envelope = pyworld.cheaptrick(wave, pitch, times, SAMPLE_RATE)
    return _Word(envelope, pyworld.d4c(wave, pitch, times, SAMPLE_RATE), pitch > 0)


def _warp(voiced: np.ndarray, frames: int) -> np.ndarray:
    """For each of ``frames`` frames, which frame of the word it takes: (frames,) float.

    Consonants before and after the voiced stretch keep their length, and so do the voiced stretch's ends; its middle
    is stretched. A word that is longer than its note is shortened evenly.
    """
    size = voiced.size
    if frames <= size:
        return np.linspace(0, size - 1, frames)
    where = np.flatnonzero(voiced)
    first, last = where[0], where[-1]
    left, right = first + 0.35 * (last - first), first + 0.7 * (last - first)
    extra = frames - size
    return np.interp(np.arange(frames), [0, left, right + extra, frames - 1], [0, left, right, size - 1])


def sing(task: SongTask, rng: np.random.Generator) -> Wave:
    """The voice of a song at 24 kHz; silence where a word could not be spoken."""
    pyworld = world()
    keys = melody(len(task.words), task.tune, task.tonic)
    pitches: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    noises: list[np.ndarray] = []
    for index, (text, key) in enumerate(zip(task.words, keys, strict=True)):
        beats = 2 if index == len(keys) - 1 else 1
        frames = round(beats * task.beat_s / FRAME_S)
        word = _word(text, task.voice)
        if word is None:
            bins = rows[-1].shape[1] if rows else 1025
            pitches.append(np.zeros(frames))
            rows.append(np.full((frames, bins), 1e-12))
            noises.append(np.ones((frames, bins)))
            continue
        at = _warp(word.voiced, frames)
        low = np.floor(at).astype(int)
        high, part = np.minimum(low + 1, word.voiced.size - 1), (at - low)[:, None]
        rows.append(np.exp((1 - part) * np.log(word.envelope[low]) + part * np.log(word.envelope[high])))
        noises.append((1 - part) * word.aperiodicity[low] + part * word.aperiodicity[high])
        t = np.arange(frames) * FRAME_S
        vibrato = 0.25 * np.sin(2 * np.pi * 5.5 * t + rng.uniform(0, 6)) * np.clip((t - 0.25) / 0.3, 0, 1)
        glide = (keys[index - 1] - key if index else 0) * np.clip(1 - t / 0.05, 0, 1)
        pitch = 440 * 2 ** ((key + glide + vibrato - 69) / 12)
        pitches.append(np.where(word.voiced[np.round(at).astype(int)], pitch, 0.0))
    bins = min(row.shape[1] for row in rows)
    arrays = [np.ascontiguousarray(np.concatenate([row[:, :bins] for row in part])) for part in (rows, noises)]
    wave = pyworld.synthesize(np.concatenate(pitches), *arrays, SAMPLE_RATE, FRAME_S * 1000)
    return dsp.set_level(dsp.fade(wave.astype(np.float32)), -21.0)


def accompany(task: SongTask, num_samples: int) -> Wave:
    """Chords under a tune, one for two notes, and a bass."""
    keys = melody(len(task.words), task.tune, task.tonic)
    notes: list[Note] = []
    for index in range(0, len(keys), 2):
        degree = _MAJOR.index((keys[index] - task.tonic) % 12)
        root = min((0, 3, 4), key=lambda root: min((degree - root) % 7, (root - degree) % 7 + 0.5))
        chord = [task.tonic % 12 + 48 + 12 * ((root + step) // 7) + _MAJOR[(root + step) % 7] for step in (0, 2, 4)]
        start, length = index * task.beat_s, 2 * task.beat_s
        notes += [Note(task.backing, key, start, length, 80) for key in (chord[0] - 12, *chord)]
    return dsp.set_level(dsp.fade(soundfont.render(notes, num_samples), 0.05), -30.0)


def render_song(task: SongTask, seed: int) -> Clip:
    """A song with its stems; a pure function of its arguments."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    vocals = sing(task, rng)
    accompaniment = accompany(task, vocals.size)
    example = Example(
        id=task.id,
        split=task.split,
        path="-",
        duration=1.0,
        kind="music",
        language=task.voice.language,
        label="song",
        labels=tuple(str(key) for key in melody(len(task.words), task.tune, task.tonic)),
        phonemes=phonemes(task.lyric, task.voice.language),
        texts={"lyric": task.lyric},
        engine="world",
        licence=f"{engine(task.voice.engine).licence}; {soundfont.LICENCE}",
        source="synth_song",
    )
    return example, {"audio": vocals + accompaniment, "vocals": vocals, "accompaniment": accompaniment}


@dataclass(frozen=True)
class Songs:
    """Lines of songs for train and for dev."""

    songs: int
    dev: int

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group of songs by singers whose voices speak here."""
        lacking = [reason for reason in (soundfont.missing(), _world_missing()) if reason]
        material.left_out.update(dict.fromkeys(lacking))
        if lacking:
            return {}
        tasks = plan_songs(self.songs, seed, dev=self.dev)
        return {"song": Group([task for task in tasks if material.speaks(task.voice)], 30)}

    @staticmethod
    def render(tasks: Sequence[SongTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [render_song(task, seed) for task in tasks]


def _world_missing() -> str | None:
    try:
        world()
    except SynthesiserMissing as error:
        return str(error)
    return None
