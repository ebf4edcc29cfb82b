"""Evaluations of rows that answer: questions about sounds, replies in text and speech, who speaks when, facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from uniaudio2.data.recogniser import hear, whisper_name
from uniaudio2.eval.context import Context, EvaluationError
from uniaudio2.eval.diarization import diarization_error, read_turns
from uniaudio2.eval.held_out import answers, commonest, held_out
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import accuracy, count_errors, get_normaliser, ratio, score_texts, simplified

Result = tuple[list[Figure], list[dict[str, Any]]]

HOUSE = "the spoken answers themselves"


def _exact(context: Context, wanted: Sequence[str], found: Sequence[str]) -> list[bool]:
    normalise = get_normaliser(context.normaliser)
    return [normalise(a, "en") == normalise(b, "en") for a, b in zip(wanted, found, strict=True)]


def understanding(context: Context, data: str) -> Result:
    """Questions about sounds: the answer must equal the right one; by kind of question beside the commonest answer."""
    clips = held_out(context, "audio_understanding", data)
    wanted = [clip.example.texts["answer"] for clip in clips]
    found = [str(one.get("answer", "")) for one in answers(context, "audio_understanding", clips)]
    right = _exact(context, wanted, found)
    kinds = [clip.example.label or "other" for clip in clips]
    figures: list[Figure] = []
    baseline = 0.0
    for kind in sorted(set(kinds)):
        own = [index for index, one in enumerate(kinds) if one == kind]
        share = commonest([wanted[i] for i in own])
        baseline += share * len(own) / len(kinds)
        figures += [
            Figure.of("answer right", accuracy([right[i] for i in own]), unit="%", group=kind),
            Figure("commonest answer", share, unit="%", group=kind, count=len(own)),
        ]
    head = [
        Figure.of("answer right", accuracy(right), unit="%", target="30 points above the commonest answer"),
        Figure("commonest answer of each kind of question", baseline, unit="%", count=len(kinds)),
    ]
    items = [
        {"id": clip.example.id, "question": clip.example.texts["question"], "wanted": a, "found": b, "right": ok}
        for clip, a, b, ok in zip(clips, wanted, found, right, strict=True)
    ]
    return [*head, *figures], items


def reply_text(context: Context, data: str) -> Result:
    """Written replies to spoken questions: they must equal the right one."""
    clips = held_out(context, "speech_s2t", data)
    wanted = [clip.example.texts["reply"] for clip in clips]
    found = [str(one.get("answer", "")) for one in answers(context, "speech_s2t", clips)]
    right = _exact(context, wanted, found)
    figures = [
        Figure.of("reply right", accuracy(right), unit="%", target=">= 85 %"),
        Figure("commonest reply", commonest(wanted), unit="%", count=len(wanted)),
    ]
    for engine in sorted({str(clip.example.engine) for clip in clips}):
        own = [ok for ok, clip in zip(right, clips, strict=True) if clip.example.engine == engine]
        figures.append(Figure.of("reply right", accuracy(own), unit="%", group=f"asked by {engine}"))
    items = [
        {"id": c.example.id, "request": c.example.texts.get("request"), "wanted": a, "found": b, "right": ok}
        for c, a, b, ok in zip(clips, wanted, found, right, strict=True)
    ]
    return figures, items


def reply_speech(context: Context, data: str) -> Result:
    """Spoken replies to spoken questions, as Whisper hears them, beside the replies that were to be learned."""
    clips = held_out(context, "speech_s2s", data)
    wanted = [clip.example.texts["reply"] for clip in clips]
    made = [one.get("target") for one in answers(context, "speech_s2s", clips)]
    figures: list[Figure] = []
    items: list[dict[str, Any]] = [
        {"id": clip.example.id, "request": clip.example.texts.get("request"), "wanted": text}
        for clip, text in zip(clips, wanted, strict=True)
    ]
    for group, waves in (("", made), (HOUSE, [clip.example.audio(name="reply") for clip in clips])):
        heard = [hear(wave, "en") if isinstance(wave, Tensor) else "" for wave in context.track(waves, "Whisper")]
        scores = score_texts(wanted, heard, normaliser="whisper", seed=context.seed)
        target = "" if group else ">= 75 %"
        figures += [
            Figure.of("reply right", scores.exact, unit="%", group=group, target=target, judge=whisper_name()),
            Figure.of("WER", scores.wer, unit="%", group=group, judge=whisper_name()),
        ]
        for row, text in zip(items, heard, strict=True):
            row[f"heard {group}".strip()] = text
    figures.append(Figure("commonest reply", commonest(wanted), unit="%", count=len(wanted)))
    return figures, items


def diarization(context: Context, data: str) -> Result:
    """Diarization error rate, by number of speakers, beside one speaker who never stops."""
    clips = held_out(context, "diarization", data)
    found = [str(one.get("turns", "")) for one in answers(context, "diarization", clips)]
    rows: list[dict[str, Any]] = []
    for clip, text in zip(clips, found, strict=True):
        turns = clip.example.turns
        error, speech = diarization_error(turns, read_turns(text))
        whole = read_turns(f"1 0.0 {clip.example.duration}")
        rows.append({
            "id": clip.example.id, "wanted": clip.example.texts["turns"], "found": text, "error_s": error,
            "speech_s": speech, "one_speaker_s": diarization_error(turns, whole)[0],
            "speakers": len({turn.speaker for turn in turns}),
            "speakers_found": len({turn.speaker for turn in read_turns(text)}),
        })  # fmt: skip

    def rate(own: Sequence[dict[str, Any]], key: str = "error_s") -> Any:
        """Errors by speech."""
        return ratio([row[key] for row in own], [row["speech_s"] for row in own], seed=context.seed)

    counts = sorted({row["speakers"] for row in rows})
    right = [row["speakers"] == row["speakers_found"] for row in rows]
    figures = [
        Figure.of("diarization error rate", rate(rows), unit="%", target="<= 20 %"),
        Figure.of("diarization error rate", rate(rows, "one_speaker_s"), unit="%", group="one speaker all the time"),
        Figure.of("number of speakers right", accuracy(right), unit="%"),
        Figure("commonest number of speakers", commonest([row["speakers"] for row in rows]), unit="%", count=len(rows)),
    ]
    for count in counts:
        own = [row for row in rows if row["speakers"] == count]
        figures.append(Figure.of("diarization error rate", rate(own), unit="%", group=f"{count} speakers"))
    return figures, rows


@torch.inference_mode()
def facts(context: Context) -> Result:
    """Facts of the closed world as text: is the right answer likelier than every other answer of its topic?"""
    from uniaudio2.data.synth.facts import TOPICS
    from uniaudio2.lm import LMLossConfig, lm_losses

    model: Any = getattr(context.subject, "model", None)
    if model is None:
        raise EvaluationError(f"model {context.subject.name!r} tells no likelihoods of texts")
    items: list[dict[str, Any]] = []
    for topic in context.track(TOPICS, "facts"):
        choices = list(dict.fromkeys(topic.answers.values()))
        for thing, answer in topic.answers.items():
            scores: dict[str, float] = {}
            for choice in choices:
                text = topic.statement.replace("{answer}", choice).format(thing)
                example = model.sequences.example("text_only", {"text": text})
                batch = model.sequences.collate([example]).to(model.device)
                losses = lm_losses(model.lm, batch.tokens, batch.mask, batch.loss_mask, LMLossConfig())
                scores[choice] = -float(losses.text_each.sum())
            best = max(scores, key=scores.__getitem__)
            items.append({"fact": topic.statement.replace("{answer}", answer).format(thing), "found": best,
                          "right": best == answer, "chance": 1 / len(choices)})  # fmt: skip
    chance = sum(row["chance"] for row in items) / len(items)
    return [
        Figure.of("right answer likeliest", accuracy([row["right"] for row in items]), unit="%", target=">= 90 %"),
        Figure("chance", chance, unit="%", count=len(items)),
    ], items


def word_errors(wanted: str, found: str, language: str) -> tuple[int, int]:
    """Errors and length of a text: of words in English, else of characters; both in Whisper's normal form,
    Chinese in simplified script.
    """
    normalise = get_normaliser("whisper")
    errors = count_errors(*(normalise(simplified(text, language), language) for text in (wanted, found)))
    return (errors.word_errors, errors.words) if language == "en" else (errors.char_errors, errors.chars)
