"""What a conversion did with every tensor of its sources, for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from uniaudio2.errors import UserError
from uniaudio2.files import write_text
from uniaudio2.storage.folder import CARD_FILE
from uniaudio2.tensors import summarise

Action = Literal["used", "renamed", "unused"]

REPORT_FILE = "conversion.json"


class ConversionError(UserError):
    """Files that cannot be converted: one line that says why; ``report`` has what was found until then."""

    def __init__(self, message: str, report: ConversionReport | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class KeyRecord:
    """What became of one tensor of a source file."""

    file: str
    key: str
    action: Action
    name: str | None  # in the written file
    why: str = ""  # for unused ones


@dataclass
class ConversionReport:
    """Everything that a conversion did and could not do."""

    records: list[KeyRecord] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # names here that no source gave
    wrong_shape: list[str] = field(default_factory=list)
    wrong_type: list[str] = field(default_factory=list)  # whole numbers where weights are, and the other way round
    unexplained: list[str] = field(default_factory=list)  # source keys that nothing here knows
    notes: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def count(self, action: Action) -> int:
        """Number of source tensors with this action."""
        return sum(record.action == action for record in self.records)

    @property
    def problem(self) -> str | None:
        """One line that says what keeps the result from being complete; None if nothing does."""
        kinds = (
            ("missing", self.missing),
            ("of a wrong shape", self.wrong_shape),
            ("of a wrong type", self.wrong_type),
            ("not explained", self.unexplained),
        )
        parts = [f"{len(keys)} {what} ({summarise(keys)})" for what, keys in kinds if keys]
        return "; ".join(parts) or None

    def lines(self) -> list[str]:
        """A short summary for people."""
        text = [
            f"{self.count('used')} tensors used under their name, {self.count('renamed')} renamed, "
            f"{self.count('unused')} not needed"
        ]
        whys: dict[str, list[str]] = {}
        for record in self.records:
            if record.action == "unused":
                whys.setdefault(record.why, []).append(record.key)
        text += [f"not needed ({why}): {len(keys)}, {summarise(keys, 3)}" for why, keys in whys.items()]
        text += self.notes
        text += [f"wrote {path}" for path in self.written]
        return text if self.problem is None else [*text, self.problem]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: every key and what became of it."""
        values = asdict(self)
        keys = [{name: value for name, value in record.items() if value != ""} for record in values.pop("records")]
        return {"keys": keys, **values}


def write_report(target: Path, report: ConversionReport) -> None:
    """Write ``conversion.json``, and a short card where there is none."""
    if not (target / CARD_FILE).exists():
        names = sorted({record.file for record in report.records})
        write_text(
            target / CARD_FILE,
            "# Converted model\n\nMade by `uniaudio2 convert` from "
            + ", ".join(f"`{name}`" for name in names)
            + f". Licence and limits are those of the originals. `{REPORT_FILE}` says what became of every tensor.\n",
        )
    write_text(target / REPORT_FILE, json.dumps(report.to_dict(), indent=1) + "\n")
