"""One labelled example of a corpus: named audios, texts and turns, and how it is written as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, read_audio
from uniaudio2.errors import UserError
from uniaudio2.tasks import KINDS
from uniaudio2.text import LANGUAGES

_LANGUAGE_ALIASES = {"cmn": "zh", "zh-cn": "zh", "zh-hk": "yue", "en-us": "en", "en-gb": "en"}


class ManifestError(UserError):
    """A manifest that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Recording:
    """A stretch of an audio file."""

    path: str  # relative to the manifest's folder
    duration: float  # seconds, > 0
    start: float = 0.0  # where it starts in the file, seconds

    def __post_init__(self) -> None:
        if not self.path:
            raise ManifestError("path must not be empty")
        if not (math.isfinite(self.duration) and self.duration > 0):
            raise ManifestError(f"duration must be a positive number of seconds, not {self.duration!r}")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ManifestError(f"start must be >= 0 seconds, not {self.start!r}")


@dataclass(frozen=True)
class Turn:
    """What one speaker says in the example's first audio; turns may overlap."""

    start: float  # seconds from the audio's start
    end: float
    text: str | None = None
    speaker: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ManifestError(f"a turn must start at >= 0 and end later, not go from {self.start} to {self.end} s")


@dataclass(frozen=True)
class Example:
    """One labelled clip, or several audios, texts and turns that belong together.

    Attributes:
        id: Unique in its manifest.
        path: Audio file of the audio named ``audio``, relative to ``root``; empty where all audios are in ``audios``.
        duration: Its length in seconds, > 0; that of the first audio where ``path`` is empty.
        start: Where it starts in the file, seconds.
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
        audios: Further audios by name, such as ``noisy`` and ``clean``, ``source`` and ``target``.
        texts: Further texts by name, such as ``question`` and ``answer``.
        turns: Who speaks when, in order of their starts.
        root: Folder of the manifest; not written to it.
    """

    id: str
    path: str = ""
    duration: float = 0.0
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
    audios: Mapping[str, Recording] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
    root: Path = field(default=Path("."), compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            raise ManifestError("id must not be empty")
        if not self.path and self.audios:
            object.__setattr__(self, "duration", next(iter(self.audios.values())).duration)
        else:
            Recording(self.path, self.duration, self.start)
        if self.path and "audio" in self.audios:
            raise ManifestError("audio 'audio' is given twice: by path and in audios")
        for name in {"text", "caption"} & self.texts.keys():
            raise ManifestError(f"text {name!r} is a field of its own: write it beside texts")
        for name in (*self.audios, *self.texts):
            if not name.isidentifier():
                raise ManifestError(f"names of audios and texts are words of letters, digits and _, not {name!r}")
        if self.kind not in KINDS:
            raise ManifestError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.language is not None and self.language not in LANGUAGES:
            raise ManifestError(f"language must be one of {', '.join(LANGUAGES)} or null, not {self.language!r}")

    @property
    def recordings(self) -> dict[str, Recording]:
        """All audios by name, the first one first."""
        own = {"audio": Recording(self.path, self.duration, self.start)} if self.path else {}
        return {**own, **self.audios}

    @property
    def first(self) -> Recording:
        """The first audio."""
        return next(iter(self.recordings.values()))

    @property
    def file(self) -> Path:
        """The full path of the first audio's file."""
        return self.root / self.first.path

    def audio(self, sample_rate: int = SAMPLE_RATE, *, name: str | None = None) -> Tensor:
        """Read an audio, the first one by default: (1, N) at ``sample_rate`` Hz.

        Raises:
            AudioError: If it cannot be read.
        """
        recording = self.recordings[name] if name is not None else self.first
        return read_audio(self.root / recording.path, sample_rate, recording.start, recording.duration)

    def to_json(self) -> dict[str, Any]:
        """The manifest line as a dictionary, without empty fields."""
        out: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            empty = value is None or value in ((), {}, "") or (item.name == "start" and value == 0.0)
            if item.name == "root" or empty or (item.name == "duration" and not self.path):
                continue
            out[item.name] = list(value) if isinstance(value, tuple) else value
        if self.audios:
            out["audios"] = {name: _without_defaults(each) for name, each in self.audios.items()}
        if self.turns:
            out["turns"] = [_without_defaults(turn) for turn in self.turns]
        return out


def _without_defaults(item: Recording | Turn) -> dict[str, Any]:
    fields = dataclasses.fields(item)
    return {f.name: getattr(item, f.name) for f in fields if getattr(item, f.name) != f.default}


_FIELD_NAMES = {item.name for item in dataclasses.fields(Example)} - {"root"}
_LIST_FIELDS = {"labels", "captions"}
_TEXT_FIELDS = _FIELD_NAMES - _LIST_FIELDS - {"duration", "start", "audios", "texts", "turns"}


def example_from_json(data: Mapping[str, Any], root: Path) -> Example:
    """Build an `Example` from a manifest line; unknown keys are ignored, so that foreign manifests can be read.

    Args:
        data: The JSON object.
        root: Folder that ``path`` is relative to.

    Raises:
        ManifestError: If a field is missing or has a wrong type or value.
    """
    values: dict[str, Any] = {key: value for key, value in data.items() if key in _FIELD_NAMES and value is not None}
    for key in ("id",) if "audios" in values and "path" not in values else ("id", "path", "duration"):
        if key not in values:
            raise ManifestError(f"field {key!r} is missing")
    _check_fields(values, texts=_TEXT_FIELDS, seconds={"duration", "start"})
    for key in _LIST_FIELDS & values.keys():
        if not isinstance(values[key], list) or not all(isinstance(item, str) for item in values[key]):
            raise ManifestError(f"field {key!r} must be a list of strings, not {values[key]!r}")
        values[key] = tuple(values[key])
    if "texts" in values:
        texts = _mapping("texts", values["texts"])
        _check_fields(texts, texts=set(texts), seconds=set())
        for name in {"text", "caption"} & texts.keys() - values.keys():
            values[name] = texts.pop(name)
        values["texts"] = texts
    if "audios" in values:
        audios = _mapping("audios", values["audios"])
        values["audios"] = {name: _nested(Recording, f"audios.{name}", item) for name, item in audios.items()}
    if "turns" in values:
        if not isinstance(values["turns"], list):
            raise ManifestError(f"field 'turns' must be a list of objects, not {values['turns']!r}")
        turns = [_nested(Turn, f"turns[{number}]", item) for number, item in enumerate(values["turns"])]
        values["turns"] = tuple(sorted(turns, key=lambda turn: turn.start))
    if "language" in values:
        values["language"] = _LANGUAGE_ALIASES.get(values["language"].lower(), values["language"])
    return Example(**values, root=root)


def _check_fields(values: dict[str, Any], *, texts: Set[str], seconds: Set[str]) -> None:
    """Types of those fields that are there; seconds become floats."""
    for key in seconds & values.keys():
        if isinstance(values[key], bool) or not isinstance(values[key], int | float):
            raise ManifestError(f"field {key!r} must be a number of seconds, not {values[key]!r}")
        values[key] = float(values[key]) if abs(values[key]) < 1e9 else math.inf
    for key in texts & values.keys():
        if not isinstance(values[key], str):
            raise ManifestError(f"field {key!r} must be a string, not {values[key]!r}")


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ManifestError(f"field {name!r} must be an object with names as keys, not {value!r}")
    return {key: item for key, item in value.items() if item is not None}


_Nested = TypeVar("_Nested", Recording, Turn)


def _nested(kind: type[_Nested], name: str, value: Any) -> _Nested:
    """A recording or a turn inside of a line."""
    try:
        fields = {item.name: item for item in dataclasses.fields(kind)}
        values = {key: item for key, item in _mapping(name, value).items() if key in fields}
        for key, item in fields.items():
            if item.default is dataclasses.MISSING and key not in values:
                raise ManifestError(f"field {key!r} is missing")
        numbers = {key for key, item in fields.items() if item.type == "float"}
        _check_fields(values, texts=fields.keys() - numbers, seconds=numbers)
        return kind(**values)
    except ManifestError as error:
        raise ManifestError(f"{name}: {error}") from None
