"""A page as values: what it is built of, its sections as they came out, and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniaudio2.page.items import Item
from uniaudio2.page.record import Record
from uniaudio2.page.scores import pooled
from uniaudio2.page.sections import Section

PAGE = "index.html"


@dataclass(frozen=True)
class Plan:
    """What a page is built of.

    Attributes:
        sections: In the order of the page.
        items: By section.
        folder: Of the page.
        model: ``--model`` for commands; None is the default.
        sampling: Sampling options of the model's methods.
        codec_alone: Whether the model has no language model, and so knows no row.
        untrained: Whether rows are run that the model has not learned.
        single_file: Whether everything is inside the page.
        own_ears: Whether the model itself hears back what it made, for the short form.
        identity: Of the model's files, so that what another one made is not kept; None keeps nothing.
        fresh: Whether all items are made anew.
        command: What was typed.
        again: The command without choice of sections and folder.
    """

    sections: Sequence[Section]
    items: Mapping[str, Sequence[Item]]
    folder: Path
    model: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    codec_alone: bool = False
    untrained: bool = False
    single_file: bool = False
    own_ears: bool = False
    identity: str | None = None
    fresh: bool = False
    command: str = ""
    again: str = ""


@dataclass
class Shown:
    """A section as it came out."""

    section: Section
    learned: bool
    records: list[Record] = field(default_factory=list)
    scores: tuple[str, ...] = ()  # of the model's folder

    @property
    def done(self) -> list[Record]:
        """Records of items that did not fail."""
        return [record for record in self.records if not record.error]

    @property
    def systems(self) -> list[str]:
        """Other systems, by name."""
        pieces = (piece for record in self.done for piece in record.pieces)
        return list(dict.fromkeys(piece.name for piece in pieces if piece.role == "peer"))

    @property
    def outputs(self) -> list[str]:
        """What the model made, by name."""
        pieces = (piece for record in self.done for piece in record.pieces)
        return list(dict.fromkeys(piece.name for piece in pieces if piece.role == "ours"))

    def figures(self, role: str, name: str | None = None, *, shared: bool = False) -> dict[str, tuple[float, int]]:
        """Figures over all items, see `pooled`.

        Args:
            role: ``ours``, ``given`` or ``peer``.
            name: Of the output or of the other system; None for all.
            shared: Whether only items count that other systems did too.
        """
        records = [one for one in self.done if not shared or any(piece.role == "peer" for piece in one.pieces)]
        pieces = [piece for record in records for piece in record.pieces]
        own = [one for one in pieces if one.role == role and name in (None, one.name)]
        return pooled([piece.figures for piece in own])


@dataclass
class Site:
    """A page and what is on it."""

    plan: Plan
    model_name: str
    shown: list[Shown]
    judge: str
    load_s: float = 0.0
    total_s: float = 0.0

    @property
    def page(self) -> Path:
        """The page's file."""
        return self.plan.folder / PAGE

    @property
    def items(self) -> list[Record]:
        """All records in the order of the page."""
        return [record for shown in self.shown for record in shown.records]

    @property
    def failed(self) -> list[Record]:
        """Records of items that failed."""
        return [record for record in self.items if record.error]

    @property
    def judged(self) -> list[Record]:
        """Items that are right or wrong by their words."""
        return [item for item in self.items if item.right is not None and item.section != "codec"]

    @property
    def summary(self) -> str:
        """One line for the terminal."""
        right = sum(bool(item.right) for item in self.judged)
        work_s, audio_s = sum(item.time_s for item in self.items), sum(item.audio_s for item in self.items)
        return (
            f"{right} of {len(self.judged)} items as expected; model loaded in {self.load_s:.1f} s; "
            f"{work_s:.1f} s of work on {audio_s:.1f} s of audio; {self.total_s:.1f} s in all"
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain values for JSON, one per item."""
        return [item.to_dict(self.plan.folder) for item in self.items]
