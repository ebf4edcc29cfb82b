"""What the layouts of data sets have in common."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from uniaudio2.data.example import Example, ManifestError, Recording
from uniaudio2.formats import AUDIO_SUFFIXES


def inside(root: Path, *names: str) -> Path:
    """The folder that holds the first of those names that is there, ``root`` or one below it.

    Raises:
        ManifestError: If there is none.
    """
    for name in names:
        for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
            if (folder / name).exists():
                return folder
    raise ManifestError(f"{root}: not the folder of this data set, {' or '.join(names)} is missing")


def recording(root: Path, file: Path, start: float = 0.0, duration: float | None = None) -> Recording:
    """A stretch of a file below ``root``; all of it without a duration."""
    try:
        seconds = soundfile.info(str(file)).duration if duration is None else duration
    except soundfile.LibsndfileError as error:
        raise ManifestError(f"{file}: cannot be read as audio ({error})") from error
    return Recording(str(file.relative_to(root)), seconds, start)


def example(root: Path, file: Path, **fields: Any) -> Example:
    """An example of one file."""
    one = recording(root, file)
    fields.setdefault("id", file.stem)
    return Example(path=one.path, duration=one.duration, root=root, **fields)


def find_audio(folder: Path, *stems: str) -> Path | None:
    """The audio file of one of those names without a suffix."""
    for stem in stems:
        for suffix in sorted(AUDIO_SUFFIXES):
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    return None


def rows(file: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """Lines of a table with a head, as dictionaries."""
    if not file.is_file():
        raise ManifestError(f"{file}: no such file")
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL  # Common Voice quotes nothing
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines, delimiter=delimiter, quoting=quoting)


def column(row: dict[str, str], name: str, file: Path) -> str:
    """A value of a row; raises ManifestError if the table has no such column."""
    if row.get(name) is None:
        raise ManifestError(f"{file}: there is no column {name!r}")
    return row[name]
