"""Which errors are the user's or the machine's business, and what a user reads about them: one line with the remedy."""

from __future__ import annotations

import errno

BUG_EXIT_CODE = 70  # what sysexits.h calls an internal software error
_REPORT = "this is a bug of uniaudio2, not of your input: please report it with the command and the lines above"


class UserError(ValueError):
    """Something that the user can mend: bad input, a missing file, values that do not fit together.

    The message is one line that says what was given, what is allowed and, where one exists, the remedy. Any other
    ``ValueError`` is a bug of ours and shows as one.
    """


class CheckpointError(UserError):
    """A model folder, its weights or a training checkpoint cannot be used: says which, why, and what to do."""


class MissingPackageError(UserError, ImportError):
    """Something needs a package that is not installed: says which, and the command that installs it."""


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
    """What a user should read about an error, in one line; about a bug of ours, that it is one."""
    if is_disk_full(error):
        return f"no space left ({one_line(error)}): free some space or write elsewhere; finished files are kept"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "not enough memory: use shorter input, a smaller --batch-size, or --device cpu"
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name!r} is missing: pip install {error.name} (see uniaudio2 doctor)"
    return one_line(error) if is_expected(error) else f"{type(error).__name__}: {one_line(error)}; {_REPORT}"


def is_expected(error: BaseException) -> bool:
    """Whether an error is the user's or the machine's business rather than a bug of ours."""
    if isinstance(error, UserError | OSError | MemoryError | ModuleNotFoundError):
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error)
