"""Recipes end where a stage fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "recipes/nano.sh"
STAND_IN = """#!/usr/bin/env bash
# Notes what it is asked to do, does nothing, and fails at what $FAILS names.
[ "${0##*/}" = torchrun ] && shift 5
echo "$*" >> "$NOTES"
for word in "$@"; do
  case $word in
    train.out_dir=*) mkdir -p "${word#*=}/export"; case ${word#*=} in *"/$FAILS") sleep 0.3; exit 3 ;; esac ;;
  esac
done
[ "$1" = prepare ] && [ "$FAILS" = prepare ] && exit 4
exit 0
"""


@pytest.mark.parametrize(
    ("fails", "code", "last", "never"),
    [
        ("", 0, "assemble", "nothing"),
        ("speech_expert", 3, "train speech_expert", "train sound_expert"),
        ("sound_expert", 3, "train autoencoder", "train reasoning"),
        ("prepare", 4, "prepare", "train lm_1"),
        ("lm_3_1", 3, "train lm_3", "--language-model"),
        ("lm_rows", 3, "assemble", "lm_rows/export"),
    ],
)
def test_a_stage_that_fails_in_the_background_ends_the_recipe(
    tmp_path: Path, fails: str, code: int, last: str, never: str
) -> None:
    for name in ("uniaudio2", "torchrun"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    notes = tmp_path / "notes"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(notes), "FAILS": fails}
    environment["UNIAUDIO2_DATA"] = str(tmp_path)
    done = subprocess.run(
        ["bash", str(RECIPE), str(tmp_path / "work")], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    commands = notes.read_text().splitlines()
    assert any(command.startswith(last) for command in commands)
    assert not any(never in command for command in commands)
