"""What users get wrong, or machines: one clear line, a non-zero exit, no traceback, nothing half-written."""

import errno
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from tests.tiny_model import make_tiny_model
from uniaudio2.cli import execute

RATE = 24000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def cli(capfd, model):
    def run(*arguments, with_model=True):
        extra = ["--model", str(model), "--device", "cpu"] if with_model else []
        code = execute([*map(str, arguments), *extra])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def write(path, samples, rate=RATE, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def wave(seconds, rate=RATE, channels=1):
    time_s = np.arange(round(seconds * rate)) / rate
    mono = 0.4 * np.sin(2 * np.pi * 330 * time_s)
    return np.stack([mono * (0.5 + channel / 10) for channel in range(channels)], 1)


def one_error(err, *words):
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0], lines[0]


# -- files that are no audio


def bad_file(kind, tmp_path):
    path = tmp_path / "bad.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is not audio\n" * 20)
    elif kind == "no samples":
        write(path, np.zeros((0, 1)))
    elif kind == "NaN":
        write(path, np.full((RATE, 1), np.nan), subtype="FLOAT")
    elif kind == "half a header":
        path.write_bytes(write(tmp_path / "good.wav", wave(0.5)).read_bytes()[:30])
    return path


BAD_FILES = {
    "missing": "no such file",
    "folder": "holds no file",
    "empty": "empty",
    "text": "not readable as audio",
    "no samples": "no audio samples",
    "NaN": "NaN",
    "half a header": "bad.wav",
}


