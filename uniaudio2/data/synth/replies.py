"""Spoken questions about a closed world of facts, with replies as text and spoken by the house voice."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.synth import dsp
from uniaudio2.data.synth.engines.espeak import phonemes, restart_espeak
from uniaudio2.data.synth.facts import Question, questions
from uniaudio2.data.synth.renderer import Clip, Group, Material
from uniaudio2.data.synth.speech import HOUSE_VOICES
from uniaudio2.data.synth.voices import Voice, Wave, engine, synthesise, voice_group


@dataclass(frozen=True)
class ReplyTask:
    """A question and who asks it."""

    id: str
    voice: Voice
    question: Question
    split: str = "train"


def plan_replies(train: int, seed: int, *, dev: int = 0) -> list[ReplyTask]:
    """Questions for train, then for dev: in wordings and voices that train has not, about the same facts.

    Choice: four of ten by the house voice, which is the clearest, the others by voices of several engines.
    """
    rng = random.Random(f"{seed}-world")
    many = [voice for name in ("flite_slt", "flite_rms", "flite_kal16") for voice in voice_group(name).voices]
    espeak, natural = voice_group("espeak_en").voices, voice_group("kokoro_en").voices
    unseen = [voice for name in ("kokoro", "flite", "espeak-ng") for voice in engine(name).held_out("en")]
    tasks: list[ReplyTask] = []
    for split, count in (("train", train), ("dev", dev)):
        asked = questions(held_out=split == "dev")
        rng.shuffle(asked)
        for index in range(count):
            draw = rng.random()
            if split == "dev":
                voice = unseen[index % len(unseen)]
            elif draw < 0.4:
                voice = replace(HOUSE_VOICES["en"], rate=rng.randint(150, 200))
            else:
                voice = rng.choice(many if draw < 0.68 else espeak if draw < 0.95 else natural)
            tasks.append(ReplyTask(f"world-{len(tasks):05d}", voice, asked[index % len(asked)], split))
    return tasks


@functools.cache
def _reply(text: str) -> Wave:
    """A reply by the house voice; there are few of them."""
    return dsp.finish(*synthesise([text + "."], HOUSE_VOICES["en"])[0])


def render_replies(tasks: Sequence[ReplyTask], seed: int) -> list[Clip]:
    """Questions with their spoken replies; those that a voice cannot say are left out."""
    restart_espeak(seed + 1)
    clips: list[Clip] = []
    for task in tasks:
        rng = np.random.default_rng([seed, *task.id.encode()])
        asked, replied = dsp.finish(*synthesise([task.question.text + "?"], task.voice)[0]), _reply(task.question.reply)
        if min(asked.size, replied.size) < 0.2 * SAMPLE_RATE:
            continue
        request = dsp.set_level(asked, float(rng.normal(-23.0, 1.5)))
        example = Example(
            id=task.id,
            path="-",
            duration=1.0,
            split=task.split,
            language="en",
            label=task.question.fact,
            phonemes=phonemes(task.question.text, "en"),
            texts={"request": task.question.text, "reply": task.question.reply},
            engine=task.voice.engine,
            licence=engine(task.voice.engine).licence,
            source="synth_world",
        )
        clips.append((example, {"request": request, "reply": dsp.set_level(replied, -23.0)}))
    return clips


@dataclass(frozen=True)
class Replies:
    """Questions for train and for dev."""

    questions: int
    dev: int

    def plan(self, material: Material, seed: int) -> dict[str, Group]:
        """One group, by voices that speak here."""
        tasks = plan_replies(self.questions, seed, dev=self.dev)
        speaks = {voice: material.speaks(voice) for voice in dict.fromkeys(task.voice for task in tasks)}
        if not material.speaks(HOUSE_VOICES["en"]):
            return {}
        return {"world": Group([task for task in tasks if speaks[task.voice]], 60)}

    @staticmethod
    def render(tasks: Sequence[ReplyTask], seed: int) -> list[Clip]:
        """See `render_replies`."""
        return render_replies(tasks, seed)
