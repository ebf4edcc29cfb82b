"""Transcripts in files and on terminals, and batches in which one recording fails inside the model."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.api.results import Segment, TextResult, Word
from uniaudio2.api.texts import as_text
from uniaudio2.cli import execute
from uniaudio2.errors import BUG_EXIT_CODE, UserError

Cli = Callable[..., tuple[int, str, str]]
RESULT = TextResult("one two", (Segment(0.0, 1.5, "one"), Segment(3661.25, 3662.0, "two")), 3662.0, "en", -0.5, 0.25)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], model: str) -> Cli:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = execute([*map(str, arguments), "--model", model, "--device", "cpu"])
        out, err = capfd.readouterr()
        return code, out, err

    return run


# -- forms


def test_subtitles_tables_and_text() -> None:
    assert as_text(RESULT, "txt") == "one two\n"
    assert as_text(RESULT, "txt", timestamps="segments") == "0.00\t1.50\tone\n3661.25\t3662.00\ttwo\n"
    assert as_text(RESULT, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:01:01,250 --> 01:01:02,000\ntwo\n"
    )
    assert as_text(RESULT, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n\n01:01:01.250 --> 01:01:02.000\ntwo\n"
    )
    assert as_text(RESULT, "tsv") == "start\tend\ttext\n0\t1500\tone\n3661250\t3662000\ttwo\n"
    empty = TextResult("", (), 1.0)
    assert [as_text(empty, form) for form in ("txt", "srt", "tsv")] == ["\n", "", "start\tend\ttext\n"]


@pytest.mark.parametrize("form", ["txt", "json", "srt", "vtt", "tsv"])
def test_a_transcript_is_written_as_its_name_says(
    cli: Cli, wav: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    source = wav("a.wav", 0.6)
    target = tmp_path / "deep" / f"talk.{form}"
    code, out, err = cli("transcribe", source, "-o", target)
    assert code == 0, err
    assert out.startswith(f"{source}\t")
    written = target.read_text(encoding="utf-8")
    if form == "json":
        assert json.loads(written)["path"] == str(source)
    else:
        text = out.split("\t", 1)[1].strip()
        assert {"txt": text, "srt": "", "vtt": "WEBVTT", "tsv": "start\tend\ttext"}[form] in written
    folder = tmp_path / "folder"
    assert cli("caption", source, "-o", folder, "--format", form)[0] == 0
    assert [path.name for path in folder.iterdir()] == [f"a.{form}"]
    code, out, _ = cli("caption", source, "--format", form)  # and without a file, where results go
    assert code == 0 and (json.loads(out) if form == "json" else out == (folder / f"a.{form}").read_text())


def test_one_file_for_several_recordings_is_refused(cli: Cli, wav: Callable[..., Path], tmp_path: Path) -> None:
    code, out, err = cli("transcribe", wav("a.wav", 0.3), wav("b.wav", 0.3), "-o", tmp_path / "x.srt")
    assert (code, out) == (1, "")
    assert "x.srt: is one file for 2 inputs; name a folder" in err
    assert not (tmp_path / "x.srt").exists()


# -- one bad recording among good ones


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, duration_s: float = 0.7) -> None:
    """Let the model fail at every recording of that length."""
    transcribe = UniAudio2.transcribe

    def fail(self: UniAudio2, audio: list, **options: object) -> object:
        if any(abs(one.duration_s - duration_s) < 1e-6 for one in audio):
            raise error
        return transcribe(self, audio, **options)

    monkeypatch.setattr(UniAudio2, "transcribe", fail)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(UserError("cannot be used"), 1), (RuntimeError("shapes differ"), BUG_EXIT_CODE), (MemoryError(), 1)],
)
def test_a_recording_that_fails_inside_the_model_is_the_only_one_lost(
    cli: Cli,
    wav: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    exit_code: int,
) -> None:
    files = [wav("a.wav", 0.5), wav("b.wav", 0.7), wav("c.wav", 0.6)]
    failing(monkeypatch, error)
    code, out, err = cli("transcribe", *files, "--out", tmp_path / "out", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == exit_code
    assert {record["path"] for record in records if "text" in record} == {str(files[0]), str(files[2])}
    assert [record["path"] for record in records if "error" in record] == [str(files[1])]
    assert sum(line.startswith(f"error: {files[1]}: ") for line in err.splitlines()) == 1
    assert "1 of 3 inputs failed" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "c.json"]


def test_a_text_that_fails_inside_the_model_is_the_only_one_lost(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak = UniAudio2.speak

    def fail(self: UniAudio2, text: str, **options: object) -> object:
        if text == "two":
            raise RuntimeError("shapes differ")
        return speak(self, text, **options)

    monkeypatch.setattr(UniAudio2, "speak", fail)
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    code, _, err = cli("speak", "--lines", tmp_path / "lines.txt", "-o", tmp_path / "out")
    assert code == BUG_EXIT_CODE and "0002.wav: RuntimeError: shapes differ" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0001.wav", "0003.wav"]


# -- terminals and closed streams


def command(*arguments: object, model: str) -> list[str]:
    return [sys.executable, "-m", "uniaudio2", *map(str, arguments), "--model", model, "--device", "cpu"]


def test_on_a_terminal_long_recordings_appear_piece_by_piece(
    model: str, wav: Callable[..., Path], tmp_path: Path
) -> None:
    source, out = wav("long.wav", 41.0), tmp_path / "out"
    main, terminal = pty.openpty()
    words = command("caption", source, "--batch-size", 1, "-o", out, model=model)
    process = subprocess.Popen(words, stdout=terminal, stderr=subprocess.PIPE, text=True)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(300) == 0, errors
    lines = [line for line in shown.decode().splitlines() if "\t" in line]
    assert len(lines) >= 4 and all(line.startswith(f"{source}\t") for line in lines)
    whole = (out / "long.txt").read_text().strip()
    assert {part for line in lines for part in [line.split("\t")[1]]} == set(whole.split(", then "))
    done = subprocess.run(command("caption", source, model=model), capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{source}\t{whole}\n"  # elsewhere one line, as ever


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ("transcribe {wav} >&-", "standard output is closed: redirect it to a file"),
        ("transcribe - <&-", "standard input"),
        ("speak - -o {out}/x.wav <&-", "standard input is closed"),
        ("decode - -o {out}/x.wav <&-", "standard input is closed"),
        ("speak hello -o - >&-", "standard output is closed"),
        ("encode {wav} -o - >&-", "standard output is closed"),
        ("run list >&-", "standard output is closed"),
    ],
)
def test_closed_streams_are_named(
    model: str, wav: Callable[..., Path], tmp_path: Path, shell: str, message: str
) -> None:
    words, _, redirect = shell.format(wav=wav("a.wav", 0.4), out=tmp_path).rpartition(" ")
    line = " ".join([*command(*words.split(), model=model), redirect])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line]
    assert len(errors) == 1 and message in errors[0] and "closed" in errors[0]


def test_a_closed_error_stream_does_no_harm(model: str, wav: Callable[..., Path]) -> None:
    line = " ".join([*command("transcribe", wav("a.wav", 0.4), model=model), "2>&-"])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("\n") == 1


def test_times_of_words_in_every_form(cli: Cli, wav: Callable[..., Path], tmp_path: Path) -> None:
    words = (Word(0.0, 0.5, "one"), Word(0.75, 1.5, "more"))
    result = TextResult("one more", (Segment(0.0, 1.5, "one more", words=words),), 2.0, "en")
    assert as_text(result, "txt", "words") == "0.00\t0.50\tone\n0.75\t1.50\tmore\n"
    assert as_text(result, "tsv", "words") == "start\tend\ttext\n0\t500\tone\n750\t1500\tmore\n"
    assert as_text(result, "vtt", "words").count("-->") == as_text(result, "srt", "words").count("-->") == 2
    assert as_text(result, "vtt", "segments").count("-->") == 1
    source = wav("a.wav", 1.0)
    code, out, _ = cli("transcribe", "--timestamps", "words", source, "--json")
    assert code == 0
    segment = json.loads(out)["segments"][0]
    assert "".join(word["text"] for word in segment["words"]) == segment["text"].replace(" ", "")
    for plain in (["--timestamps", source], [source, "--timestamps"], ["--timestamps", "segments", source]):
        code, out, _ = cli("transcribe", *plain)
        start, end, text = out.split("\t", 1)[1].rstrip("\n").split("\t")
        assert (code, float(start), float(end), text) == (0, 0.0, 1.0, segment["text"])
    code, _, err = cli("caption", source, "--timestamps", "words")
    assert code == 1 and "--timestamps words" in err.splitlines()[0]
