"""Options: numbers out of range, what commands offer, old names, models by name, what a model was trained for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from uniaudio2 import UniAudio2
from uniaudio2.cli import app, execute
from uniaudio2.cli.options import Number

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that must not load a model."""
    monkeypatch.setattr(UniAudio2, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))

    def call(*words: object) -> tuple[int, str, str]:
        code = execute(list(map(str, words)))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def numbers() -> list[tuple[list[str], click.Option, Number]]:
    """Every option of every command that takes a number."""
    found = []

    def walk(command: click.Command, path: list[str]) -> None:
        for parameter in command.params:
            if isinstance(parameter, click.Option) and isinstance(parameter.type, Number):
                found.append((path, parameter, parameter.type))
        for name, child in getattr(command, "commands", {}).items():
            walk(child, [*path, name])

    walk(app, [])
    return found


@pytest.mark.parametrize(("path", "option", "kind"), numbers(), ids=lambda value: getattr(value, "name", None))
def test_every_number_is_checked(run: Run, path: list[str], option: click.Option, kind: Number) -> None:
    words = ["nan", "inf", "-inf", "1e400", "many", ""] + (["0.5"] if kind.whole else [])
    words += ["1" + "0" * 400] if kind.most < math.inf else []
    words += [str(kind.least - 1)] if kind.least > -1e300 else []
    words += [str(kind.most + 1)] if kind.most < (math.inf if kind.whole else 1e17) else []
    for word in words:
        code, out, err = run(*path, f"{option.opts[-1]}={word}")
        assert (code, out) == (2, ""), (path, option.name, word)
        assert option.opts[-1] in err.splitlines()[0] and len(err.splitlines()) == 2


def test_no_command_takes_a_number_of_another_kind() -> None:
    def walk(command: click.Command) -> None:
        for parameter in command.params:
            assert not isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType), parameter.name
        for child in getattr(command, "commands", {}).values():
            walk(child)

    walk(app)


def offered(name: str) -> set[str]:
    return {word for parameter in app.commands[name].params for word in parameter.opts}


def test_commands_offer_what_changes_something() -> None:
    assert not offered("encode") & {"--seed", "--temperature", "--top-k", "--top-p", "--guidance", "--steps"}
    assert not offered("decode") & {"--top-k", "--top-p"} and {"--seed", "--temperature"} <= offered("decode")
    for name in ("transcribe", "caption", "speak", "run", "demo"):
        assert {"--dtype", "--compile", "--model", "--json"} <= offered(name)


def test_flags_look_like_flags(run: Run) -> None:
    _, out, _ = run("transcribe", "--help")
    assert "  --json   " in out and "--no-json" not in out and "--compile / --no-compile" in out
    assert "[bold]" not in out and "<bool>" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "speech_denoise", "source={wav}", "-o", "x.wav"],
            "was not trained for task 'speech_denoise'",
        ),
        (["run", "speech_denoise", "source={wav}", "-o", "x.wav", "--model", "nano"], "--untrained"),
        (["run", "speech_denoise", "noisy={wav}"], "was not trained for task 'speech_denoise', only for asr, "),
        (["transcribe", "{wav}", "--model", "nana"], "--model nana: no such folder"),
        (["transcribe", "{wav}", "--dtype", "int3"], "'int3' is not one of 'float32', 'bfloat16', 'int8', 'int4'"),
        (["transcribe", "{wav}", "--hearings", "17"], "'--shifts': it must be at most 16, got 17"),
        (["generate", "sound", "rain", "-o", "x.wav", "--duration", "0.1"], "it must be at least 0.2"),
        (["run", "tts", "transcription=hi", "-o", "x.wav", "--max-seconds", "inf"], "it must be a finite number"),
    ],
)
def test_mistakes_are_named_before_weights_are_read(
    run: Run, wav: Callable[..., Path], words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(wav("a.wav", 0.3))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(word.replace("{wav}", source) for word in words))
    assert code in (1, 2) and out == "" and message in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav"}
