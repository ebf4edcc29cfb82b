"""What was made of an item, as plain values: kept beside the page, so that a build goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniaudio2.files import write_text

FOLDER = "records"


@dataclass
class Piece:
    """A text or a sound on the page.

    Attributes:
        role: ``given``, ``shot`` (an example in front), ``ours``, ``truth`` or ``peer``.
        name: Of the value in the row, or of the other system.
        text: Where it is text.
        file: Where it is a sound: below the page's folder.
        picture: Its spectrogram, likewise.
        duration_s: Of the sound.
        figures: By key of `Metric`.
        right: Whether it is as expected; None where there is no right or wrong.
        heard: What a judge heard in it.
    """

    role: str
    name: str
    text: str = ""
    file: str = ""
    picture: str = ""
    duration_s: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)
    right: bool | None = None
    heard: str = ""


@dataclass
class Record:
    """What was made of one item.

    Attributes:
        section: Its name.
        name: Id of the item.
        expected: What should have come, as text.
        got: What came, as text: an answer, or what a judge heard.
        right: Whether it is as expected; None where there is no right or wrong.
        time_s: Seconds of work.
        audio_s: Seconds of audio that were read or made.
        pieces: In the order of the page.
        note: Whose recordings these are.
        command: What to type for the same, in the page's folder.
        private: Whether the recordings may not be passed on.
        identity: Of everything that it depends on.
        error: Why it failed; empty where it did not.
    """

    section: str
    name: str
    expected: str = ""
    got: str = ""
    right: bool | None = None
    time_s: float = 0.0
    audio_s: float = 0.0
    pieces: list[Piece] = field(default_factory=list)
    note: str = ""
    command: str = ""
    private: bool = False
    identity: str = ""
    error: str = ""

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.time_s / max(self.audio_s, 1e-9)

    @property
    def files(self) -> list[str]:
        """Files of sounds and pictures, below the page's folder."""
        return [file for piece in self.pieces for file in (piece.file, piece.picture) if file]

    def to_dict(self, folder: Path) -> dict[str, Any]:
        """Plain values for JSON."""
        known = {"error": self.error} if self.error else {}
        return {
            "task": self.section,
            "item": self.name,
            "expected": self.expected,
            "got": self.got,
            "as_expected": self.right,
            "time_s": round(self.time_s, 3),
            "audio_s": round(self.audio_s, 3),
            "real_time_factor": round(self.real_time_factor, 3),
            "files": [str(folder / piece.file) for piece in self.pieces if piece.file],
            **known,
        }


def save(record: Record, folder: Path, file_name: str) -> None:
    """Keep a record; its files are there already."""
    write_text(folder / FOLDER / f"{file_name}.json", json.dumps(dataclasses.asdict(record), ensure_ascii=False))


def kept(folder: Path, file_name: str, identity: str) -> Record | None:
    """The record of an item with all its files; None where it is not there, is of something else, or is broken."""
    try:
        values = json.loads((folder / FOLDER / f"{file_name}.json").read_text(encoding="utf-8"))
        record = Record(**{**values, "pieces": [Piece(**piece) for piece in values["pieces"]]})
        if record.identity == identity and all((folder / file).is_file() for file in record.files):
            return record
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None
