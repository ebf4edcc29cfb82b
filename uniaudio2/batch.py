"""Files in, files out: which inputs a command serves, where each result goes, what is already done.

Knows paths, not models: everything here runs before any weights are loaded.
"""

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"})
WRITABLE_AUDIO = (".wav", ".flac")
CODES_SUFFIXES = frozenset({".safetensors"})
STANDARD_STREAM = "-"


class InputError(ValueError):
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


def collect_inputs(inputs: Sequence[str], suffixes: Iterable[str] = AUDIO_SUFFIXES) -> list[Item]:
    """List the files to serve; a folder stands for every file below it that has one of ``suffixes``.

    A file that is missing stays in the list: the batch names it and goes on.

    Args:
        inputs: Paths of files or folders, or ``-`` for standard input.
        suffixes: Lower-case endings that count inside a folder; a file named directly may have any.

    Returns:
        Items in the given order, folders sorted by path.

    Raises:
        InputError: If nothing is given, a folder holds no such file, or ``-`` is given twice.
    """
    wanted = frozenset(suffixes)
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
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in wanted and file.is_file())
            if not found:
                raise InputError(f"{name}: the folder holds no file ending in {', '.join(sorted(wanted))}")
            items += [Item(str(file), file.relative_to(path).with_suffix("")) for file in found]
        else:
            items.append(Item(name, Path(path.name).with_suffix("") if path.suffix else Path(path.name)))
    return items


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
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{target}: unknown ending {path.suffix!r}; use {' or '.join(suffixes)}")
    check_output_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 so that ``path`` is either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
