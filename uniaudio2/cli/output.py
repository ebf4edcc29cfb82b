"""What all commands share beside their options: lines for people and programs, progress, and batches of items."""

import contextlib
import json
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.batch import STANDARD_STREAM, Item, check_readable, plan_outputs
from uniaudio2.cli.options import Options
from uniaudio2.errors import BUG_EXIT_CODE, describe, is_disk_full, is_expected


class BatchError(Exception):
    """Some or all items of a batch failed; each was named already.

    Args:
        exit_code: Of the command.
    """

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__()
        self.exit_code = exit_code


def say(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr, flush=True)


def emit(record: dict[str, Any]) -> None:
    """One JSON line on standard output."""
    print(json.dumps(record, ensure_ascii=False), flush=True)


def command_line() -> str:
    """The command as it was typed, for reports."""
    return " ".join(["uniaudio2", *(shlex.quote(word) for word in sys.argv[1:])])


@dataclass
class Batch:
    """Runs items one by one or in groups, names what fails, and remembers that something did."""

    as_json: bool = False
    total: int = 1  # items in all; of several, each may fail on its own, also by a bug of ours
    failed: int = 0
    served: int = 0
    skipped: int = 0
    bugs: int = 0

    def fail(self, source: str, error: BaseException) -> None:
        """Report one bad item."""
        message = describe(error)
        shown = message if message.startswith(source) else f"{source}: {message}"
        self.failed += 1
        if not is_expected(error):
            self.bugs += 1
            traceback.print_exception(error)
        say(f"error: {shown}")
        if self.as_json:
            emit({"path": source, "error": shown})

    @contextlib.contextmanager
    def guard(self, source: str) -> Iterator[None]:
        """Turn an error of one item into a report; a full disk, or a reader that has left, ends the batch."""
        try:
            yield
        except Exception as error:
            if isinstance(error, BrokenPipeError) or is_disk_full(error):
                raise
            if not is_expected(error) and self.total == 1:
                raise
            self.fail(source, error)

    def screen(self, items: Sequence[Item]) -> list[Item]:
        """Drop the items that cannot be read at all, naming each."""
        good = []
        for item in items:
            with self.guard(item.source):
                check_readable(item.source)
                good.append(item)
        return good

    def finish(self) -> None:
        """Raise ``BatchError`` if anything failed."""
        if self.skipped:
            say(f"{self.skipped} skipped: their output exists (--overwrite makes it anew)")
        if self.failed:
            total = self.failed + self.served + self.skipped
            if total > 1:
                say(f"{self.failed} of {total} inputs failed")
            raise BatchError(BUG_EXIT_CODE if self.bugs else 1)


def items_to_do(
    items: Sequence[Item], out: Path | None, suffix: str, options: Options, batch: Batch
) -> list[tuple[Item, Path | None]]:
    """Items still to do, with their output path when there is an output folder."""
    targets: list[Path | None] = [None] * len(items)
    if out is not None:
        targets = list(plan_outputs(items, out, suffix))
    batch.total = len(items)
    todo = []
    for item, target in zip(items, targets, strict=True):
        if target is not None and target.exists() and not options.overwrite:
            batch.skipped += 1
        else:
            todo.append((item, target))
    good = {id(item) for item in batch.screen([item for item, _ in todo])}
    return [(item, target) for item, target in todo if id(item) in good]


def report_made(record: dict[str, Any], target: str, options: Options, began: float) -> None:
    """One line about audio or codes that were written, whose work began at that time of ``time.perf_counter``."""
    elapsed, duration_s = time.perf_counter() - began, record["duration_s"]
    if not options.as_json:
        say(f"{target}: {duration_s:.2f} s of audio in {elapsed:.2f} s")
        return
    record = {**record, "real_time_factor": round(elapsed / max(duration_s, 1e-9), 4)}
    stream = sys.stderr if target == STANDARD_STREAM else sys.stdout  # not between the bytes of a wav
    print(json.dumps(record, ensure_ascii=False), file=stream, flush=True)


@contextlib.contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[float, float], None]]:
    """A bar with the time left on standard error, where that is a terminal: call it with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Lines on standard output go above the bar where both are one terminal, and are left alone elsewhere.
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=round(done), total=round(total))
