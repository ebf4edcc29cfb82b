"""Writing files so that a name always stands for the old file or for the whole new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new file, open for writing and reading, that takes the place of ``path`` when the block ends without error.

    Until then it has a hidden name in the same folder; an error or an interrupt removes it.

    Args:
        path: Where the file is to be; missing parent folders are made.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".part-", dir=target.parent)  # shorter than the longest name
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())  # what open() would give; mkstemp lets only the owner read
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def _umask() -> int:
    """The process's umask (reading it means setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
