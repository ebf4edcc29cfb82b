"""Files in, files out: which inputs a command serves, where each result goes, what is already done.

Knows paths, not models: everything here runs before any weights are loaded.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniaudio2.errors import UserError
from uniaudio2.formats import AUDIO_SUFFIXES, MEDIA_SUFFIXES, served_suffixes

PUBLISHED_CODES = "_reason.pt"  # names the published pair; NAME_semantic.pt lies beside it
CODES_SUFFIXES = frozenset({".safetensors", PUBLISHED_CODES})
STANDARD_STREAM = "-"


class InputError(UserError):
    """One input or output path that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class Item:
    """One input of a batch."""

    source: str  # path as it is shown to the user, or "-"
    stem: Path  # result path inside an output folder, without suffix

    @property
    def is_stream(self) -> bool:
        """Whether the input is standard input."""
        return self.source == STANDARD_STREAM


def collect_inputs(
    inputs: Sequence[str],
    suffixes: Iterable[str] = AUDIO_SUFFIXES,
    *,
    recursive: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> list[Item]:
    """List the files to serve; a folder stands for the files in it that have one of ``suffixes``.

    A file that is missing stays in the list: the batch names it and goes on.

    Args:
        inputs: Paths of files or folders, or ``-`` for standard input.
        suffixes: Lower-case endings that count inside a folder; those of audio stand for all that can be read here. A
            file named directly may have any other.
        recursive: Whether the folders inside a folder are searched too; see `find_files`.
        log: Told how many files each folder holds.

    Returns:
        Items in the given order, folders sorted by path.

    Raises:
        InputError: If nothing is given, a folder holds no such file, or ``-`` is given twice.
    """
    audio = frozenset(suffixes) >= AUDIO_SUFFIXES
    wanted = frozenset(suffixes) | (served_suffixes() if audio else frozenset())
    if not inputs:
        raise InputError("no input given: name files, a folder, or - for standard input")
    items: list[Item] = []
    for name in inputs:
        path = Path(name)
        if name == STANDARD_STREAM:
            if any(item.is_stream for item in items):
                raise InputError("- (standard input) can be read only once")
            items.append(Item(name, Path("stdin")))
        elif path.is_dir():
            found = find_files(path, wanted, recursive=recursive)
            if audio:
                _name_unread(path, wanted, recursive, log)
            if not found:
                endings = ", ".join(sorted(wanted))
                deeper = "" if recursive else "; --recursive searches the folders inside it too"
                raise InputError(f"{name}: the folder holds no file ending in {endings}{deeper}")
            log(f"{name}: {len(found)} file{'s' * (len(found) > 1)}")
            items += [Item(str(file), _stem(file.relative_to(path), wanted)) for file in found]
        else:
            items.append(Item(name, _stem(Path(path.name), wanted)))
    return items


def _name_unread(folder: Path, wanted: frozenset[str], recursive: bool, log: Callable[[str], None]) -> None:
    """Say which audio of a folder is passed over because nothing here decodes it."""
    passed = find_files(folder, MEDIA_SUFFIXES - wanted, recursive=recursive)
    if passed:
        kinds = ", ".join(sorted({path.suffix.lower() for path in passed}))
        log(
            f"{folder}: {len(passed)} more in {kinds} passed over: pip install 'uniaudio2[media]' (PyAV) or install "
            "ffmpeg to read them"
        )


def find_files(folder: Path, suffixes: Iterable[str], *, recursive: bool = False) -> list[Path]:
    """The files of a folder with one of these endings, sorted.

    Hidden files and folders are passed over, and so are links to folders, so that the search comes to an end.

    Args:
        folder: Where to search.
        suffixes: Lower-case endings.
        recursive: Whether to search the folders inside it too.

    Raises:
        InputError: If a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        """Name the folder that cannot be listed."""
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror})")

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        paths = [Path(place, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if _ending(path, suffixes) and path.is_file()]
    return sorted(found)


def _ending(path: Path, suffixes: Iterable[str]) -> str:
    """Which of these endings a name has (in any case); empty if none."""
    return next((suffix for suffix in suffixes if path.name.lower().endswith(suffix) and path.name != suffix), "")


def _stem(path: Path, suffixes: Iterable[str]) -> Path:
    """A path without its ending: one of ``suffixes``, else whatever follows the last dot."""
    ending = _ending(path, suffixes) or path.suffix
    return path.with_name(path.name[: len(path.name) - len(ending)])


def check_readable(source: str) -> None:
    """Say early, without decoding, why a file cannot be read.

    Raises:
        InputError: If ``source`` is missing, a folder, empty or not permitted.
    """
    if source == STANDARD_STREAM:
        return
    path = Path(source)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{source}: is a folder, a file is needed here")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise InputError(f"{source}: the file is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise InputError(f"{source}: no permission to read it")


def plan_outputs(items: Sequence[Item], folder: Path, suffix: str) -> list[Path]:
    """Where each item's result goes in ``folder``; the tree of an input folder is mirrored.

    Raises:
        InputError: If two inputs would write the same file, or the folder cannot be made.
    """
    check_output_folder(folder)
    planned: dict[Path, str] = {}
    for item in items:
        target = folder / item.stem.with_name(item.stem.name + suffix)
        if target in planned:
            raise InputError(
                f"{planned[target]} and {item.source} would both write {target}: "
                "run them apart, or give the folder that holds both"
            )
        planned[target] = item.source
    return list(planned)


def check_output_folder(folder: Path) -> None:
    """Check that ``folder`` is one or can be made; nothing is made yet.

    Raises:
        InputError: If it is a file, or the nearest existing parent is a file or not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, an output folder is needed here")
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{folder}: cannot be made, {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: no permission to write in {parent}")


def check_output_file(target: str, suffixes: Sequence[str] = ()) -> None:
    """Check that ``target`` can be written (missing parent folders are made when it is).

    Args:
        target: Path, or ``-`` for standard output.
        suffixes: Endings that it may have; none means any.

    Raises:
        InputError: If it is a folder or a device, has another ending, or its folder cannot be made or written.
    """
    if target == STANDARD_STREAM:
        if sys.stdout.isatty():
            raise InputError("-: standard output is a terminal; redirect it, or name a file with -o")
        return
    path = Path(target)
    if path.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it, such as {path / 'out.wav'}")
    if path.exists() and not path.is_file():
        raise InputError(f"{target}: is not a regular file; use -o - for standard output")
    if suffixes and not _ending(path, suffixes):
        raise InputError(f"{target}: unknown ending {path.suffix!r}; use {' or '.join(suffixes)}")
    check_output_folder(path.parent)
