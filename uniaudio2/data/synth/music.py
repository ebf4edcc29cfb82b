"""Short pieces of music composed by rule: an instrument, a tempo, a metre, major or minor; captions that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp, soundfont
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.soundfont import DRUMS, Note

INSTRUMENTS = {"piano": 0, "guitar": 24, "violin": 40, "flute": 73, "trumpet": 56, "organ": 19}
"""Programs of General MIDI."""

TEMPOS = {"slow": (56.0, 72.0), "medium": (96.0, 116.0), "fast": (160.0, 190.0)}
"""Beats a minute. Choice: bands with gaps, so that a listener can tell them apart in five seconds."""

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
CHORDS = {"major": (0, 3, 4, 0), "minor": (0, 3, 4, 0)}
"""Roots of the bars as degrees of the scale: tonic, subdominant, dominant, tonic."""

_TEMPO_WORDS = {"slow": ("slow", "calm"), "medium": ("medium", "moderate"), "fast": ("fast", "quick")}
_MODE_WORDS = {"major": ("happy", "cheerful"), "minor": ("sad", "gloomy")}
# The first is what a model is to say; an instruction to it is any of them.
_CAPTIONS = (
    "{tempo} {mood} {instrument} music",
    "{mood} {instrument} music at a {tempo} tempo",
    "a {tempo} {mood} tune on the {instrument}",
    "a {mood} {instrument} melody played at a {tempo} tempo",
    "a {tempo} {instrument} piece in a {mode} key",
    "the {instrument} plays a {tempo} {mood} melody",
)
_DRUMS = " with drums"
_WALTZ = " in three four time"


@dataclass(frozen=True)
class MusicTask:
    """One piece: what it is, its tempo in beats a minute, beats in a bar, key of the tonic, caption and length."""

    id: str
    instrument: str
    tempo: str
    beats_per_minute: float
    mode: str
    metre: int
    drums: bool
    tonic: int
    caption: str
    seconds: float = 4.5
    split: str = "train"


def compose(task: MusicTask, rng: np.random.Generator) -> list[Note]:
    """A melody of quarters, eighths and halves over chords, with a beat where there are drums."""
    program, beat, scale = INSTRUMENTS[task.instrument], 60 / task.beats_per_minute, SCALES[task.mode]

    def key(degree: int) -> int:
        """MIDI key of a degree of the scale."""
        return task.tonic + 12 * (degree // 7) + scale[degree % 7]

    notes: list[Note] = []
    degree, at = int(rng.choice([0, 2, 4])), 0
    halves = int(task.seconds / beat * 2) + 2  # half beats in the piece
    while at < halves:
        length = int(rng.choice([1, 2, 4], p=[0.2, 0.7, 0.1])) if at % 2 == 0 else 1
        bar = at // (2 * task.metre)
        if at % (2 * task.metre) == 0:  # a bar starts on a note of its chord
            root = CHORDS[task.mode][bar % 4]
            degree = min(
                (root + step + octave for step in (0, 2, 4) for octave in (-7, 0, 7)), key=lambda d: abs(d - degree)
            )
        else:
            degree = int(np.clip(degree + rng.choice([-2, -1, 1, 2]), -3, 9))
        notes.append(Note(program, key(degree), at * beat / 2, length * beat / 2 * 0.92, 100))
        at += length
    for bar in range(halves // (2 * task.metre) + 1):
        root, start = CHORDS[task.mode][bar % 4], bar * task.metre * beat
        chord = [key(root + step) - 12 for step in (0, 2, 4)]
        if task.instrument in ("piano", "guitar", "organ"):
            length = task.metre * beat * 0.95
            notes += [Note(program, tone, start, length, 62) for tone in chord]
        if task.drums:
            for number in range(task.metre):
                time = start + number * beat
                notes.append(Note(DRUMS, 36 if number == 0 else 38, time, 0.1, 100 if number == 0 else 80))
                notes += [Note(DRUMS, 42, time + half * beat / 2, 0.1, 60) for half in (0, 1)]
    return notes


def render_piece(task: MusicTask, seed: int) -> dsp.Wave:
    """The samples of a piece; a pure function of its arguments."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    wave = soundfont.render(compose(task, rng), round(task.seconds * SAMPLE_RATE))
    return dsp.set_level(dsp.fade(wave, 0.05), float(rng.normal(-22.0, 2.0)))


def caption(task: MusicTask, rng: np.random.Generator) -> str:
    """A wording of what a piece is: the usual one more often than any other."""
    number = 0 if rng.random() < 0.4 else int(rng.integers(len(_CAPTIONS)))
    usual = rng.random() < 0.7
    words = {
        "tempo": _TEMPO_WORDS[task.tempo][0 if usual else 1],
        "mood": _MODE_WORDS[task.mode][0 if usual else 1],
    }
    text = _CAPTIONS[number].format(instrument=task.instrument, mode=task.mode, **words)
    text = f"{text}{_WALTZ if task.metre == 3 else ''}{_DRUMS if task.drums else ''}"
    return text.replace("a organ", "an organ")


def plan_music(pieces: int, seed: int, *, dev: int = 0, prefix: str = "music") -> list[MusicTask]:
    """Pieces with instruments in turn; tempo, mode, metre and drums drawn. The last ``dev`` of them are for dev."""
    rng = np.random.default_rng([seed, 21, *prefix.encode()])
    tasks: list[MusicTask] = []
    for index in range(pieces + dev):
        instrument = list(INSTRUMENTS)[index % len(INSTRUMENTS)]
        tempo = list(TEMPOS)[int(rng.integers(3))]
        tonic = int(rng.integers(57, 67))
        task = MusicTask(
            f"{prefix}-{index:05d}", instrument, tempo, round(float(rng.uniform(*TEMPOS[tempo])), 1),
            "major" if rng.random() < 0.5 else "minor", 3 if rng.random() < 0.25 else 4, bool(rng.random() < 0.35),
            tonic, "", split="train" if index < pieces else "dev",
        )  # fmt: skip
        tasks.append(MusicTask(**{**task.__dict__, "caption": caption(task, rng)}))
    return tasks


@dataclass(frozen=True)
class Music:
    """Pieces for train and for dev."""

    pieces: int
    dev: int

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group, instruments in turn."""
        missing = soundfont.missing()
        if missing is not None:
            material.left_out[missing] = None
            return {}
        return {"music": Group(plan_music(self.pieces, seed, dev=self.dev), 60)}

    @staticmethod
    def render(tasks: Sequence[MusicTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [(_example(task), render_piece(task, seed)) for task in tasks]


def _example(task: MusicTask) -> Example:
    return Example(
        id=task.id,
        path="-",
        duration=task.seconds,
        split=task.split,
        kind="music",
        label=task.instrument,
        labels=(task.instrument, task.tempo, task.mode),
        texts={"music_caption": task.caption},
        engine="fluidsynth",
        licence=soundfont.LICENCE,
        source="synth_music",
    )
