"""Files whose headers tell less than they hold, pipes, odd names, other containers: read to their real end."""

from __future__ import annotations

import io
import logging
import os
import shutil
import struct
import subprocess
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.audio import SAMPLE_RATE, AudioError, open_audio, read_audio, write_audio
from uniaudio2.audio.media import needs_decoding
from uniaudio2.batch import collect_inputs
from uniaudio2.formats import AUDIO_SUFFIXES, MEDIA_SUFFIXES, WRITABLE_AUDIO


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(round(seconds * SAMPLE_RATE)).clip(-3, 3)).astype(np.float32)


def without_first_frame(mp3: bytes) -> bytes:
    """An MP3 file without the frame that says how long it is."""
    second = next(at for at in range(100, len(mp3)) if mp3[at] == 0xFF and mp3[at + 1] == mp3[1])
    assert b"Info" in mp3[:second] or b"Xing" in mp3[:second]
    return mp3[second:]


@pytest.fixture
def mp3(tmp_path: Path) -> bytes:
    """Loud noise, then a faint tone: the bit rate of the beginning tells little about the rest."""
    quiet = 0.01 * np.sin(np.arange(8 * SAMPLE_RATE) / 9)
    path = tmp_path / "a.mp3"
    wave = np.concatenate([noise(1.0), quiet.astype(np.float32)])
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE"
    ) as file:
        file.write(wave)
    return path.read_bytes()


def test_mp3_without_a_table_is_read_to_its_end(tmp_path: Path, mp3: bytes) -> None:
    stripped = tmp_path / "b.mp3"
    stripped.write_bytes(without_first_frame(mp3))
    assert soundfile.info(str(stripped)).duration < 7, "libsndfile guesses right: this test shows nothing"
    assert abs(open_audio(stripped).duration_s - 9.0) < 0.2
    tagged = tmp_path / "c.mp3"
    tagged.write_bytes(b"ID3\x03\x00\x00\x00\x00\x00\x14" + bytes(20) + without_first_frame(mp3))
    assert abs(open_audio(tagged).duration_s - 9.0) < 0.2


def test_mp3_with_a_right_table_is_left_alone(tmp_path: Path, mp3: bytes) -> None:
    path = tmp_path / "b.mp3"
    path.write_bytes(mp3)
    expected, _ = soundfile.read(path, dtype="float32")
    expected = expected / max(1.0, float(np.abs(expected).max()))
    assert torch.allclose(read_audio(path)[0], torch.from_numpy(expected), atol=1e-6)


def test_joined_mp3_files_are_read_whole(tmp_path: Path, mp3: bytes) -> None:
    path = tmp_path / "joined.mp3"
    path.write_bytes(mp3 + mp3)
    assert abs(open_audio(path).duration_s - 18.0) < 0.3


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_chained_ogg_is_read_to_its_end(tmp_path: Path, suffix: str) -> None:
    for number, seconds in enumerate((1.5, 0.5, 2.0)):
        write_audio(tmp_path / f"{number}{suffix}", 0.3 * torch.from_numpy(noise(seconds, number))[None])
    parts = [(tmp_path / f"{number}{suffix}").read_bytes() for number in range(3)]
    (tmp_path / f"all{suffix}").write_bytes(b"".join(parts))
    whole = read_audio(tmp_path / f"all{suffix}")
    assert whole.shape[1] == 4 * SAMPLE_RATE
    apart = torch.cat([read_audio(tmp_path / f"{number}{suffix}") for number in range(3)], dim=1)
    assert torch.equal(whole, apart)
    assert torch.equal(read_audio(tmp_path / f"all{suffix}", start_s=1.75, duration_s=1.0), whole[:, 42000:66000])
    with pytest.raises(AudioError, match="lies behind its end"):
        read_audio(tmp_path / f"all{suffix}", start_s=4.5)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("through", ["file", "stdin", "fifo"])
def test_streamed_wav_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, through: str
) -> None:
    wave = noise(0.5)
    soundfile.write(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", min(0xFFFFFFFF, size + place))
    source: Path | str = tmp_path / "b.wav"
    if through == "file":
        Path(source).write_bytes(data)
    elif through == "stdin":
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
        source = "-"
    else:
        os.mkfifo(source)
        threading.Thread(target=lambda: Path(source).write_bytes(data), daemon=True).start()
    expected = read_audio(tmp_path / "a.wav")
    assert torch.equal(read_audio(source), expected)


def test_wav_that_truly_holds_nothing_says_so(tmp_path: Path) -> None:
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24000, 48000, 2, 16) + b"data" + struct.pack("<I", 0)
    for name, rest in (("a.wav", b""), ("b.wav", b"LIST" + struct.pack("<I", 4) + b"INFO")):
        (tmp_path / name).write_bytes(b"RIFF" + struct.pack("<I", len(body + rest)) + body + rest)
        with pytest.raises(AudioError, match="holds no audio samples"):
            read_audio(tmp_path / name)


