"""The shape of the package: short files and functions, no import circles, real types on what is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import uniaudio2

PACKAGE = Path(uniaudio2.__file__).parent
MOST_FILE_LINES, MOST_FUNCTION_LINES = 450, 60

# Exceptions with their reasons. One that is not needed any more fails, so that the lists only shrink.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
UNTYPED: dict[str, str] = {
    "config/fields.py:to_plain": "whatever YAML can hold",
    "systems/hub.py:transformers_class": "a class of a package that may not be installed",
    "systems/hub.py:load_pretrained": "an instance of such a class",
    "train/stage.py:Stage.batch": "a batch is whatever the stage's own loss takes",
}
CIRCLES: dict[str, str] = {}

FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "weights" not in path.parts]
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """All functions with their dotted names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from functions(node, prefix)


def public(tree: ast.AST) -> Iterator[tuple[str, Function]]:
    """Functions and methods that others may call."""
    for name, node in functions(tree):
        parts = name.split(".")
        nested = any(
            isinstance(outer, Function) and node in ast.walk(outer) for _, outer in functions(tree) if outer is not node
        )
        if not nested and not any(part.startswith("_") for part in parts):
            yield name, node


def agree(found: set[str], allowed: dict[str, str], problem: str) -> None:
    """Fail on what is found and not allowed, and on what is allowed and not found."""
    assert not found - set(allowed), f"{problem}: {sorted(found - set(allowed))}"
    assert not set(allowed) - found, f"no longer needed, remove: {sorted(set(allowed) - found)}"


def test_files_are_short() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_FILE_LINES
    }
    agree(found, LONG_FILES, f"over {MOST_FILE_LINES} lines, split by reason to change")


def test_functions_are_short() -> None:
    found = {
        f"{file}:{name}"
        for file, tree in TREES.items()
        for name, node in functions(tree)
        if (node.end_lineno or node.lineno) - node.lineno >= MOST_FUNCTION_LINES
    }
    agree(found, LONG_FUNCTIONS, f"over {MOST_FUNCTION_LINES} lines, split")


def test_public_functions_say_what_they_return() -> None:
    found = {
        f"{file}:{name}"
        for file, tree in TREES.items()
        for name, node in public(tree)
        if node.returns is None or ast.unparse(node.returns) == "Any"
    }
    agree(found, UNTYPED, "no return type, or Any")


def imports_of(tree: ast.AST, module: str) -> set[str]:
    """Modules of the package that a module imports anywhere, also inside functions, but not for the type checker."""
    known = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in TREES}
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in (name.removeprefix("uniaudio2.") for name in names if name.startswith("uniaudio2.")):
            found.add(name if name in known else name.rpartition(".")[0])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return (found & known) - {module}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches all others (Tarjan's strongly connected components of two or more)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in graph:
        if name not in number:
            visit(name)
    return groups


def test_no_modules_import_in_a_circle() -> None:
    graph = {}
    for file, tree in TREES.items():
        name = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        graph[name] = imports_of(tree, name)
    agree({", ".join(group) for group in circles(graph)}, CIRCLES, "modules import each other")


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, [["b", "c"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[list[str]]) -> None:
    assert circles(graph) == expected
