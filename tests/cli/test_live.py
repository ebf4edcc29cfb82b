"""Audio through pipes, and talking to a sound card that is made up."""

from __future__ import annotations

import io
import json
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.audio import AudioError, PipeReader, PipeWriter, read_audio
from uniaudio2.cli import execute

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], model: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    def run(*arguments: object, standard_input: bytes = b"") -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(standard_input))))
        code = execute([*map(str, arguments), "--model", model, "--device", "cpu"])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


class Slow(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._file.read(min(len(buffer), 997))
        buffer[: len(data)] = data
        return len(data)


def wav_bytes(samples: np.ndarray, rate: int = 24_000, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_file_is_read_as_it_comes(subtype: str, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (5000, channels)).astype(np.float32)
    reader = PipeReader(io.BufferedReader(Slow(wav_bytes(samples, 16_000, subtype) + b"behind the samples")))
    pieces = list(reader)
    assert reader.sample_rate == 16_000 and len(pieces) > 5
    np.testing.assert_allclose(torch.cat(pieces, 1).numpy().T, samples, atol=2**-15)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"ID3\x03 an MP3 file, which needs all", "not a WAV file; .* ffmpeg .* --raw"),
        (wav_bytes(np.zeros(9))[:30], "ends within its header"),
        (wav_bytes(np.zeros(9), subtype="PCM_24"), "a kind of WAV file"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "does not say what its samples are"),
        (b"RIFF\0\0\0\0WAVEjunk" + struct.pack("<I", 2**31) + b"x" * 99, "ends within its header"),
    ],
)
def test_what_is_no_stream_of_samples_is_named(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        PipeReader(io.BytesIO(data))


def test_speech_is_written_while_it_is_made(cli: Cli, model: str, tmp_path: Path) -> None:
    code, wave, err = cli("speak", "Hello there. Bye.", "--stream", "-o", "-", "--seed", 4)
    assert code == 0 and "s of audio" in err
    (tmp_path / "hello.wav").write_bytes(wave)
    made = read_audio(tmp_path / "hello.wav")
    pieces = list(UniAudio2.from_pretrained(model, device="cpu").stream("Hello there. Bye.", seed=4))
    torch.testing.assert_close(made, torch.cat(pieces, 1), atol=1e-3, rtol=0)
    samples = list(PipeReader(io.BytesIO(wave)))
    torch.testing.assert_close(torch.cat(samples, 1), made)
    code, bare, _ = cli("speak", "Hello there. Bye.", "--stream", "--raw", "-o", "-", "--seed", 4)
    assert code == 0 and bare == wave[44:]
    flushed: list[int] = []
    file = io.BytesIO()
    file.flush = lambda: flushed.append(len(file.getvalue()))  # type: ignore[method-assign]
    PipeWriter(file).write(torch.ones(1, 10))
    assert flushed == [44, 64]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speak", "Hi.", "-o", "hi.wav", "--stream"), "use -o -"),
        (("speak", "Hi.", "-o", "-", "--raw"), "--raw goes with --stream"),
        (("transcribe", "talk.wav", "--live"), "give - in place of the files"),
        (("transcribe", "-", "--raw", "16000", "--format", "srt"), "leave out --format"),
        (("transcribe", "-", "--raw", "0"), "--raw"),
        (("talk", "--reply", ""), "--reply is empty"),
    ],
)
def test_mistakes_are_named_at_once(cli: Cli, sound: None, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = cli(*arguments)
    assert code in (1, 2) and not out and message in err


def test_a_pipe_is_transcribed_as_it_comes(cli: Cli, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (0.1 * np.random.default_rng(0).standard_normal(16_000 * 4)).clip(-1, 1).astype(np.float32)
    data = wav_bytes(samples, 16_000)
    plain = UniAudio2.from_pretrained(model, device="cpu").transcribe(torch.from_numpy(samples), sample_rate=16_000)
    code, out, _ = cli("transcribe", "-", "--live", "--json", standard_input=data)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and lines[-1]["result"]["text"] == lines[-1]["text"] == plain.text
    assert lines[-1]["heard_s"] == pytest.approx(4.0, abs=0.001)
    code, out, err = cli("transcribe", "-", "--raw", 16_000, "--timestamps", standard_input=data[44:])
    rows = [line.split("\t") for line in out.decode().splitlines()]
    assert code == 0 and [row[0] for row in rows] == ["-"] * len(rows) == ["-"] * len(plain.segments)
    code, out, err = cli("transcribe", "-", "--live", standard_input=b"")
    assert (code, out) == (1, b"") and "standard input: is empty" in err


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """A sound card: the microphone hears noise for three seconds; returned is what the loudspeaker plays."""
    played: list[np.ndarray] = []

    class Input:
        def __init__(self, *, samplerate, channels, dtype, blocksize, device, callback, finished_callback):
            assert (samplerate, channels, dtype) == (24_000, 1, "float32")
            if device == "none":
                raise library.PortAudioError("no such device")
            self.hear, self.end, self.size = callback, finished_callback, blocksize

        def start(self) -> None:
            noise = 0.1 * np.random.default_rng(0).standard_normal((72_000, 1)).astype(np.float32)
            buffer = np.zeros((self.size, 1), np.float32)
            for first in range(0, len(noise), self.size):
                buffer[:] = noise[first : first + self.size]
                self.hear(buffer, self.size, None, None)
            self.end()

        def close(self) -> None:
            played.append(np.zeros(0))

    class Output:
        def __init__(self, *, samplerate, channels, dtype, device):
            assert (samplerate, channels, dtype) == (24_000, 1, "float32")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, samples: np.ndarray) -> None:
            assert samples.ndim == 2 and samples.shape[1] == 1 and samples.flags.c_contiguous
            played.append(samples)

    library = types.ModuleType("sounddevice")
    library.InputStream, library.OutputStream = Input, Output  # type: ignore[attr-defined]
    library.PortAudioError = type("PortAudioError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    return played


def test_talk_hears_asks_and_answers(cli: Cli, sound: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    from uniaudio2.api import live
    from uniaudio2.api.request import Heard

    monkeypatch.setattr(live, "hear", lambda _, chunks, *__: [Heard("good day")] * len(chunks))
    reply = f"{sys.executable} -c \"print(input().upper() + '.')\""
    code, out, err = cli("talk", "--reply", reply, "--seed", 1)
    assert (code, out.decode()) == (0, "-\tgood day\n>\tGOOD DAY.\n") and "listening" in err
    assert sum(map(len, sound)) > 2400 and len(sound[-1]) == 0  # and the microphone is closed
    code, out, _ = cli("talk", "--json")
    assert code == 0 and json.loads(out)["answer"] == json.loads(out)["text"] == "good day"
    code, out, err = cli("talk", "--reply", "false")
    assert code == 0 and "ended with code 1" in err
    assert cli("talk", "--reply", "no-such-program")[0] == 1
    code, _, err = cli("talk", "--device-in", "none")
    assert code == 1 and "--device-in" in err


def test_a_missing_sound_library_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    code, _, err = cli("talk")
    assert code == 1 and "pip install 'uniaudio2[mic]'" in err