def test_channels_that_cancel_fall_back_to_the_loudest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wave = noise(1.0) * 0.5
    soundfile.write(tmp_path / "a.wav", np.stack([0.9 * wave, -wave, 0.1 * wave], 1), SAMPLE_RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        audio = read_audio(tmp_path / "a.wav")
    assert "cancel each other" in caplog.text and "channel 2" in caplog.text
    assert torch.equal(audio[0], torch.from_numpy(-wave))
    soundfile.write(tmp_path / "b.wav", np.stack([wave, 0 * wave], 1), SAMPLE_RATE, subtype="FLOAT")
    assert torch.allclose(read_audio(tmp_path / "b.wav")[0], torch.from_numpy(wave / 2)), "one silent channel is usual"
    soundfile.write(tmp_path / "c.wav", np.zeros((9600, 2), np.float32), SAMPLE_RATE)
    assert read_audio(tmp_path / "c.wav").abs().max() == 0


@pytest.mark.parametrize("name", [os.fsdecode(b"n\xe4me.wav"), "名字.wav", "x" * 251 + ".wav"])
def test_any_name_is_written_and_read(tmp_path: Path, name: str) -> None:
    wave = torch.from_numpy(noise(0.2))[None] * 0.5
    write_audio(tmp_path / name, wave)
    assert read_audio(tmp_path / name).shape == wave.shape


@pytest.mark.parametrize("suffix", WRITABLE_AUDIO)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    wave = torch.sin(torch.arange(2 * SAMPLE_RATE) / 20)[None] * 0.5
    write_audio(tmp_path / f"a{suffix}", wave)
    back = read_audio(tmp_path / f"a{suffix}")
    assert abs(back.shape[1] - wave.shape[1]) <= 2400
    assert 0.3 < float(back.square().mean().sqrt()) < 0.4


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="makes its files with ffmpeg")
@pytest.mark.parametrize("suffix", [".m4a", ".webm"])
def test_pyav_and_ffmpeg_decode_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    pytest.importorskip("av")
    soundfile.write(tmp_path / "a.wav", np.stack([noise(1.0) * 0.5, noise(1.0, 1) * 0.2], 1), SAMPLE_RATE)
    made = tmp_path / f"b{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), str(made)], check=True)
    by_pyav = read_audio(made)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    by_ffmpeg = read_audio(made)
    count = min(by_pyav.shape[1], by_ffmpeg.shape[1])
    assert abs(by_pyav.shape[1] - by_ffmpeg.shape[1]) < 0.06 * SAMPLE_RATE
    levels = [float(audio[:, :count].square().mean().sqrt()) for audio in (by_pyav, by_ffmpeg)]
    assert abs(levels[0] - levels[1]) < 0.02 * levels[1]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="makes its files with ffmpeg")
@pytest.mark.parametrize("suffix", [".aifc", ".voc", ".mp2", ".w64", ".au", ".m4a", ".webm", ".mka"])
def test_formats_of_recorders_are_read(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.0), SAMPLE_RATE)
    made = tmp_path / f"b{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), str(made)], check=True)
    assert abs(open_audio(made).duration_s - 1.0) < 0.06
    assert [item.source for item in collect_inputs([str(tmp_path)])] == [str(tmp_path / "a.wav"), str(made)]


def test_without_a_decoder_both_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"uniaudio2\[media\].*ffmpeg"):
        read_audio(tmp_path / "a.m4a")
    said: list[str] = []
    assert [Path(item.source).name for item in collect_inputs([str(tmp_path)], log=said.append)] == ["b.wav"]
    assert any("1 more in .m4a passed over" in line and "ffmpeg" in line for line in said)


def test_broken_media_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_bytes(b"\x1aE\xdf\xa3" + bytes(200))
    with pytest.raises(AudioError, match=r"a\.webm: "):
        read_audio(tmp_path / "a.webm")
    assert not needs_decoding(b"RIFF....WAVE", ".m4a") and needs_decoding(b"\0\0\0\x20ftyp", "")
    assert not AUDIO_SUFFIXES & MEDIA_SUFFIXES


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("vbr_no_xing_loud_start.mp3", 8.20),
        ("chained.ogg", 3.86),
        ("chained.opus", 3.86),
        ("data_size_0.wav", 2.0),
        ("antiphase.flac", 2.0),
        ("speech.m4a", 2.0),
        ("recorder_live.webm", 2.0),
    ],
)
def test_files_of_real_users(shared: Path, name: str, seconds: float) -> None:
    path = shared / "cases" / name
    if not path.exists():
        pytest.skip("the file is kept beside the checkout only")
    if path.suffix in MEDIA_SUFFIXES and shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    audio = open_audio(path)
    assert abs(audio.duration_s - seconds) < 0.03
    assert audio.read().abs().max() > 0.3
