"""The README's file tree is the tree, and nothing names a machine. Its code and links: `test_docs.py`."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
PACKAGE = REPOSITORY / "uniaudio2"


def test_file_tree_names_what_is_there() -> None:
    tree = next(block for _, block in BLOCKS if block.startswith("uniaudio2/\n"))
    top = [re.match(r"(\S+)", line)[1] for line in tree.splitlines() if not line.startswith(" ")]  # type: ignore[index]
    inside = [line.split()[0] for line in tree.splitlines() if line.startswith("  ")]
    assert len(inside) == len(set(inside)) and all(len(line.split()) > 2 for line in tree.splitlines()[1:])
    for name in top:
        assert (REPOSITORY / name).exists(), name
    rooms = {f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert set(inside) == rooms | files, "the README's file tree has one line for each file and room of the package"


def test_no_package_index_or_machine_path_is_named() -> None:
    names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "constraints.txt", ".ci/run"]
    files = [REPOSITORY / name for name in names]
    for folder in ("docs", "recipes", ".github"):
        files += [path for path in (REPOSITORY / folder).rglob("*") if path.suffix in {".md", ".sh", ".yml", ".json"}]
    for path in files:
        text = path.read_text(encoding="utf-8")
        found = re.search(r"index-url|find-links|download\.pytorch|/work/|/home/|/root/|/var/", text)
        assert not found, (path, found)
