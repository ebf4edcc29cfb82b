"""Runs the code blocks of a page in order, as a reader would, and compares what they print with what the page says.

    python -m tests.pages PAGE FOLDER

``sh`` blocks run line by line, ``python`` blocks share one namespace. A block with the title "output" is what the block
before it prints; ``…`` stands for anything. A block after ``<!-- not run: REASON -->`` is left out, and a block of
another language is no code to run. ``<!-- files: NAME … -->`` asks for files that the page takes for granted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
ASSETS = REPOSITORY / "uniaudio2" / "demo_assets"
RUN = ("sh", "python")
SHOWN = ("text", "json", "yaml", "bibtex", "")

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<code>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        line: Where it begins in the page.
        language: ``sh``, ``python``, ``text`` …; may be empty.
        code: Its text.
        output: Whether it is what the block before it prints.
        reason: Why it is not run; None if it is.
    """

    line: int
    language: str
    code: str
    output: bool
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: found.start("code")].count("\n"), found["language"], found["code"],
              'title="output"' in found["info"], found["reason"])
        for found in _BLOCK.finditer(text)
    ]  # fmt: skip


def files_of(page: Path) -> list[str]:
    """Files that a page takes for granted."""
    found = re.search(r"<!-- files: (.*?) -->", page.read_text(encoding="utf-8"))
    return found[1].split() if found else []


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a ``sh`` block: its lines, joined where they end in a backslash, without comments."""
    for line in block.code.replace("\\\n", " ").splitlines():
        command = re.sub(r"(^|\s)# .*$", "", line).strip()
        if command:
            yield command


def main(page: Path, folder: Path) -> None:
    """Run a page in a folder; raises AssertionError where it does not do what it says."""
    os.chdir(folder)
    for name in files_of(page):
        _MAKERS[name](Path(name))
    page_module = sys.modules["page"] = types.ModuleType("page")  # a module, so that dataclasses find their types
    printed = ""
    for block in blocks_of(page):
        place = f"{page.name}:{block.line}"
        if block.output:
            wanted = ".*".join(map(re.escape, block.code.strip().split("…")))
            assert re.fullmatch(wanted, printed.strip(), flags=re.DOTALL), f"{place}: printed\n{printed}"
        elif block.reason is None and block.language == "python":
            printed = _python(block.code, place, page_module.__dict__)
        elif block.reason is None and block.language == "sh":
            printed = "".join(_command(command, place) for command in commands_of(block))


def _python(code: str, place: str, namespace: dict[str, Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, place, "exec", dont_inherit=True), namespace)
    return out.getvalue()


def _command(command: str, place: str) -> str:
    """Run one command and return what it printed: ours in this process, which has torch loaded already."""
    if command.startswith("uniaudio2 ") and not re.search(r"[|<>;&$*`]", command):
        from uniaudio2.cli import execute

        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(out):
            code = execute(shlex.split(command)[1:])
        out.flush()
        assert code == 0, f"{place}: {command}: exit code {code}"
        return out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=_with_our_command())
    assert done.returncode == 0, f"{place}: {command}\n{done.stderr}"
    return done.stdout


def _with_our_command() -> dict[str, str]:
    """An environment in which ``uniaudio2`` and ``python`` are those of this interpreter."""
    folder = Path(".bin").absolute()
    if not folder.exists():
        folder.mkdir()
        for name, words in (("uniaudio2", [sys.executable, "-m", "uniaudio2"]), ("python", [sys.executable])):
            file = folder / name
            file.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


# ------------------------------------------------------------------------------------------------- files of pages


def _recording(asset: str, start_s: float = 0.0, end_s: float | None = None) -> Any:
    def make(path: Path) -> None:
        from uniaudio2.audio import read_audio, write_audio

        audio = read_audio(ASSETS / asset)
        write_audio(path, audio[:, round(24000 * start_s) : None if end_s is None else round(24000 * end_s)])

    return make


def _folder(**assets: str) -> Any:
    def make(path: Path) -> None:
        path.mkdir()
        for name, asset in assets.items():
            _recording(asset)(path / f"{name}.wav")

    return make


def _twenty_clips(path: Path) -> None:
    """Twenty short recordings, each with its text beside it."""
    words = {"digit_nine": "nine", "digit_seven": "seven", "digit_zero": "zero", "keyword_computer": "computer"}
    path.mkdir()
    for number in range(20):
        name, text = list(words.items())[number % 4]
        _recording(f"{name}.opus", 0.01 * (number // 4))(path / f"{number:02d}.wav")
        (path / f"{number:02d}.txt").write_text(text + "\n", encoding="utf-8")


_MAKERS = {
    "speech.wav": _recording("keyword_computer.opus"),
    "rooster.wav": _recording("sound_rooster.opus"),
    "voice.wav": _recording("voice_sonnet.opus", 0, 3),
    "one.wav": _recording("digit_nine.opus"),
    "two.wav": _recording("digit_seven.opus"),
    "new.wav": _recording("digit_zero.opus"),
    "recordings": _folder(nine="digit_nine.opus", zero="digit_zero.opus"),
    "my_clips": _twenty_clips,
    "recipes": lambda path: shutil.copytree(REPOSITORY / "recipes", path),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]))
