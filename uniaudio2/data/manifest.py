"""The one manifest of the project: labelled audio clips as JSON lines.

A manifest is a text file with one JSON object per line. Paths are relative to the manifest's folder; several clips
may share one audio file (a *shard*) and point into it with ``start`` and ``duration``. Knows nothing about models.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, read_audio
from uniaudio2.errors import UserError
from uniaudio2.files import write_text

KINDS = ("speech", "sound", "music")
"""What a clip can be."""

LANGUAGES = ("en", "zh", "yue")
"""Languages of speech: English, Mandarin, Cantonese."""

_LANGUAGE_ALIASES = {"cmn": "zh", "zh-cn": "zh", "zh-hk": "yue", "en-us": "en", "en-gb": "en"}


class ManifestError(UserError):
    """A manifest that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Example:
    """One labelled clip.

    Attributes:
        id: Unique in its manifest.
        path: Audio file, relative to ``root``.
        duration: Length in seconds, > 0.
        start: Where the clip starts in the file, seconds.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        kind: ``"speech"``, ``"sound"`` or ``"music"``.
        text: What is said, normalised as the text tokenizer wants it; None where unknown.
        phonemes: What is said, as phone symbols separated by spaces; None where unknown.
        language: ``"en"``, ``"zh"`` or ``"yue"``; None for sounds. ``"cmn"`` is read as ``"zh"``.
        speaker: Voice; equal names mean the same voice.
        label: Class of a sound, or a label of a speech set.
        labels: Classes of a mixture, in order of the caption.
        caption: A phrase that describes a sound.
        captions: Other phrasings of the caption.
        engine: Program that made the clip; None for recordings.
        licence: Licence of the clip.
        attribution: Whom to credit.
        source: Name of the set that the clip comes from.
        root: Folder of the manifest; not written to it.
    """

    id: str
    path: str
    duration: float
    start: float = 0.0
    split: str = "train"
    kind: str = "speech"
    text: str | None = None
    phonemes: str | None = None
    language: str | None = None
    speaker: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    caption: str | None = None
    captions: tuple[str, ...] = ()
    engine: str | None = None
    licence: str | None = None
    attribution: str | None = None
    source: str | None = None
    root: Path = field(default=Path("."), compare=False)

    def __post_init__(self) -> None:
        if not self.id or not self.path:
            raise ManifestError("id and path must not be empty")
        if not (math.isfinite(self.duration) and self.duration > 0):
            raise ManifestError(f"duration must be a positive number of seconds, not {self.duration!r}")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ManifestError(f"start must be >= 0 seconds, not {self.start!r}")
        if self.kind not in KINDS:
            raise ManifestError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.language is not None and self.language not in LANGUAGES:
            raise ManifestError(f"language must be one of {', '.join(LANGUAGES)} or null, not {self.language!r}")

    @property
    def file(self) -> Path:
        """The audio file's full path."""
        return self.root / self.path

    def audio(self, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Read the clip, (1, N) at ``sample_rate`` Hz; raises `AudioError` if it cannot be read."""
        return read_audio(self.file, sample_rate, self.start, self.duration)

    def to_json(self) -> dict[str, Any]:
        """The manifest line as a dictionary, without empty fields."""
        out: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.name == "root" or value is None or value == () or (item.name == "start" and value == 0.0):
                continue
            out[item.name] = list(value) if isinstance(value, tuple) else value
        return out


_FIELD_NAMES = {item.name for item in dataclasses.fields(Example)} - {"root"}
_TEXT_FIELDS = _FIELD_NAMES - {"duration", "start", "labels", "captions"}


def example_from_json(data: dict[str, Any], root: Path) -> Example:
    """Build an `Example` from a manifest line; unknown keys are ignored, so that foreign manifests can be read.

    Args:
        data: The JSON object.
        root: Folder that ``path`` is relative to.

    Raises:
        ManifestError: If a field is missing or has a wrong type or value.
    """
    values: dict[str, Any] = {key: value for key, value in data.items() if key in _FIELD_NAMES and value is not None}
    for key in ("id", "path", "duration"):
        if key not in values:
            raise ManifestError(f"field {key!r} is missing")
    for key in ("duration", "start"):
        if key in values:
            if isinstance(values[key], bool) or not isinstance(values[key], int | float):
                raise ManifestError(f"field {key!r} must be a number of seconds, not {values[key]!r}")
            values[key] = float(values[key])
    for key in ("labels", "captions"):
        if key in values:
            if not isinstance(values[key], list) or not all(isinstance(item, str) for item in values[key]):
                raise ManifestError(f"field {key!r} must be a list of strings, not {values[key]!r}")
            values[key] = tuple(values[key])
    for key in _TEXT_FIELDS & values.keys():
        if not isinstance(values[key], str):
            raise ManifestError(f"field {key!r} must be a string, not {values[key]!r}")
    if "language" in values:
        values["language"] = _LANGUAGE_ALIASES.get(values["language"].lower(), values["language"])
    return Example(**values, root=root)


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
    seen: dict[str, int] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
            except json.JSONDecodeError as error:
                raise ManifestError(f"{file}:{number}: not JSON ({error.msg})") from error
            if not isinstance(data, dict):
                raise ManifestError(f"{file}:{number}: expected one JSON object per line")
            try:
                example = example_from_json(data, file.parent)
            except ManifestError as error:
                raise ManifestError(f"{file}:{number}: {error}") from error
            if example.id in seen:
                raise ManifestError(f"{file}:{number}: id {example.id!r} was used in line {seen[example.id]} already")
            seen[example.id] = number
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


def validate(path: str | Path) -> ManifestReport:
    """Check a manifest against its audio: files exist and decode, clips lie inside them, nothing leaks to dev.

    Args:
        path: Manifest file or folder.

    Returns:
        Figures and problems. Wrong lines are raised by `read_manifest`, all else is collected.

    Raises:
        ManifestError: If the manifest cannot be read at all.
    """
    examples = read_manifest(path)
    problems: list[str] = []
    lengths: dict[Path, float] = {}
    for example in examples:
        if example.file in lengths:
            continue
        lengths[example.file] = -1.0
        try:
            info = soundfile.info(str(example.file))
            lengths[example.file] = info.frames / info.samplerate
        except (soundfile.LibsndfileError, OSError):
            problems.append(f"{example.id}: {example.file} is missing or not audio")
    for example in examples:
        length = lengths[example.file]
        if 0 <= length < example.start + example.duration - 0.05:
            problems.append(
                f"{example.id}: clip ends at {example.start + example.duration:.2f} s, its file at {length:.2f} s"
            )
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
