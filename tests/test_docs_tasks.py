"""The pages of tasks say what the table says, and how to add a row."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from uniaudio2.tasks import TASKS, Part

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "use" / "tasks.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) *\| (.*?) *\| (.*?) *\| (.+?) \|$", PAGE, flags=re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def written(parts: tuple[Part, ...]) -> str:
    """Parts in the notation of the page."""
    letters = {"reasoning": "R", "reconstruction": "S", "voice": "P"}
    words = []
    for part in parts:
        kinds = ("reasoning", "reconstruction") if part.kind == "audio" else (part.kind,)  # all streams of this codec
        word = part.value if part.kind == "text" else " ".join(f"{letters[kind]}({part.value})" for kind in kinds)
        word = f"`<{part.tag}>`{word}" if part.tag else word
        words.append(f"[{word}]" if part.optional else word)
    return " ".join(words)


def test_the_page_has_every_row_as_it_is() -> None:
    assert [row[0] for row in ROWS] == list(TASKS)
    for name, given, predicted, guidance, about in ROWS:
        task = TASKS[name]
        assert (given, predicted) == (written(task.inputs), written(task.outputs)), name
        assert guidance == ("yes" if task.guidance else ""), name
        assert about


def test_the_commands_name_rows_and_values_that_exist() -> None:
    commands = [line for language, block in blocks(PAGE) if language == "sh" for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        program, run, name, *words = shlex.split(command)
        assert (program, run) == ("uniaudio2", "run")
        if name == "list":
            continue
        inputs = [word.partition("=")[0] for word in words if re.match(r"\w+=", word) and " " not in word]
        assert set(inputs) <= set(TASKS[name].values), command


def test_adding_the_row_takes_twelve_lines() -> None:
    page = (DOCS / "extend" / "task.md").read_text(encoding="utf-8")
    block = next(block for _, block in blocks(page) if "TASKS[" in block)
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
