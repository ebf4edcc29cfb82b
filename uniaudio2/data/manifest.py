"""The one manifest of the project: labelled audio clips as JSON lines.

A manifest is a text file with one JSON object per line. Paths are relative to the manifest's folder; several clips
may share one audio file (a *shard*) and point into it with ``start`` and ``duration``. A line has one audio, or several
with names. Knows nothing about models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

from uniaudio2.data.example import Example, ManifestError, example_from_json
from uniaudio2.files import write_text
from uniaudio2.text import LANGUAGES, normalise_text

__all__ = [
    "Example",
    "ManifestError",
    "ManifestReport",
    "add_phonemes",
    "example_from_json",
    "manifest_path",
    "read_manifest",
    "validate",
    "write_manifest",
]


def _lines(file: Path) -> Iterator[tuple[int, Example | ManifestError]]:
    """Every line that is not empty, by number: an example, or what is wrong with it."""
    seen: dict[str, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            if not isinstance(data, dict):
                raise ManifestError("expected one JSON object per line")
            example = example_from_json(data, file.parent)
            if example.id in seen:
                raise ManifestError(f"id {example.id!r} was used in line {seen[example.id]} already")
            seen[example.id] = number
            yield number, example
        except ManifestError as error:
            yield number, error
        except UnicodeDecodeError:
            yield number, ManifestError("not UTF-8")
        except (ValueError, RecursionError) as error:
            yield number, ManifestError(f"not JSON ({getattr(error, 'msg', 'too deep')})")


def read_manifest(path: str | Path, *, split: str | None = None) -> list[Example]:
    """Read a manifest.

    Args:
        path: The JSONL file, or a folder with a ``manifest.jsonl``.
        split: Keep only this split.

    Returns:
        The examples in the order of the file, with ``root`` set to its folder.

    Raises:
        ManifestError: If the file is missing or a line is wrong (the message names the line), or an id occurs twice.
    """
    file = manifest_path(path)
    examples: list[Example] = []
    for number, example in _lines(file):
        if isinstance(example, ManifestError):
            raise ManifestError(f"{file}:{number}: {example}; `uniaudio2 data validate` names all wrong lines")
        if split is None or example.split == split:
            examples.append(example)
    return examples


def manifest_path(path: str | Path) -> Path:
    """The manifest file for a file or a folder; raises `ManifestError` if there is none."""
    file = Path(path)
    if file.is_dir():
        file = file / "manifest.jsonl"
    if not file.is_file():
        raise ManifestError(f"{file}: no such manifest; make one with `uniaudio2 data synth` or give another path")
    return file


def write_manifest(path: str | Path, examples: Iterable[Example]) -> None:
    """Write a manifest under a temporary name and rename it; the examples' paths are written as they are."""
    write_text(path, "".join(json.dumps(example.to_json(), ensure_ascii=False) + "\n" for example in examples))


def add_phonemes(path: str | Path, say: Callable[[str, str], str | None]) -> tuple[int, list[str]]:
    """Write the phones of every transcribed clip into a manifest where they are missing; nothing else is changed.

    Args:
        path: Manifest file or folder; written anew, whole or not at all.
        say: (text, language) → phones separated by spaces, or None where it cannot tell.

    Returns:
        How many clips got phones, and the ids of those that have a text and got none.

    Raises:
        ManifestError: If there is no manifest or a line is wrong.
    """
    file = manifest_path(path)
    examples = {example.id: example for example in read_manifest(file)}
    done: list[str] = []
    left: list[str] = []
    lines: list[str] = []
    for line in file.read_bytes().decode("utf-8-sig").splitlines():
        row = json.loads(line) if line.strip() else {"id": ""}
        example = examples.get(row["id"])
        if example is not None and example.text and not example.phonemes:
            language = example.language
            phones = say(normalise_text(example.text, language), language) if language else None
            (done if phones else left).append(example.id)
            line = json.dumps({**row, "phonemes": phones}, ensure_ascii=False) if phones else line
        lines.append(line + "\n")
    write_text(file, "".join(lines))
    return len(done), left


