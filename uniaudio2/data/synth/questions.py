"""Questions about what can be heard, each with one short answer that is known by construction or from labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp, music, soundfont
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.scenes import Sound, by_label
from uniaudio2.data.synth.sound import LICENCE
from uniaudio2.data.synth.voices import Wave

NUMBERS = ("one", "two", "three", "four", "five")
NAMES = {
    "dog_bark": "a dog", "rooster": "a rooster", "baby_cry": "a baby", "person_sneeze": "a sneeze", "bell": "a bell",
    "beep": "a beep", "telephone": "a telephone", "car_horn": "a car horn", "bird_chirp": "a bird", "siren": "a siren",
    "rain": "rain", "sea_waves": "sea waves", "fire_crackling": "a fire", "clock_tick": "a clock",
    "helicopter": "a helicopter", "chainsaw": "a chainsaw",
}  # fmt: skip
LANGUAGES = {"en": "english", "zh": "mandarin", "yue": "cantonese"}

WORDINGS = {
    "count": ("how many {}s are there", "how many {}s do you hear", "count the {}s", "how often do you hear a {}"),
    "first": ("which sound comes first", "what do you hear first", "what is the first sound", "name the first sound"),
    "sound": ("which sound is this", "what do you hear", "what is this sound", "name the sound"),
    "instrument": ("which instrument is playing", "what instrument is this", "name the instrument"),
    "gender": ("is the speaker a man or a woman", "does a man or a woman speak", "who speaks a man or a woman"),
    "speech": ("is there speech", "does someone speak", "can you hear a voice speaking"),
    "language": ("which language is spoken", "what language is this", "name the language"),
}
"""Kind of question → its wordings; dev has the same ones, about other recordings."""
ABOUT_SPEECH = ("gender", "speech", "language")
"""Kinds that are asked of the same recording of speech: what kind of clip it is must not give the answer away."""


@dataclass(frozen=True)
class QuestionTask:
    """A question of one kind, its answer, and what is heard: recordings, classes, a piece of music, or a number."""

    id: str
    kind: str
    question: str
    answer: str
    sounds: tuple[Sound, ...] = ()
    recording: Example | None = None
    piece: music.MusicTask | None = None
    counted: str = ""
    times: int = 0
    split: str = "train"


def _counted(kind: str, rng: np.random.Generator, count: int) -> Wave:
    """So many beeps, knocks or drum hits, evenly spaced but for a little."""
    length = round(0.14 * SAMPLE_RATE)
    if kind == "beep":
        t = dsp.time(length)
        one = np.sin(2 * np.pi * rng.uniform(600, 2200) * t) * np.minimum(1, 200 * np.minimum(t, t[::-1]))
    elif kind == "knock":
        one = dsp.partials(rng, length, rng.uniform(100, 250), (1, 1.6, 2.4, 3.7), 0.12)
        one = one + 0.6 * dsp.band(dsp.noise(rng, length), 100, 2500) * dsp.decay(length, 0.03)
    else:
        drop = (rng.uniform(45, 65) + 110 * np.exp(-dsp.time(length) * 35)).astype(np.float32)
        one = (np.sin(dsp.phase(drop)) + 0.2 * dsp.noise(rng, length)) * dsp.decay(length, 0.25)
    gap, first = float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.1, 0.3))
    out = np.zeros(round((first + gap * count + 0.15) * SAMPLE_RATE), np.float32)
    for index in range(count):
        dsp.place(out, one.astype(np.float32), first + index * gap * float(rng.uniform(0.95, 1.05)))
    return out + 10 ** (-60 / 20) * dsp.noise(rng, out.size, 1)


def _heard(task: QuestionTask, rng: np.random.Generator, seed: int) -> Wave:
    """What a question is about, at most about 4 s."""
    if task.counted:
        return _counted(task.counted, rng, task.times)
    if task.piece is not None:
        return music.render_piece(task.piece, seed)
    if task.recording is not None:
        wave = task.recording.audio().numpy()[0]
        return dsp.loudest(wave, min(wave.size, 3 * SAMPLE_RATE))
    gap = np.zeros(round(0.25 * SAMPLE_RATE), np.float32)
    waves = [sound.wave(rng, float(rng.uniform(1.2, 1.8))) for sound in task.sounds]
    return np.concatenate([part for wave in waves for part in (wave, gap)][:-1])


def render_question(task: QuestionTask, seed: int) -> Clip:
    """A question with its clip; a pure function of its arguments and recordings."""
    rng = np.random.default_rng([seed, *task.id.encode()])
    wave = dsp.set_level(dsp.fade(_heard(task, rng, seed)), float(rng.normal(-23.0, 1.5)))
    real = [e for e in (task.recording, *(sound.recording for sound in task.sounds)) if e is not None]
    own = [soundfont.LICENCE if task.piece is not None else LICENCE] if len(real) < max(1, len(task.sounds)) else []
    example = Example(
        id=task.id,
        path="-",
        duration=wave.size / SAMPLE_RATE,
        split=task.split,
        kind="sound",  # asked about, whatever it is, in a prompt that names no language
        label=task.kind,
        texts={"question": task.question, "answer": task.answer},
        engine=None if real and not own else "procedural",
        licence=" + ".join(dict.fromkeys([*own, *(each.licence or "" for each in real)])),
        attribution="; ".join(dict.fromkeys(each.attribution for each in real if each.attribution)) or None,
        source="synth_question",
    )
    return example, wave


def gender(example: Example) -> str | None:
    """``a man`` or ``a woman`` where the label of a recording says so of a grown-up."""
    try:
        label = json.loads(example.label or "null")
    except json.JSONDecodeError:
        return None
    if not isinstance(label, dict) or int(label.get("age", 30)) < 18:
        return None
    return {"m": "a man", "f": "a woman"}.get(str(label.get("gender")))


Given = Mapping[str, Sequence[Example]]
"""``sounds``, ``speakers`` or ``languages`` → recordings."""


def plan_questions(each: int, recordings: Mapping[str, Given], seed: int, *, dev: int = 0) -> list[QuestionTask]:
    """Questions of every kind in turn, ``each`` of a kind for train, then ``dev`` of a kind for dev.

    Further questions about the same recordings follow each of them (:func:`further`): without these, a model learns to
    answer by the kind of clip and not to read the question.

    Args:
        each: Training questions of every kind.
        recordings: Split → what recordings it has; a kind of question without recordings is left out.
        seed: Seed of every choice.
        dev: Dev questions of every kind.
    """
    rng = np.random.default_rng([seed, 25])
    tasks: list[QuestionTask] = []
    for split, count in (("train", each), ("dev", dev)):
        planner = _Planner(recordings.get(split, {}), rng, seed)
        for index in range(count):
            for kind, wordings in WORDINGS.items():
                question = str(rng.choice(wordings))
                planned = planner.plan(kind, index, len(tasks))
                if planned is not None:
                    answer, values = planned
                    asked = [(kind, question.format(values.get("counted")), answer)]
                    for other, reply in further(kind, answer, values.get("recording")).items():
                        if (other, reply) == ("speech", "no") and rng.random() < 0.6:
                            continue  # else "no" would be the answer to most questions about speech
                        asked.append((other, str(rng.choice(WORDINGS[other])), reply))
                    for which, text, reply in asked:
                        name = f"question-{len(tasks):05d}"
                        tasks.append(QuestionTask(name, which, text, reply, split=split, **values))
    return tasks


def further(kind: str, answer: str, recording: Example | None) -> dict[str, str]:
    """Other kinds of question that the clip of a question answers too, with their answers."""
    known: dict[str, str | None] = {"speech": "no"}
    if recording is not None and kind in ABOUT_SPEECH and answer != "no":
        known = {"speech": "yes", "gender": gender(recording)}
        known["language"] = LANGUAGES.get(recording.language or "")
    elif recording is not None:
        known["sound"] = NAMES.get(recording.label or "")
    return {other: reply for other, reply in known.items() if reply and other != kind}


class _Planner:
    """Draws what a question is about: the answer, and the fields of its task."""

    def __init__(self, given: Given, rng: np.random.Generator, seed: int) -> None:
        self._given, self._rng, self._seed = given, rng, seed
        self._sounds = by_label(given.get("sounds", ()))
        self._names = [name for name in NAMES if name in CLASSES or self._sounds.get(name)]

    def plan(self, kind: str, index: int, number: int) -> tuple[str, dict[str, Any]] | None:
        """A question of some kind, the ``index``-th of it and the ``number``-th of all; None without recordings."""
        rng, given = self._rng, self._given
        if kind == "count":
            counted = str(rng.choice(["beep", "knock", "drum hit"]))
            times = int(rng.integers(1, 6))
            return NUMBERS[times - 1], {"counted": counted, "times": times}
        if kind == "first":
            chosen = [str(name) for name in rng.choice(self._names, 2, replace=False)]
            sounds = tuple(Sound(name, self._one(self._sounds.get(name, ()))) for name in chosen)
            return NAMES[chosen[0]], {"sounds": sounds}
        if kind == "sound":
            name = str(rng.choice(self._names))
            return NAMES[name], {"sounds": (Sound(name, self._one(self._sounds.get(name, ()))),)}
        if kind == "instrument":
            piece = music.plan_music(1, self._seed + 1 + number, prefix=f"q{number}")[0]
            answer = list(music.INSTRUMENTS)[index % len(music.INSTRUMENTS)]
            return answer, {"piece": replace(piece, instrument=answer, drums=False, seconds=2.5, caption="")}
        if kind == "gender":
            answer = str(rng.choice(["a man", "a woman"]))
            pool = [e for e in given.get("speakers", ()) if gender(e) == answer]
        elif kind == "speech":
            answer = str(rng.choice(["yes", "no"]))
            pool = given.get("languages" if answer == "yes" else "sounds", ())
        else:
            there = {example.language for example in given.get("languages", ())}
            code = str(rng.choice([code for code in LANGUAGES if code in there] or ["-"]))
            answer = LANGUAGES.get(code, "")
            pool = [e for e in given.get("languages", ()) if e.language == code]
        recording = self._one(pool)
        return (answer, {"recording": recording}) if recording is not None else None

    def _one(self, items: Sequence[Example]) -> Example | None:
        """Any of them; None if there is none."""
        return items[int(self._rng.integers(len(items)))] if items else None


@dataclass(frozen=True)
class Questions:
    """Questions of every kind: so many for train and for dev."""

    each: int
    dev: int

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group, kinds in turn."""
        missing = soundfont.missing()
        if missing is not None:
            material.left_out[missing] = None
            return {}
        recordings: dict[str, dict[str, Sequence[Example]]] = {}
        for split in ("train", "dev"):

            def read(*names: str, split: str = split) -> list[Example]:
                """Recordings of sets."""
                return [e for name in names for e in material.recordings(name, split, seed, None)]

            recordings[split] = {
                "sounds": read("esc10"),
                "speakers": read("speechocean", "librispeech_voices"),
                "languages": read("speechocean", "librispeech_text", "aishell_pair", "read_chinese", "keywords"),
            }
        return {"question": Group(plan_questions(self.each, recordings, seed, dev=self.dev), 90)}

    @staticmethod
    def render(tasks: Sequence[QuestionTask], seed: int) -> list[Clip]:
        """A clip for each task."""
        return [render_question(task, seed) for task in tasks]
