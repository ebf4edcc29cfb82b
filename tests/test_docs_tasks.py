"""``docs/tasks.md`` tells the truth: its table is the table, its commands exist, its Python runs as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from uniaudio2.checkpoint import DEFAULT_FOLDER
from uniaudio2.tasks import TASKS, Part

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) *\| (.*?) *\| (.*?) *\| (.+?) \|$", PAGE, flags=re.MULTILINE)


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
    commands = [line for language, block in BLOCKS if not language for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        program, run, name, *words = shlex.split(command)
        assert (program, run) == ("uniaudio2", "run")
        if name == "list":
            continue
        inputs = [word.partition("=")[0] for word in words if re.match(r"\w+=", word) and " " not in word]
        assert set(inputs) <= set(TASKS[name].values), command


@pytest.mark.skipif(not (DEFAULT_FOLDER / "config.yaml").is_file(), reason="no shipped model in this tree yet")
def test_the_python_runs_as_written(tmp_path: Path, wav: Callable[..., Path]) -> None:
    for number, name in enumerate(("one.wav", "two.wav", "new.wav")):
        wav(name, 0.6, hz=300 + 100 * number)
    code = "\n".join(block for language, block in BLOCKS if language == "python")
    assert "TASKS[" in code and "lm_losses" in code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = re.findall(r"'loss': ([0-9.]+)", done.stdout)
    assert len(losses) == 2 and float(losses[1]) < float(losses[0])


def test_adding_the_row_takes_ten_lines() -> None:
    block = next(block for language, block in BLOCKS if "TASKS[" in block)
    assert len(block.strip().splitlines()) <= 10
