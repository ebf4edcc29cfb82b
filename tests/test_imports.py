"""Who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import uniaudio2

PACKAGE = Path(uniaudio2.__file__).parent

# Low to high: a module may import its own level and those below it; imports inside functions count too.
LEVELS = [
    {"config", "errors", "formats", "files", "devices", "rotary", "tensors", "audio", "codes", "text", "text_english"}
    | {"checks", "codes_file", "vocabulary", "tokenizer", "tasks"},
    {"storage"},
    {"codec", "lm", "sequence_types", "sequence", "voice_activity", "soundcard"},
    {"engine", "hearing", "checkpoint", "published", "data"},
    {"api", "train", "batch", "speech_text"},
    {"eval", "server", "doctor", "bench", "page", "systems", "compare"},
    {"cli"},
    {"__main__", "__init__"},
]
CORE = {"torch", "numpy", "safetensors", "soundfile", "soxr", "yaml", "rich", "click", "tokenizers"}
CORE |= {"wetext", "matplotlib"}
EXTRAS_ALLOWED = {  # folder that is of use only with an extra -> packages of that extra
    "data/synth": {"scipy"},
    "server": {"fastapi", "starlette", "pydantic", "pydantic_core", "uvicorn", "h11", "prometheus_client"},
}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "weights" not in path.parts]


def unit_of(path: Path) -> str:
    """First name under the package: the folder or the file."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level_of(unit: str) -> int | None:
    return next((number for number, names in enumerate(LEVELS) if unit in names), None)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Full names that a file imports, without those for the type checker only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if is_type_checking(node) or (top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def own_units(path: Path, *, top_only: bool = False) -> set[str]:
    return {name.split(".")[1] for name in imports(path, top_only=top_only) if name.startswith("uniaudio2.")}


def test_every_module_has_a_level() -> None:
    unknown = {unit_of(path) for path in modules() if level_of(unit_of(path)) is None}
    assert not unknown, f"say in LEVELS where these belong: {sorted(unknown)}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    level = level_of(unit_of(path))
    assert level is not None
    for unit in own_units(path):
        below = level_of(unit)
        if below is not None:
            assert below <= level, f"{path.name} must not import {unit}"


def test_codec_and_lm_do_not_know_each_other() -> None:
    for path in modules():
        if unit_of(path) == "codec":
            assert "lm" not in own_units(path), path
        if unit_of(path) == "lm":
            assert not {"codec", "codes"} & own_units(path), path


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_extras_are_imported_inside_functions_only(path: Path) -> None:
    folder = path.relative_to(PACKAGE).parent.as_posix()
    allowed = CORE | {"uniaudio2"} | sys.stdlib_module_names | EXTRAS_ALLOWED.get(folder, set())
    for name in imports(path, top_only=True):
        assert name.split(".")[0] in allowed, f"{path.name} imports {name} at the top; import it inside the function"


def test_importing_the_package_is_light(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_python(
        "import uniaudio2, sys; heavy = {'torch', 'numpy', 'yaml', 'rich', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy; print(uniaudio2.__version__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == uniaudio2.__version__


def test_public_names_resolve() -> None:
    assert set(dir(uniaudio2)) == set(uniaudio2.__all__)
    for name in uniaudio2.__all__:
        assert getattr(uniaudio2, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Uniaudio'"):
        uniaudio2.Uniaudio  # noqa: B018


@pytest.mark.slow
def test_every_module_imports_without_extras(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    names = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "uniaudio2.") if "__main__" not in m.name]
    names = [name for name in names if not name.startswith(("uniaudio2.data.synth", "uniaudio2.server"))]
    blocked = [
        "transformers",
        "scipy",
        "huggingface_hub",
        "jiwer",
        "pystoi",
        "pesq",
        "tensorboard",
        "pocketsphinx",
        "sklearn",
    ]
    done = run_python(
        f"import sys, importlib\nfor name in {blocked!r}: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)"
    )
    assert done.returncode == 0, done.stderr
