"""The command ``uniaudio2``: joins the commands of the other files, and is where every error ends.

Nothing heavy is imported before the arguments are known to make sense, so ``--help`` and mistakes answer at once.
Results go to standard output, everything else to standard error.
"""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import click

from uniaudio2 import __version__
from uniaudio2.batch import InputError
from uniaudio2.cli.codec import decode, encode
from uniaudio2.cli.compare import compare
from uniaudio2.cli.convert import convert
from uniaudio2.cli.data import data, prepare
from uniaudio2.cli.evaluate import evaluate, results
from uniaudio2.cli.listen import caption, transcribe
from uniaudio2.cli.live import talk
from uniaudio2.cli.output import BatchError, say
from uniaudio2.cli.page import demo, page
from uniaudio2.cli.run import run
from uniaudio2.cli.serve import serve
from uniaudio2.cli.speak import generate, speak, voices
from uniaudio2.cli.tools import bench, doctor
from uniaudio2.cli.train import assemble, train
from uniaudio2.errors import BUG_EXIT_CODE, describe, is_disk_full, is_expected

GROUPS = {
    "Use": (transcribe, speak, talk, voices, generate, caption, encode, decode, run, serve),
    "Train": (data, prepare, train, assemble, convert),
    "Measure": (evaluate, compare, results, bench, page, demo, doctor),
}
RENAMED = {"hearings": "shifts"}  # options that are read on under their old names


class _Main(click.Group):
    """A group whose help has its commands in groups, in the order of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `GROUPS`."""
        return [command.name or "" for commands in GROUPS.values() for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section for each group."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(command.name or "", command.get_short_help_str(80)) for command in commands])


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        print(f"uniaudio2 {__version__}")
        ctx.exit()


@click.group(
    cls=_Main,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda word: RENAMED.get(word, word),
        "max_content_width": 110,
    },
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print the version."
)
def app() -> None:
    """Speech and sound in, text and codes out, and back: one model, on your machine."""


for _commands in GROUPS.values():
    for _command in _commands:
        app.add_command(_command)


class _Closed(io.TextIOBase):
    """Stands for a standard stream that is closed: whoever uses it says so."""

    def __init__(self, name: str, remedy: str) -> None:
        self._message = f"{name} is closed: {remedy}"

    @property
    def buffer(self) -> Any:
        """The bytes of the stream, which are not there."""
        raise InputError(self._message)

    def write(self, text: str) -> int:
        """Refuse it."""
        raise InputError(self._message)

    def read(self, size: int | None = -1) -> str:
        """Refuse it."""
        raise InputError(self._message)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Standard streams that can take any name, and say so where they are closed."""
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or _Closed("standard input", "pipe something in, or name a file")
    sys.stdout = sys.stdout or _Closed("standard output", "redirect it to a file, or leave it open")
    try:
        with open(os.devnull, "w") as nowhere:
            sys.stderr = sys.stderr or nowhere
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):  # names and terminals need not be UTF-8
                    stream.reconfigure(errors="backslashreplace")
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; the one place where expected errors become a line."""
    with _streams():
        return _execute(arguments)


def _execute(arguments: Sequence[str]) -> int:
    try:
        with app.make_context("uniaudio2", list(arguments)) as context:
            app.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        sys.stdout.flush()
        return _interrupted() if end.exit_code == 130 else end.exit_code
    except BatchError as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except BrokenPipeError:
        _silence_stdout()
        return 141
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except click.ClickException as error:  # a mistake in the arguments themselves
        context = getattr(error, "ctx", None)
        say(f"error: {' '.join(error.format_message().split())}")
        say(f"see: {context.command_path if context else 'uniaudio2'} --help")
        return 2
    except Exception as error:
        if os.environ.get("UNIAUDIO2_TRACEBACK"):
            raise
        if not is_expected(error):
            traceback.print_exception(error)
            say(f"error: {describe(error)}")
            return BUG_EXIT_CODE
        if is_disk_full(error):
            _silence_stdout()
        say(f"error: {describe(error)}")
        return 1


def _interrupted() -> int:
    say("interrupted: what was finished is kept")
    return 130


def _silence_stdout() -> None:
    """Keep the interpreter from failing again when it flushes standard output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The command ``uniaudio2``."""
    sys.exit(execute(sys.argv[1:]))
