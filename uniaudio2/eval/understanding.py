"""Evaluations that end in text: speech recognition, captions, and what the reasoning codes alone say."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.eval.caption_metrics import names_label
from uniaudio2.eval.context import Clip, Context, EvaluationError, batches, recording_of
from uniaudio2.eval.report import Figure
from uniaudio2.eval.subject import HasTextDecoder
from uniaudio2.eval.text_metrics import (
    Cluster,
    TextScores,
    accuracy,
    classes_named,
    get_normaliser,
    nearest_label,
    score_texts,
)

Result = tuple[list[Figure], list[dict[str, Any]]]

BATCH = 16

_VOICE = "voice "


def transcribe(context: Context, clips: Sequence[Clip]) -> list[str]:
    """Transcripts of clips, in batches of similar length; the model is told the language if the context says so."""
    order = sorted(range(len(clips)), key=lambda index: clips[index].example.duration)
    texts = [""] * len(clips)
    parts = [part for language in ("en", "zh", "yue") for part in batches(_of(clips, order, language), BATCH)]
    for part in context.track(parts, "transcribing"):
        language = clips[part[0]].example.language if context.tell_language else None
        found = context.subject.transcribe([clips[i].load() for i in part], language=language, seed=context.seed)
        for index, text in zip(part, found, strict=True):
            texts[index] = text
    return texts


def _of(clips: Sequence[Clip], order: Sequence[int], language: str) -> list[int]:
    return [index for index in order if (clips[index].example.language or "en") == language]


def asr_words(context: Context, name: str, target: str) -> Result:
    """Isolated words by many real speakers: the transcript must equal the label's text.

    Also reported, never as the headline: accuracy when the answer is forced to the nearest word of the list.
    """
    clips = _with_text(context, context.real(name), name)
    normalise = get_normaliser(context.normaliser)
    labels = sorted({normalise(str(clip.example.text), "en") for clip in clips})
    texts = [normalise(text, "en") for text in transcribe(context, clips)]
    wanted = [normalise(str(clip.example.text), "en") for clip in clips]
    right = [a == b for a, b in zip(texts, wanted, strict=True)]
    forced = [nearest_label(text, labels) == want for text, want in zip(texts, wanted, strict=True)]
    own = _clusters(clips)
    figures = [
        Figure.of("accuracy", accuracy(right, clusters=own), unit="%", target=target),
        Figure.of("accuracy, forced to the list (extra)", accuracy(forced, clusters=own), unit="%"),
        Figure.of("CER", score_texts(wanted, texts, normaliser=context.normaliser, clusters=own).cer, unit="%"),
    ]
    groups = {"speaker": sorted({c.example.speaker for c in clips if c.example.speaker}), "text": labels}
    for speaker in groups["speaker"]:
        some = [ok for ok, clip in zip(right, clips, strict=True) if clip.example.speaker == speaker]
        figures.append(Figure.of("accuracy", accuracy(some), unit="%", group=speaker))
    for label in groups["text"]:
        some = [ok for ok, want in zip(right, wanted, strict=True) if want == label]
        figures.append(Figure.of("accuracy", accuracy(some), unit="%", group=label))
    return figures, _items(clips, texts, right)


def _with_text(context: Context, clips: Sequence[Clip], data: str) -> list[Clip]:
    """The clips to transcribe; raises `EvaluationError` if there are none."""
    chosen = context.sample([clip for clip in clips if clip.example.text])
    if not chosen:
        unseen = " by speakers who are not in its train part" if context.unseen_speakers else ""
        raise EvaluationError(f"{data}: no clip with text{unseen} to compare transcripts with")
    return chosen


def _clusters(clips: Sequence[Clip]) -> list[Cluster]:
    return [clip.cluster for clip in clips]


def _items(clips: Sequence[Clip], texts: Sequence[str], right: Sequence[bool] | None = None) -> list[dict[str, Any]]:
    rows = []
    for index, (clip, text) in enumerate(zip(clips, texts, strict=True)):
        row: dict[str, Any] = {"id": clip.example.id, "wanted": clip.example.text, "found": text}
        if clip.example.speaker:
            row["speaker"] = clip.example.speaker
        if right is not None:
            row["right"] = right[index]
        rows.append(row)
    return rows


def _rates(scores: TextScores, language: str, group: str, target: str) -> list[Figure]:
    """Figures of one group; the target is of the word error rate in English, else of the character error rate."""
    english = language == "en"
    cer = Figure.of("CER", scores.cer, unit="%", group=group, target="" if english else target)
    exact = Figure.of("right as a whole", scores.exact, unit="%", group=group)
    return [*([Figure.of("WER", scores.wer, unit="%", group=group, target=target)] if english else []), cer, exact]


def asr_sentences(
    context: Context, clips: Sequence[Clip], groups: Sequence[tuple[str, str]], targets: dict[str, str]
) -> Result:
    """Error rates of whole sentences.

    Args:
        context: What is needed.
        clips: Clips with text.
        groups: Pairs (name of the group, what to group by): each clip counts in every group that `_in_group` says.
        targets: Target texts by group.
    """
    texts = transcribe(context, clips)
    figures: list[Figure] = []
    for group, language in groups:
        chosen = [index for index, clip in enumerate(clips) if _in_group(clip.example, group, language)]
        if not chosen:
            continue
        scores = score_texts(
            [str(clips[i].example.text) for i in chosen],
            [texts[i] for i in chosen],
            language=language,
            normaliser=context.normaliser,
            clusters=[clips[i].cluster for i in chosen],
            seed=context.seed,
        )
        figures += _rates(scores, language, group, targets.get(group, ""))
    return figures, _items(clips, texts)


def _in_group(example: Example, group: str, language: str) -> bool:
    if (example.language or "en") != language:
        return False
    if group in ("all", language):
        return True
    if group == "LJ":
        return (example.speaker or "").endswith("lj")
    if group == "other voices":
        return not (example.speaker or "").endswith("lj")
    if group.startswith(_VOICE):
        return example.speaker == group.removeprefix(_VOICE)
    return example.engine == group


def asr_read_english(context: Context) -> Result:
    """Read English, the LJ voice (heard in training) and all other voices apart."""
    clips = _with_text(context, context.real("read_english"), "read_english")
    groups = [("all", "en"), ("LJ", "en"), ("other voices", "en")]
    return asr_sentences(context, clips, groups, {"all": "<= 75 %"})


def asr_synth_held_out(context: Context) -> Result:
    """Unseen sentences by synthetic voices unseen in training, by language, engine and voice."""
    clips: list[Clip] = []
    for language in context.languages:
        clips += context.head(context.held_out_speech(language), 200 if language == "en" else 100)
    groups: list[tuple[str, str]] = [(language, language) for language in context.languages]
    for engine in sorted({clip.example.engine or "" for clip in clips if clip.example.language == "en"}):
        groups.append((engine, "en"))
    for speaker, language in sorted({(str(c.example.speaker), str(c.example.language)) for c in clips}):
        groups.append((_VOICE + speaker, language))
    targets = {"en": "<= 40 %", "espeak-ng": "<= 12 %", "zh": "<= 25 %", "yue": "<= 25 %"}
    targets |= {"flite": "<= 25 %", "festival": "<= 25 %"}
    figures, items = asr_sentences(context, clips, groups, targets)
    context.notes.append("Sentences and voices are in no training split; figures of a language are over its voices.")
    return figures, items


def asr_data(context: Context, data: str) -> Result:
    """Any manifest or set of recordings with text: error rates by language and engine."""
    clips = _with_text(context, context.set_or_manifest(data), data)
    groups: list[tuple[str, str]] = []
    for language in ("en", "zh", "yue"):
        own = [clip for clip in clips if (clip.example.language or "en") == language]
        if own:
            groups.append((language, language))
            groups += [(engine, language) for engine in sorted({c.example.engine for c in own if c.example.engine})]
    return asr_sentences(context, clips, groups, {})


_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")  # a Chinese character counts as one

QUIETER_DB = (0, -6, -12, -18, -24, -30)
"""Levels at which nothing is listened to."""


def asr_nothing(context: Context) -> Result:
    """Words written down where nobody speaks: beds of ambience at six levels, and white noise, an hour in all."""
    clips = context.sample(context.real("ambience") + context.real("ambience", "train"))
    sources = {clip.example.id: clip.load() for clip in clips}
    generator = torch.Generator().manual_seed(context.seed)
    for number in range(max(1, len(clips) // 5)):
        sources[f"noise {number}"] = 0.1 * torch.randn(1, 10 * SAMPLE_RATE, generator=generator)
    words: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for name, wave in context.track(list(sources.items()), "listening to nothing"):
        waves = [wave * 10 ** (level / 20) for level in QUIETER_DB]
        texts = context.subject.transcribe(waves, language=None, seed=context.seed)
        words[name] = sum(len(_WORD.findall(text)) for text in texts)
        seconds += len(waves) * wave.shape[-1] / SAMPLE_RATE
        rows += [{"id": name, "level": level, "found": text} for level, text in zip(QUIETER_DB, texts, strict=True)]
    minutes = seconds / 60
    silent = accuracy([not row["found"].strip() for row in rows], clusters=[row["id"] for row in rows])
    figures = [
        Figure("words a minute", sum(words.values()) / minutes, count=len(rows), target="<= 1"),
        Figure.of("pieces without a word", silent, unit="%"),
        Figure("listened to", minutes, count=len(rows), unit="min"),
    ]
    return figures, rows


# ------------------------------------------------------------------------------------------------------- captions


def captions_esc10(context: Context) -> Result:
    """Single real sounds: does the caption name the class (see ``text_metrics.CLASS_WORDS``)?"""
    clips = context.sample(context.real("esc10"))
    captions = _captions(context, clips)
    named = [classes_named(caption) for caption in captions]
    labels = [str(clip.example.label) for clip in clips]
    right = [label in found for label, found in zip(labels, named, strict=True)]
    alone = [found == {label} for label, found in zip(labels, named, strict=True)]
    own = _clusters(clips)
    figures = [
        Figure.of("class named", accuracy(right, clusters=own), unit="%", target=">= 60 %"),
        Figure.of("class named and no other", accuracy(alone, clusters=own), unit="%"),
    ]
    return figures + _by_label(labels, right), _caption_items(clips, labels, captions, right)


def _by_label(labels: Sequence[str], right: Sequence[bool]) -> list[Figure]:
    return [
        Figure.of("class named", accuracy([ok for ok, own in zip(right, labels, strict=True) if own == label]),
                  unit="%", group=label)
        for label in sorted(set(labels))
    ]  # fmt: skip


def _caption_items(
    clips: Sequence[Clip], labels: Sequence[str], captions: Sequence[str], right: Sequence[bool]
) -> list[dict[str, Any]]:
    return [
        {"id": clip.example.id, "label": label, "caption": caption, "right": ok}
        for clip, label, caption, ok in zip(clips, labels, captions, right, strict=True)
    ]


def captions_data(context: Context, data: str) -> Result:
    """Any manifest or set with a class a clip: is it named (`caption_metrics.names_label`)?"""
    clips = context.sample([clip for clip in context.set_or_manifest(data) if clip.example.label])
    if not clips:
        raise EvaluationError(f"{data}: no clip with a label to look for in its caption")
    captions = _captions(context, clips)
    labels = [str(clip.example.label) for clip in clips]
    right = [names_label(label, caption) for label, caption in zip(labels, captions, strict=True)]
    figure = Figure.of("class named", accuracy(right, clusters=_clusters(clips)), unit="%")
    return [figure, *_by_label(labels, right)], _caption_items(clips, labels, captions, right)


def captions_mixtures(context: Context, count: int = 100) -> Result:
    """Two real dev sounds of different classes at once: are both classes named?"""
    mixtures = _mixtures(context, count)
    captions = _captions(context, mixtures)
    both, *others = _mixture_figures(mixtures, captions)
    items = [
        {"id": clip.example.id, "labels": list(clip.example.labels), "caption": caption}
        for clip, caption in zip(mixtures, captions, strict=True)
    ]
    return [replace(both, target=">= 40 %"), *others], items


def _mixtures(context: Context, count: int = 100) -> list[Clip]:
    return two_event_mixtures([clip.example for clip in context.real("esc10")], context.head(range(count), count))


def _mixture_figures(clips: Sequence[Clip], texts: Sequence[str], kind: str = "", group: str = "") -> list[Figure]:
    """How often a text about a mixture names both classes, at least one, and others."""
    pairs = [(set(clip.example.labels), classes_named(text)) for clip, text in zip(clips, texts, strict=True)]
    found = {
        "both classes named": [wanted <= named for wanted, named in pairs],
        "at least one named": [bool(wanted & named) for wanted, named in pairs],
        "classes named that are not there": [bool(named - wanted) for wanted, named in pairs],
    }
    own = _clusters(clips)
    return [
        Figure.of(name + kind, accuracy(right, clusters=own), unit="%", group=group) for name, right in found.items()
    ]


@dataclass(frozen=True)
class Mixture(Clip):
    """A clip made of several recordings.

    Attributes:
        recordings: What it is made of; intervals are drawn over these.
    """

    recordings: tuple[str, ...] = ()

    @property
    def cluster(self) -> Cluster:
        """All recordings of the mixture."""
        return self.recordings


def two_event_mixtures(examples: Sequence[Example], numbers: Sequence[int]) -> list[Clip]:
    """Pairs of clips of different classes, mixed: equal level within 3 dB, the second up to 1.5 s later, 5 s long.

    Mixture ``i`` depends on the clips and ``i`` alone. The clips are those given, so that with dev clips nothing of a
    mixture was heard in training.
    """
    ordered = sorted(examples, key=lambda example: example.id)
    clips = []
    for number in numbers:
        rng = random.Random(f"mixture-{number}")
        first = ordered[rng.randrange(len(ordered))]
        second = rng.choice([example for example in ordered if example.label != first.label])
        late_s, level_db = rng.uniform(0, 1.5), rng.uniform(-3, 3)
        labels = (str(first.label), str(second.label))
        example = Example(f"mixture-{number:03d}", first.path, 5.0, kind="sound", labels=labels, root=first.root)
        own = (recording_of(first), recording_of(second))
        clips.append(Mixture(example, lambda a=first, b=second, s=late_s, g=level_db: _mix(a, b, s, g), own))
    return clips


def _mix(first: Example, second: Example, late_s: float, level_db: float) -> Tensor:
    out = torch.zeros(1, 5 * SAMPLE_RATE)
    for example, start_s, gain_db in ((first, 0.0, 0.0), (second, late_s, level_db)):
        wave = example.audio()
        loud = wave[:, torch.from_numpy(np.abs(wave[0].numpy()) > 1e-3)]
        level = float((loud if loud.numel() else wave).square().mean().sqrt().clamp(min=1e-4))
        start = round(start_s * SAMPLE_RATE)
        part = wave[:, : out.shape[1] - start]
        out[:, start : start + part.shape[1]] += part * (0.07 / level * 10 ** (gain_db / 20))
    return out / max(1.0, float(out.abs().max()) / 0.95)


def _captions(context: Context, clips: Sequence[Clip]) -> list[str]:
    captions: list[str] = []
    for part in context.track(list(batches(clips, BATCH)), "captioning"):
        captions += context.subject.caption([clip.load() for clip in part], seed=context.seed)
    return captions


# ------------------------------------------------------------------------------------------------- reasoning codes


def reasoning(context: Context) -> Result:
    """Text from nothing but the reasoning codes, beside the same with codes that belong to another clip.

    Speech: unseen sentences by unseen synthetic voices (English), real read English, real words; sounds: real ESC-10
    dev clips, alone and two at once. With codes of another clip of the same set the text decoder must fail.
    """
    subject = context.subject
    if not isinstance(subject, HasTextDecoder):
        raise EvaluationError(f"model {subject.name!r} cannot read its reasoning codes as text")
    sets: list[tuple[str, list[Clip]]] = [
        ("synthetic sentences", context.head(context.held_out_speech("en"), 100)),
        ("read English", context.sample([c for c in context.real("read_english") if c.example.text], 100)),
        ("keywords", context.sample([c for c in context.real("keywords") if c.example.text], 100)),
        ("digits", context.sample([c for c in context.real("fsdd") if c.example.text], 100)),
        ("sounds", context.sample(context.real("esc10"), 100)),
        ("mixtures", _mixtures(context)),
    ]
    figures: list[Figure] = []
    items: list[dict[str, Any]] = []
    for name, clips in sets:
        texts = []
        for part in context.track(list(batches(clips, BATCH)), f"reading {name}"):
            texts += [subject.read_reasoning(codes) for codes in subject.encode([clip.load() for clip in part])]
        # The decoder is deterministic: another clip's codes give another clip's text.
        shuffled = [texts[index] for index in derangement(len(texts), context.seed)]
        for kind, found in (("", texts), (", codes of another clip", shuffled)):
            figures += _reasoning_figures(name, clips, found, kind, context)
        items += [
            {"id": clip.example.id, "set": name, "wanted": _wanted(clip.example), "found": text}
            for clip, text in zip(clips, texts, strict=True)
        ]
    return figures, items


def _wanted(example: Example) -> str | None:
    return example.text or example.label or " + ".join(example.labels)


def _reasoning_figures(
    name: str, clips: Sequence[Clip], found: Sequence[str], kind: str, context: Context
) -> list[Figure]:
    own = _clusters(clips)
    if name == "sounds":
        right = [str(c.example.label) in classes_named(text) for c, text in zip(clips, found, strict=True)]
        return [Figure.of("class named" + kind, accuracy(right, clusters=own), unit="%", group=name)]
    if name == "mixtures":
        return _mixture_figures(clips, found, kind, name)
    wanted = [str(clip.example.text) for clip in clips]
    scores = score_texts(wanted, found, normaliser=context.normaliser, clusters=own, seed=context.seed)
    if name in ("keywords", "digits"):
        return [Figure.of("accuracy" + kind, scores.exact, unit="%", group=name)]
    return [
        Figure.of("WER" + kind, scores.wer, unit="%", group=name),
        Figure.of("CER" + kind, scores.cer, unit="%", group=name),
    ]


def derangement(count: int, seed: int) -> list[int]:
    """A permutation of ``range(count)`` that leaves nothing in its place; the identity for fewer than two."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    target = [math.nan] * count
    for place, index in enumerate(order):
        target[index] = order[(place + 1) % count]
    return [int(index) for index in target]
