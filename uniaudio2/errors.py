"""Which errors are the user's or the machine's business, and what a user reads about them: one line with the remedy."""

from __future__ import annotations

import errno


def one_line(error: BaseException) -> str:
    """The message of an error as a single line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a disk, quota or file size limit that is reached."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


def describe(error: BaseException) -> str:
    """What a user should read about an expected error, in one line."""
    if is_disk_full(error):
        return f"no space left ({one_line(error)}): free some space or write elsewhere; finished files are kept"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "not enough memory: use shorter input, a smaller --batch-size, or --device cpu"
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name!r} is missing: pip install {error.name} (see uniaudio2 doctor)"
    return one_line(error)


def is_expected(error: BaseException) -> bool:
    """Whether an error is the user's or the machine's business rather than a bug of ours."""
    if isinstance(error, ValueError | OSError | MemoryError | ModuleNotFoundError):
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error)
