"""Evaluations of speech in a style: by a description, with a voice prompt, by an instruction, in another voice.

Whisper judges words. Every figure of the model stands beside the same figure of what was to be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from uniaudio2.eval.audio_metrics import median_f0_hz, timbre
from uniaudio2.eval.context import Clip, Context
from uniaudio2.eval.held_out import OURS, TRUTH, answers, held_out, waves, words
from uniaudio2.eval.report import Figure
from uniaudio2.eval.style_judge import JUDGE, Manner, follows, manner, whose
from uniaudio2.eval.text_metrics import accuracy

Result = tuple[list[Figure], list[dict[str, Any]]]
Wave = np.ndarray


def instruct(context: Context, data: str) -> Result:
    """Speech by a description alone: does each attribute move as asked, from the plain clip of the example?"""
    clips = held_out(context, "instruct_tts", data)
    return _styles(context, clips, waves(answers(context, "instruct_tts", clips), "audio"), described=True)


def edit(context: Context, data: str) -> Result:
    """Speech that is changed by an instruction: does each attribute move as asked?"""
    clips = held_out(context, "speech_edit", data)
    return _styles(context, clips, waves(answers(context, "speech_edit", clips), "target"))


def prompt_instruct(context: Context, data: str) -> Result:
    """Speech by a description with a voice prompt: the style, the words, and whose voice is nearest."""
    clips = held_out(context, "prompt_instruct_tts", data)
    made = waves(answers(context, "prompt_instruct_tts", clips), "audio")
    figures, items = _styles(context, clips, made)
    voices: dict[str, list[Wave]] = {}
    for clip in clips:
        voices.setdefault(str(clip.example.speaker), []).append(timbre(clip.example.audio(name="reference")))
    means = np.stack([np.mean(rows, axis=0) for rows in voices.values()])
    spread = np.std([row for rows in voices.values() for row in rows], axis=0) + 1e-3
    for system, own in ((OURS, made), (TRUTH, [clip.example.audio(name="styled") for clip in clips])):
        nearest = [list(voices)[np.linalg.norm((means - timbre(wave)) / spread, axis=1).argmin()] for wave in own]
        right = [name == clip.example.speaker for name, clip in zip(nearest, clips, strict=True)]
        for name, row in zip(nearest, items, strict=True):
            row[f"{system}: nearest voice"] = name
        figures.append(
            Figure.of("nearest voice is the prompt's", accuracy(right), unit="%", group=system,
                      target=">= 80 %" if system == OURS else "", judge="nearest mean of mel-cepstra")
        )  # fmt: skip
    return [*figures, Figure("nearest voice: chance", 1 / len(voices), unit="%")], items


def conversion(context: Context, data: str) -> Result:
    """Speech in the voice of a prompt: nearer to the target's clip than to the source's, with its words."""
    clips = held_out(context, "voice_conversion", data)
    made = waves(answers(context, "voice_conversion", clips), "target")
    ends = [(timbre(c.example.audio(name="spoken")), timbre(c.example.audio(name="converted"))) for c in clips]
    spread = np.std([row for pair in ends for row in pair], axis=0) + 1e-3
    systems = {OURS: made, TRUTH: [clip.example.audio(name="converted") for clip in clips],
               "the source itself": [clip.example.audio(name="spoken") for clip in clips]}  # fmt: skip
    items: list[dict[str, Any]] = [{"id": clip.example.id, "text": clip.example.text} for clip in clips]
    figures: list[Figure] = []
    for system, own in systems.items():
        nearer, pitched = [], []
        for wave, (source, target), clip, row in zip(own, ends, clips, items, strict=True):
            vector = timbre(wave)
            from_source, from_target = (float(np.linalg.norm((vector - end) / spread)) for end in (source, target))
            hz = [median_f0_hz(each) for each in (wave, *(clip.example.audio(name=n) for n in ("spoken", "converted")))]
            off = [abs(np.log2(hz[0] / each)) for each in hz[1:]]
            nearer.append(from_target < from_source)
            pitched.append(bool(off[1] < off[0]))
            row[system] = {"from source": from_source, "from target": from_target, "pitch_hz": hz[0]}
        target = ">= 80 %" if system == OURS else ""
        figures += [
            Figure.of("voice nearer to the target", accuracy(nearer), unit="%", group=system, target=target,
                      judge="distance of mel-cepstra"),
            Figure.of("pitch nearer to the target's", accuracy(pitched), unit="%", group=system, judge=JUDGE),
        ]  # fmt: skip
    return figures + words(context, clips, {OURS: made, TRUTH: systems[TRUTH]}, "<= 20 %", items), items


def _styles(context: Context, clips: Sequence[Clip], made: Sequence[Tensor], *, described: bool = False) -> Result:
    """Attributes and words of what was made and of what was to be learned; women and men where they were described."""
    systems = {OURS: made, TRUTH: [clip.example.audio(name="styled") for clip in clips]}
    plain = [_plain(clip) for clip in clips]
    items: list[dict[str, Any]] = [
        {"id": c.example.id, "who": c.example.labels[0], "styles": list(c.example.labels[1:]), "text": c.example.text}
        for c in clips
    ]
    figures: list[Figure] = []
    for system, own in systems.items():
        found = [manner(wave, str(clip.example.text)) for wave, clip in zip(own, clips, strict=True)]
        figures += _followed(system, clips, found, plain, items)
        if described:
            voiced = [i for i, clip in enumerate(clips) if "whisper" not in clip.example.labels]
            right = [_sex(whose(found[i])) == _sex(clips[i].example.labels[0]) for i in voiced]
            figures.append(Figure.of("woman or man as asked", accuracy(right), unit="%", group=system, judge=JUDGE))
    return figures + words(context, clips, systems, "<= 20 %", items), items


def _plain(clip: Clip) -> Manner:
    name = "plain" if "plain" in clip.example.audios else "styled"
    return manner(clip.example.audio(name=name), str(clip.example.text))


def _sex(who: str) -> str:
    """Choice: children count with women, whom a high style brings to the same pitch."""
    return "male" if who == "male" else "female"


def _followed(
    system: str, clips: Sequence[Clip], found: Sequence[Manner], plain: Sequence[Manner], items: list[dict[str, Any]]
) -> list[Figure]:
    """Share of the styles that were asked for and are there, in all and by style."""
    asked: list[tuple[str, bool]] = []
    for clip, one, usual, row in zip(clips, found, plain, items, strict=True):
        own = {style: bool(follows(style, one, usual)) for style in clip.example.labels[1:]}
        asked += own.items()
        row[f"{system}: follows"] = own
        row[f"{system}: manner"], row["plain: manner"] = one.rounded(), usual.rounded()
    target = ">= 85 %" if system == OURS else ""
    all_asked = accuracy([ok for _, ok in asked])
    figures = [Figure.of("attribute as asked", all_asked, unit="%", group=system, target=target, judge=JUDGE)]
    for style in sorted({style for style, _ in asked}):
        rate = accuracy([ok for each, ok in asked if each == style])
        figures.append(Figure.of(f"attribute as asked: {style}", rate, unit="%", group=system))
    return figures
