"""Captions of scenes: are all sounds named, and in the order in which they are heard?"""

from __future__ import annotations

import re
from typing import Any

from uniaudio2.data.sources import CAPTIONS
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.eval.context import Clip, Context
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import CLASS_WORDS, accuracy, simple
from uniaudio2.eval.understanding import captions_data

Result = tuple[list[Figure], list[dict[str, Any]]]

_PLAIN = {
    "a", "an", "the", "of", "in", "on", "to", "it", "is", "sound", "sounds", "someone", "person", "people", "by", "at",
    "old", "loud", "repeated", "goes", "off",
}  # fmt: skip


def scene_words() -> dict[str, tuple[str, ...]]:
    """Words that name each class: those of ESC-10's classes, of others what only their own phrases say."""
    phrases = {label: item.phrases for label, item in CLASSES.items()} | CAPTIONS
    words = {label: {word for text in own for word in simple(text).split()} - _PLAIN for label, own in phrases.items()}
    alone = {
        label: tuple(sorted(word for word in own if sum(word in others for others in words.values()) == 1))
        for label, own in words.items()
    }
    found = {label: CLASS_WORDS.get(label, alone[label]) for label in words}
    return {label: own for label, own in found.items() if own}


def told_order(caption: str, words: dict[str, tuple[str, ...]]) -> list[str]:
    """Classes that a caption names, in the order in which it says that they are heard."""
    text = f" {simple(caption)} ".replace("'", " ")
    places: list[tuple[int, str]] = []
    for label, own in words.items():
        found = [text.find(f" {word} ") for word in own if f" {word} " in text]
        if found:
            places.append((min(found), label))
    order = [label for _, label in sorted(places)]
    return order[::-1] if re.search(r"\bafter\b", text) else order


def captions(context: Context, data: str) -> Result:
    """Any labelled manifest or set; those of scenes by sounds and order."""
    clips = [clip for clip in context.set_or_manifest(data) if clip.example.source == "synth_scene"]
    return scenes(context, context.sample(clips)) if clips else captions_data(context, data)


def scenes(context: Context, clips: list[Clip]) -> Result:
    """Share of scenes whose sounds are all named, and of sequences that are told in the right order."""
    found: list[str] = []
    for clip in context.track(clips, "captioning"):
        found += context.subject.caption([clip.load()], seed=context.seed)
    words = scene_words()
    rows: list[dict[str, Any]] = []
    for clip, text in zip(clips, found, strict=True):
        wanted = list(clip.example.labels)
        told = [label for label in told_order(text, words) if label in wanted]
        rows.append({
            "id": clip.example.id, "wanted": clip.example.caption, "found": text,
            "all": set(told) == set(wanted), "one": bool(told), "order": told == wanted,
            "together": " while " in str(clip.example.label),
        })  # fmt: skip
    sequences = [row for row in rows if not row["together"]]
    both = [row for row in sequences if row["all"]]
    together = [row for row in rows if row["together"]]
    return [
        Figure.of("all sounds named", accuracy([row["all"] for row in rows]), unit="%"),
        Figure.of("at least one sound named", accuracy([row["one"] for row in rows]), unit="%"),
        Figure.of("all sounds named in order", accuracy([row["order"] for row in sequences]), unit="%",
                  group="sequences"),
        Figure.of("order right where all are named (chance 50 %)", accuracy([row["order"] for row in both]), unit="%",
                  group="sequences"),
        Figure.of("all sounds named", accuracy([row["all"] for row in together]), unit="%", group="at the same time"),
    ], rows  # fmt: skip
