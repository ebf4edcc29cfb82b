"""The README tells the truth: its commands exist, its options exist, its Python runs, its file tree is the tree."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from uniaudio2.checkpoint import DEFAULT_FOLDER

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.strip()
    for language, block in BLOCKS
    if language in ("", "sh")
    for line in block.splitlines()
    if line.startswith("uniaudio2 ")
]
shipped = pytest.mark.skipif(not (DEFAULT_FOLDER / "config.yaml").is_file(), reason="no shipped model in this tree yet")


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, timeout=300)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.fixture(scope="module")
def command_tree() -> object:
    from uniaudio2.cli import app

    return app


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_their_options_exist(command: str, command_tree: object) -> None:
    node, words = command_tree, shlex.split(command)[1:]
    while hasattr(node, "commands"):
        assert words and words[0] in node.commands, f"'{command}': no subcommand {words[:1]}"
        node = node.commands[words.pop(0)]
    options = {name for parameter in node.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert used <= options, f"'{command}': unknown options {used - options}"


@shipped
@pytest.mark.slow
def test_first_commands_run_as_written(tmp_path: Path) -> None:
    block = next(block for language, block in BLOCKS if language == "sh")
    for line in block.splitlines():
        done = run("-m", *shlex.split(line), cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for name in ("hello.wav", "dog.wav", "hello.safetensors", "again.wav"):
        assert (tmp_path / name).stat().st_size > 100


@shipped
@pytest.mark.slow
def test_python_runs_as_written(tmp_path: Path) -> None:
    for language, block in BLOCKS:
        if language == "python":
            done = run("-c", block, cwd=tmp_path)
            assert done.returncode == 0, done.stderr


def test_file_tree_names_what_is_there() -> None:
    tree = next(block for _, block in BLOCKS if block.startswith("uniaudio2/\n"))
    top = [re.match(r"(\S+)", line)[1] for line in tree.splitlines() if not line.startswith(" ")]  # type: ignore[index]
    inside = [line.split()[0] for line in tree.splitlines() if line.startswith("  ")]
    for name in top:
        assert (REPOSITORY / name).exists(), name
    for name in inside:
        assert (REPOSITORY / "uniaudio2" / name).exists(), name
    files = {path.name for path in (REPOSITORY / "uniaudio2").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert files <= set(inside), f"the README's file tree lacks {sorted(files - set(inside))}"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (REPOSITORY / target).exists(), target


def test_no_package_index_or_machine_path_is_named() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url|find-links|/work/|/home/|/root/", text), name