@dataclass(frozen=True)
class ManifestReport:
    """What `validate` found.

    Attributes:
        num_examples: Lines read.
        hours: Summed duration by split.
        counts: Number of clips by (split, kind, language or ``"-"``).
        problems: One line for each problem; empty if the manifest is good.
    """

    num_examples: int
    hours: dict[str, float]
    counts: dict[tuple[str, str, str], int]
    problems: list[str]


def as_spoken(example: Example) -> Example:
    """The example with its transcript as it is spoken, see `normalise_text`; as it is if its language is not known.

    A model that learned such texts would unlearn them on capitals and commas.
    """
    if example.kind != "speech" or not example.text or example.language not in LANGUAGES:
        return example
    return replace(example, text=normalise_text(example.text, example.language) or example.text)


def validate(path: str | Path) -> ManifestReport:
    """Check a manifest against its audio: files exist and decode, clips lie inside them, nothing leaks to dev.

    Args:
        path: Manifest file or folder.

    Returns:
        Figures of the lines that can be read, and the problems of all lines.

    Raises:
        ManifestError: If there is no manifest.
    """
    file = manifest_path(path)
    examples: list[Example] = []
    problems: list[str] = []
    for number, example in _lines(file):
        if isinstance(example, ManifestError):
            problems.append(f"{file}:{number}: {example}")
        else:
            examples.append(example)
    lengths: dict[Path, float] = {}
    for example in examples:
        problems += [f"{example.id}: {problem}" for problem in _audio_problems(example, lengths)]
        if example.kind == "speech" and example.text == "":
            problems.append(f"{example.id}: empty text; use null where it is unknown")
        if example.kind != "speech" and not (example.caption or example.label):
            problems.append(f"{example.id}: a {example.kind} without caption or label")
    problems.extend(_leaks(examples))
    hours: dict[str, float] = {}
    for example in examples:
        hours[example.split] = hours.get(example.split, 0.0) + example.duration / 3600
    counts = Counter((e.split, e.kind, e.language or "-") for e in examples)
    return ManifestReport(len(examples), hours, dict(counts), problems)


def _audio_problems(example: Example, lengths: dict[Path, float]) -> Iterator[str]:
    """What is wrong with an example's audios and turns; files that were looked at are in ``lengths`` (seconds)."""
    for name, recording in example.recordings.items():
        file = example.root / recording.path
        if file not in lengths:
            try:
                info = soundfile.info(str(file))
                lengths[file] = info.frames / info.samplerate
            except (soundfile.LibsndfileError, OSError):
                lengths[file] = -1.0
                yield f"{file} is missing or not audio"
        end = recording.start + recording.duration
        if 0 <= lengths[file] < end - 0.05:
            what = "clip" if name == "audio" else f"audio {name!r}"
            yield f"{what} ends at {end:.2f} s, its file at {lengths[file]:.2f} s"
    late = next((turn for turn in example.turns if turn.end > example.first.duration + 0.05), None)
    if late is not None:
        yield f"a turn ends at {late.end:.2f} s, its audio is {example.first.duration:.2f} s long"


def _leaks(examples: list[Example]) -> list[str]:
    """Sentences (20 characters or more, or 8 Chinese ones) of synthetic dev clips that occur in train as well."""

    def sentences(split: str) -> set[tuple[str, str]]:
        """Language and text of a split's speech."""
        return {
            (e.language or "", e.text)
            for e in examples
            if e.text and (e.split == "train") == (split == "train") and e.engine is not None and _is_sentence(e)
        }

    leaked = sorted(sentences("train") & sentences("dev"))
    return [f"{language} sentence is both in train and in dev: {text!r}" for language, text in leaked[:20]]


def _is_sentence(example: Example) -> bool:
    """Whether a text is long enough to be unique to its recording (single words are shared by design)."""
    return len(example.text or "") >= (20 if example.language == "en" else 8)
