"""Layouts of sound, music and audio understanding sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from uniaudio2.data.benchmarks.files import column, example, find_audio, inside, rows
from uniaudio2.data.example import Example, ManifestError


def esc50(root: Path, split: str) -> Iterator[Example]:
    """``meta/esc50.csv`` and ``audio``; a split is a fold of the five."""
    top = inside(root, "meta/esc50.csv")
    file = top / "meta" / "esc50.csv"
    for row in rows(file):
        if f"fold{column(row, 'fold', file)}" == split:
            yield example(root, top / "audio" / column(row, "filename", file), kind="sound", label=row["category"],
                          split="test")  # fmt: skip


def clotho(root: Path, split: str) -> Iterator[Example]:
    """``clotho_captions_SPLIT.csv`` with ``file_name`` and five captions, and a folder ``SPLIT``."""
    name = f"clotho_captions_{split}.csv"
    top = inside(root, name)
    for row in rows(top / name):
        captions = tuple(row[f"caption_{n}"] for n in range(1, 6) if row.get(f"caption_{n}"))
        yield example(root, top / split / column(row, "file_name", top / name), kind="sound", caption=captions[0],
                      captions=captions, split="test")  # fmt: skip


def audiocaps(root: Path, split: str) -> Iterator[Example]:
    """``SPLIT.csv`` with ``youtube_id, start_time, caption``, several captions a clip, and a folder with the clips."""
    top = inside(root, f"{split}.csv")
    file = top / f"{split}.csv"
    captions: dict[str, list[str]] = {}
    numbers: dict[str, list[str]] = {}
    for row in rows(file):
        clip = column(row, "youtube_id", file)
        captions.setdefault(clip, []).append(column(row, "caption", file))
        numbers.setdefault(clip, []).append(row.get("audiocap_id") or clip)
    folders = [folder for folder in (top / split, top / "audio" / split, top / "audio") if folder.is_dir()]
    for clip, texts in captions.items():
        names = (clip, f"Y{clip}", *numbers[clip])
        audio = next((found for folder in folders if (found := find_audio(folder, *names))), None)
        if audio is not None:  # videos that are gone
            yield example(root, audio, id=clip, kind="sound", caption=texts[0], captions=tuple(texts), split="test")


def musiccaps(root: Path, split: str) -> Iterator[Example]:
    """``musiccaps-public.csv`` and clips whose names hold the video's id; ``eval`` is AudioSet's evaluation part."""
    top = inside(root, "musiccaps-public.csv")
    file = top / "musiccaps-public.csv"
    clips = {path for path in top.rglob("*") if path.suffix.lower() in (".wav", ".flac", ".mp3", ".m4a", ".opus")}
    by_name = {path.stem: path for path in sorted(clips)}
    for row in rows(file):
        clip = column(row, "ytid", file)
        if (row.get("is_audioset_eval", "").lower() == "true") == (split == "eval"):
            audio = by_name.get(clip) or next((path for name, path in by_name.items() if clip in name), None)
            if audio is not None:
                yield example(root, audio, id=clip, kind="music", caption=column(row, "caption", file), split="test")


def mmau(root: Path, split: str) -> Iterator[Example]:
    """``mmau-SPLIT.json``: questions, choices and, for test-mini, answers; ``audio_id`` is a path below the folder."""
    top = inside(root, f"mmau-{split}.json")
    file = top / f"mmau-{split}.json"
    try:
        questions = json.loads(file.read_text(encoding="utf-8"))
        for row in questions:
            choices = "\n".join(
                f"({letter}) {choice}" for letter, choice in zip("ABCDEFGH", row["choices"], strict=False)
            )
            texts = {
                "question": f"{row['question']}\n{choices}",
                **({"answer": row["answer"]} if row.get("answer") else {}),
            }
            kind = {"speech": "speech", "music": "music"}.get(row.get("task", ""), "sound")
            yield example(root, top / row["audio_id"], id=row["id"], kind=kind, texts=texts, label=row.get("task"),
                          split="test")  # fmt: skip
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ManifestError(f"{file}: not the questions of MMAU ({error})") from error