@pytest.mark.parametrize("command", ["transcribe", "encode"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_that_are_no_audio(cli, tmp_path, command, kind):
    path = bad_file(kind, tmp_path)
    target = tmp_path / "out.safetensors"
    code, out, err = cli(command, path, *([] if command == "transcribe" else ["-o", target]))
    assert code != 0
    assert out == ""
    one_error(err, "bad.wav", BAD_FILES[kind])
    assert not target.exists()


def test_in_a_batch_good_files_are_served_and_bad_ones_named(cli, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.wav", wave(0.5))
    (folder / "b.wav").write_text("no audio at all")
    (folder / "c.wav").write_bytes(b"")
    write(folder / "d.wav", wave(0.4))
    code, out, err = cli("transcribe", folder, folder / "gone.wav", "--out", tmp_path / "out")
    assert code == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(folder / "a.wav"), str(folder / "d.wav")]
    for name in ("b.wav", "c.wav", "gone.wav"):
        assert sum(name in line for line in err.splitlines()) == 1
    assert "3 of 5 inputs failed" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "d.txt"]


# -- audio of every kind simply works


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_rates_and_channels(cli, tmp_path, rate, channels):
    path = write(tmp_path / "a.wav", wave(0.5, rate, channels), rate)
    code, _, err = cli("encode", path, "-o", tmp_path / "a.safetensors", "--json")
    assert code == 0, err


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sample_formats(cli, tmp_path, subtype):
    assert cli("transcribe", write(tmp_path / "a.wav", wave(0.5), subtype=subtype))[0] == 0


@pytest.mark.parametrize("samples", [np.zeros((RATE, 1)), np.full((RATE, 1), 0.5), wave(0.0001), wave(0.14)])
def test_silence_constant_and_very_short_audio(cli, tmp_path, samples):
    path = write(tmp_path / "a.wav", samples)
    code, out, err = cli("transcribe", path)
    assert code == 0, err
    assert out.startswith(f"{path}\t")
    assert cli("encode", path, "-o", tmp_path / "a.safetensors")[0] == 0
    assert cli("decode", tmp_path / "a.safetensors", "-o", tmp_path / "b.wav")[0] == 0
    assert soundfile.info(tmp_path / "b.wav").frames == len(samples)


def test_truncated_file_gives_what_is_there(cli, tmp_path):
    whole = write(tmp_path / "whole.wav", wave(1.0)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    code, out, err = cli("transcribe", tmp_path / "cut.wav", "--json")
    assert code == 0, err
    assert '"duration_s": 0.499' in out or '"duration_s": 0.5' in out


@pytest.mark.slow
def test_ten_minutes_of_audio(cli, tmp_path):
    path = write(tmp_path / "long.wav", wave(600.0, 8000), 8000)
    assert cli("encode", path, "-o", tmp_path / "a.safetensors")[0] == 0


# -- text


@pytest.mark.parametrize("command", [["speak"], ["generate", "sound"]])
@pytest.mark.parametrize("text", ["", "   ", "😀🎉", "...", "\n\t"])
def test_text_without_words(cli, tmp_path, command, text):
    code, _, err = cli(*command, text, "-o", tmp_path / "x.wav")
    assert code == 1
    one_error(err, "give at least one word")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ten_thousand_characters(cli, tmp_path, monkeypatch):
    from uniaudio2.api import speak
    from uniaudio2.api.request import Limits

    monkeypatch.setattr(speak, "speech_limits", lambda config, expected_s: Limits(0, 0.4, 0.4))
    code, _, err = cli("speak", "Well, so it goes. " * 560, "-o", tmp_path / "x.wav", "--steps", 1)
    assert code == 0, err
    assert soundfile.info(tmp_path / "x.wav").duration > 560 * 0.5


def test_emoji_between_words_are_left_out(cli, tmp_path):
    assert cli("speak", "hello 😀 you", "-o", tmp_path / "x.wav")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speak", "Привет", "-o", "x.wav"], ["Cyrillic"]),
        (["speak", "hi", "-o", "x.wav", "--language", "klingon"], ["unknown language 'klingon'", "en (English)"]),
        (["transcribe", "x.wav", "--language", "fr"], ["unknown language 'fr'"]),
        (["run", "asrr"], ["unknown task 'asrr'", "did you mean 'asr'"]),
        (["run", "asr", "audio"], ["name=value"]),
        (["run", "asr", "audio=gone.wav"], ["gone.wav", "no such file"]),
        (["run", "tts", "transcription=hi"], ["-o"]),
        (["speak", "hi", "-o", "x.wav", "--voice", "gone.wav"], ["gone.wav", "no such file"]),
        (["speak", "hi", "-o", "/dev/full"], ["not a regular file"]),
        (["speak", "hi", "-o", "/proc/none/x.wav"], ["/proc"]),
        (["speak", "hi", "-o", "x.mp5"], ["x.mp5", ".wav"]),
        (["encode", "gone.wav", "-o", "x.codes"], ["x.codes", ".safetensors"]),
        (["decode", "gone.safetensors", "-o", "x.wav"], ["gone.safetensors", "no such file"]),
        (["transcribe", "x.wav", "--temperature", "-1"], ["--temperature"]),
        (["transcribe", "x.wav", "--top-k", "0"], ["--top-k"]),
        (["transcribe", "x.wav", "--guidance", "2"], ["--guidance", "leave it out"]),
        (["transcribe", "x.wav", "--top-k", "many"], ["--top-k"]),
        (["transcribe"], ["FILES"]),
    ],
)
def test_arguments_that_make_no_sense(cli, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert code in (1, 2)
    assert out == ""
    one_error(err.replace("files", "FILES"), *words)
    assert not list(tmp_path.iterdir())


def test_devices_that_are_not_there(cli, tmp_path):
    for name in ("tpu", "cuda:99"):
        code, _, err = cli("speak", "hi", "-o", tmp_path / "x.wav", "--device", name, with_model=False)
        assert code == 1
        one_error(err, name, "cpu")


def test_mistakes_are_found_before_weights_are_read(tmp_path, model, capfd, monkeypatch):
    from uniaudio2.api.model import UniAudio2

    monkeypatch.setattr(UniAudio2, "from_pretrained", lambda *a, **k: pytest.fail("weights were loaded"))
    for arguments in (["transcribe", "gone.wav"], ["speak", "", "-o", "x.wav"], ["speak", "hi", "-o", str(tmp_path)]):
        assert execute([*arguments, "--model", str(model)]) == 1
    capfd.readouterr()


# -- model folders


def broken_model(kind, model, tmp_path):
    folder = tmp_path / "model"
    if kind == "missing":
        return folder
    if kind == "file":
        folder.write_text("x")
        return folder
    shutil.copytree(model, folder)
    if kind == "no config":
        (folder / "config.yaml").unlink()
    elif kind == "broken config":
        (folder / "config.yaml").write_text("codec: [1, 2\n")
    elif kind == "no weights":
        (folder / "lm.safetensors").unlink()
    elif kind == "truncated weights":
        data = (folder / "codec-00001-of-00001.safetensors").read_bytes()
        (folder / "codec-00001-of-00001.safetensors").write_bytes(data[: len(data) // 2])
    elif kind == "a pickle":
        (folder / "codec-00001-of-00001.safetensors").write_bytes(pickle.dumps(os.system))
    elif kind == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif kind == "text as tokenizer":
        (folder / "tokenizer.json").write_text("hello")
    return folder


KINDS = {
    "missing": "no such folder",
    "file": "is a file",
    "no config": "config.yaml",
    "broken config": "config.yaml",
    "no weights": "lm.safetensors",
    "truncated weights": "codec-00001-of-00001.safetensors",
    "a pickle": "codec-00001-of-00001.safetensors",
    "no tokenizer": "tokenizer.json",
    "text as tokenizer": "tokenizer.json",
}


@pytest.mark.parametrize("kind", KINDS)
def test_model_folders_that_cannot_be_used(model, tmp_path, capfd, kind):
    path = write(tmp_path / "a.wav", wave(0.3))
    code = execute(["transcribe", str(path), "--device", "cpu", "--model", str(broken_model(kind, model, tmp_path))])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    one_error(err, KINDS[kind])


# -- the machine


def test_no_space_left_ends_the_batch_and_keeps_what_is_finished(cli, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write(folder / f"{name}.wav", wave(0.3))
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    code, _, err = cli("transcribe", folder, "--out", tmp_path / "out")
    assert code == 1
    one_error(err, "no space left", "free some space")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


def test_file_size_limit_leaves_nothing_behind(model, tmp_path):
    target = tmp_path / "x.wav"
    command = [sys.executable, "-m", "uniaudio2", "speak", "hello hello hello", "-o", str(target)]
    command += ["--model", str(model), "--device", "cpu"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    one_error(done.stderr, "x.wav")
    assert list(tmp_path.iterdir()) == []


def test_standard_output_that_is_full(model, tmp_path):
    path = write(tmp_path / "a.wav", wave(0.3))
    command = [sys.executable, "-m", "uniaudio2", "transcribe", str(path), "--model", str(model), "--device", "cpu"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    one_error(done.stderr, "no space left")


def test_interrupt_keeps_finished_files_and_leaves_nothing_half_written(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(400):
        write(folder / f"{number:03}.wav", wave(2.0))
    command = [sys.executable, "-m", "uniaudio2", "encode", str(folder), "-o", str(tmp_path / "out")]
    command += ["--model", str(model), "--device", "cpu"]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (shells let background jobs ignore it)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process = subprocess.Popen(command, **pipes, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list(tmp_path.glob("out/*.safetensors")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
    made = list((tmp_path / "out").iterdir())
    assert 0 < len(made) < 400
    from uniaudio2.codes import AudioCodes

    assert all(path.suffix == ".safetensors" for path in made)
    assert all(AudioCodes.load(path).num_samples == 2 * RATE for path in made)


def test_a_reader_that_leaves_early_is_no_error(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(20):
        write(folder / f"{number}.wav", wave(0.3))
    command = f"{sys.executable} -m uniaudio2 transcribe {folder} --model {model} --device cpu | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
