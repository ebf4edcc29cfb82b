"""Which items are on a page: those of the reference page, of manifests, and the package's own; and the short form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniaudio2.data.sources import data_root_if_any
from uniaudio2.errors import UserError
from uniaudio2.page import reference
from uniaudio2.page.build import build_page
from uniaudio2.page.corpora import corpus_items, read_examples
from uniaudio2.page.items import Item
from uniaudio2.page.own import own_items
from uniaudio2.page.sections import Section, demo_sections
from uniaudio2.page.site import Plan, Site

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2


def choose_items(
    sections: Sequence[Section],
    *,
    data_root: str | Path | None = None,
    manifests: Sequence[str | Path] = (),
    limit: int = 3,
) -> dict[str, list[Item]]:
    """Items by section.

    Args:
        sections: Of the page.
        data_root: Folder of the data sets, whose ``seed_demo`` has the reference page's tasks; None looks in the usual
            places and does without.
        manifests: Manifests whose held-out examples are shown.
        limit: Most items of a section beside those of the reference page.

    Raises:
        UserError: If a file is missing or a line of it is broken.
    """
    root = data_root_if_any(data_root)
    folder = None if root is None else root / reference.FOLDER
    there = folder is not None and (data_root is not None or (folder / reference.FILE).is_file())
    shown = reference.reference_items(folder) if folder is not None and there else {}
    examples, own = read_examples(manifests), own_items()
    chosen: dict[str, list[Item]] = {}
    for section in sections:
        found, mine = corpus_items(section, examples, limit), own.get(section.name, [])
        # One of the package's own goes beside those of manifests, which show what was learned.
        kept = found[: limit - 1] + mine[:1] if found and mine and limit > 1 else found + mine
        chosen[section.name] = _without_repeats([*shown.get(section.name, []), *kept[:limit]], section)
    return chosen


def _without_repeats(items: Sequence[Item], section: Section) -> list[Item]:
    """Refuse two items whose files would have the same name."""
    seen: dict[str, str] = {}
    for item in items:
        if item.file_name in seen:
            raise UserError(f"{section.name}: the ids {seen[item.file_name]!r} and {item.id!r} are too alike")
        seen[item.file_name] = item.id
    return list(items)


def run_demo(
    load: Callable[[], UniAudio2],
    folder: Path,
    *,
    sampling: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    complain: Callable[[str], None] = lambda line: None,
) -> Site:
    """The short form: the package's own recordings and texts, judged by the model's own ears, in one file.

    Args:
        load: Makes the model; timed.
        folder: Where the files go; made if missing, files of an earlier run are replaced.
        sampling: Sampling arguments of the model's methods (``seed``, ``temperature``, …).
        progress: Called with a line before each step.
        complain: Called with a line for each item that failed.

    Raises:
        OSError: If the folder cannot be written.
    """
    plan = Plan(demo_sections(), own_items(), folder, sampling=sampling or {}, single_file=True, own_ears=True)
    return build_page(load, plan, progress=progress, complain=complain)
