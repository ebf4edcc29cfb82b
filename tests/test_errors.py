"""What counts as the user's mistake and what as a bug of ours."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

import uniaudio2
from uniaudio2.cli.app import execute
from uniaudio2.errors import BUG_EXIT_CODE, CheckpointError, UserError, describe, is_expected

PACKAGE = Path(uniaudio2.__file__).parent
NOT_OURS_TO_MEND = {"BatchError", "Cancelled"}  # each item was named already; somebody wanted it


def test_user_errors_are_value_errors() -> None:
    assert issubclass(UserError, ValueError)
    assert issubclass(CheckpointError, UserError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("give a file"), True),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.wav"), True),
        (MemoryError(), True),
        (ModuleNotFoundError("x", name="x"), True),
        (RuntimeError("CUDA out of memory"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("zip() argument 2 is shorter than argument 1"), False),
        (KeyError("name"), False),
    ],
)
def test_which_errors_are_expected(error: Exception, expected: bool) -> None:
    assert is_expected(error) is expected
    assert ("bug of uniaudio2" in describe(error)) is not expected


def test_an_internal_error_shows_as_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object, **__: object) -> None:
        list(zip([1], [1, 2], strict=True))

    monkeypatch.setattr("uniaudio2.doctor.diagnose", fails)
    assert execute(["doctor"]) == BUG_EXIT_CODE
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.strip().splitlines()[-1].startswith("error: ValueError: zip() argument 2")
    assert "please report" in shown


def test_a_user_error_shows_as_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object, **__: object) -> None:
        raise UserError("give a model folder")

    monkeypatch.setattr("uniaudio2.doctor.diagnose", fails)
    assert execute(["doctor"]) == 1
    assert capsys.readouterr().err == "error: give a model folder\n"


def test_error_classes_of_the_package_are_user_errors() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            bases = {ast.unparse(base) for base in node.bases} if isinstance(node, ast.ClassDef) else set()
            if bases & {"Exception", "ValueError", "RuntimeError"} and node.name not in NOT_OURS_TO_MEND:  # type: ignore[attr-defined]
                assert path.name == "errors.py", f"{path}: {node.name} must derive from UserError"  # type: ignore[attr-defined]


def test_bare_value_errors_are_checks_of_what_our_own_code_passes_on() -> None:
    inner = ("codec/", "lm/", "data/augment.py", "eval/text_metrics.py")
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if "raise ValueError(" in path.read_text(encoding="utf-8"):
            assert name.startswith(inner), f"{name}: raise UserError, or a class below it, for what a user can mend"
