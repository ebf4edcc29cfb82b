"""The recipes as scripts: they parse, and what fails in them ends them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

STAND_IN = """#!/usr/bin/env python3
import pathlib, sys, time
with open("calls", "a") as file:
    file.write(" ".join(sys.argv[1:3]) + "\\n")
words = dict(word.split("=", 1) for word in sys.argv if "=" in word)
if sys.argv[1] == "data":
    pathlib.Path(sys.argv[3]).mkdir(parents=True)
    pathlib.Path(sys.argv[3], "manifest.jsonl").touch()
elif sys.argv[1] == "train":
    pathlib.Path(words["train.out_dir"], "export").mkdir(parents=True)
    if sys.argv[2] == "speech_expert":
        sys.exit(1)
"""


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*.sh")), ids=lambda path: path.name)
def test_they_parse(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_a_stage_that_fails_beside_others_ends_the_recipe(tmp_path: Path) -> None:
    """The speech expert runs beside the autoencoder: when it fails, nothing after it starts."""
    program = tmp_path / "bin" / "uniaudio2"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "UNIAUDIO2_DATA": "data"}
    done = subprocess.run(["bash", RECIPES / "nano.sh", "work"], cwd=tmp_path, env=environment, capture_output=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert done.returncode != 0
    assert {"train speech_expert", "train autoencoder"} <= set(calls) and "train sound_expert" not in calls
