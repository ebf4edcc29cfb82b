"""Reading, writing, resampling, limiting and windowing of waveforms; every kind of bad file."""

from __future__ import annotations

import io
import math
import os
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.audio import (
    SAMPLE_RATE,
    AudioError,
    AudioWriter,
    Recording,
    chunks_at_pauses,
    limit,
    open_audio,
    read_audio,
    resample,
    rms_dbfs,
    write_audio,
)


def tone(seconds: float = 0.5, rate: int = SAMPLE_RATE, frequency: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_write_then_read_is_exact_to_16_bits(tmp_path: Path) -> None:
    wave = torch.from_numpy(tone())[None]
    for name in ("a.wav", "b.flac", "new folder/c.wav"):
        write_audio(tmp_path / name, wave)
        back = read_audio(tmp_path / name)
        assert back.shape == wave.shape and back.dtype == torch.float32
        assert (back - wave).abs().max() < 2 / 32768
    assert soundfile.info(str(tmp_path / "a.wav")).subtype == "PCM_16"
    assert not list(tmp_path.glob(".*")), "temporary files are left behind"


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channels_become_mono_24k(tmp_path: Path, rate: int, channels: int) -> None:
    wave = tone(0.5, rate)
    soundfile.write(tmp_path / "x.wav", np.repeat(wave[:, None], channels, 1), rate, subtype="PCM_24")
    audio = read_audio(tmp_path / "x.wav")[0].numpy()
    assert abs(audio.size - SAMPLE_RATE // 2) <= 2
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(audio.size)))
    assert abs(np.argmax(spectrum) * SAMPLE_RATE / audio.size - 440) < 5
    assert abs(np.sqrt(np.mean(audio[1000:-1000] ** 2)) - 0.3 / np.sqrt(2)) < 0.01


def test_part_of_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.arange(24000, dtype=np.int16), SAMPLE_RATE)
    part = read_audio(tmp_path / "x.wav", start_s=0.25, duration_s=0.5)
    assert part.shape == (1, 12000)
    assert part[0, 0] == 6000 / 32768
    with pytest.raises(AudioError, match="behind its end"):
        read_audio(tmp_path / "x.wav", start_s=1.5)
    with pytest.raises(AudioError, match="duration > 0"):
        read_audio(tmp_path / "x.wav", duration_s=0)


def test_float_file_beyond_full_scale_is_scaled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", 5 * tone(), SAMPLE_RATE, subtype="FLOAT")
    assert read_audio(tmp_path / "x.wav").abs().max() == pytest.approx(1.0, abs=1e-4)


def test_bad_files_are_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no audio at all, but a text of some length")
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), SAMPLE_RATE)
    bad = tone()
    bad[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, SAMPLE_RATE, subtype="FLOAT")
    for name, message in {
        "missing.wav": "no such file",
        ".": "is a folder",
        "empty.wav": "0 bytes",
        "text.wav": "not readable as audio",
        "none.wav": "no audio samples",
        "nan.wav": "NaN",
    }.items():
        with pytest.raises(AudioError, match=message) as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_truncated_wav_gives_what_is_there_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "x.wav", tone(1.0), SAMPLE_RATE)
    data = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(data[: len(data) // 2])
    audio = read_audio(tmp_path / "x.wav")
    assert 11000 < audio.shape[1] < 12100
    assert "truncated" in caplog.text


def test_constant_audio_is_fine(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.full(2400, 0.25, np.float32), SAMPLE_RATE)
    assert torch.allclose(read_audio(tmp_path / "x.wav"), torch.tensor(0.25), atol=1e-4)


def test_standard_input_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    monkeypatch.setattr("sys.stdout", types.SimpleNamespace(buffer=sink))
    write_audio("-", torch.from_numpy(tone())[None])
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(sink.getvalue())))
    assert read_audio("-").shape == (1, 12000)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO()))
    with pytest.raises(AudioError, match="standard input: empty"):
        read_audio("-")


def test_bad_writes_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = torch.from_numpy(tone())[None]
    with pytest.raises(AudioError, match="mono"):
        write_audio(tmp_path / "x.wav", good.repeat(2, 1))
    with pytest.raises(AudioError, match="NaN"):
        write_audio(tmp_path / "x.wav", good * float("nan"))
    with pytest.raises(AudioError, match="suffix"):
        write_audio(tmp_path / "x.mp9", good)
    write_audio(tmp_path / "x.wav", good)
    before = (tmp_path / "x.wav").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(AudioError, match="No space left"):
        write_audio(tmp_path / "x.wav", good * 0.5)
    assert (tmp_path / "x.wav").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.wav"]


def test_limiter_is_transparent_below_and_monotonic_above_its_threshold() -> None:
    x = torch.linspace(-3, 3, 6001)
    y = limit(x)
    assert torch.equal(y[x.abs() <= 0.9], x[x.abs() <= 0.9])
    assert y.abs().max() <= 0.99
    assert (y.diff() >= 0).all()
    assert torch.allclose(limit(-x), -y)


def test_level_is_relative_to_full_scale() -> None:
    assert rms_dbfs(torch.from_numpy(tone())) == pytest.approx(-13.47, abs=0.01)
    assert rms_dbfs(torch.zeros(1, 100)) == -math.inf


def test_resample_changes_length_and_keeps_shape() -> None:
    audio = torch.randn(2, 1, 2400)
    assert resample(audio, 24000, 16000).shape == (2, 1, 1600)
    assert resample(audio, 24000, 24000) is audio


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44100])
def test_blocks_joined_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rate: int) -> None:
    wave = 0.2 * np.random.default_rng(0).standard_normal((5 * rate, 2))
    soundfile.write(tmp_path / name, np.tanh(wave), rate)
    whole = read_audio(tmp_path / name)
    monkeypatch.setattr("uniaudio2.audio.read.BLOCK_VALUES", 20_000)
    recording = open_audio(tmp_path / name, hold_s=1.0)
    for _ in range(2):  # as often as needed
        blocks = list(recording.blocks())
        assert len(blocks) > 5
        assert max(block.shape[1] for block in blocks) <= 20_000
        assert torch.equal(torch.cat(blocks, 1), whole)
    assert recording.num_samples == whole.shape[1]
    assert recording.duration_s == whole.shape[1] / SAMPLE_RATE
    part = open_audio(tmp_path / name, start_s=1.0, duration_s=2.0, hold_s=1.0)
    assert torch.equal(part.read(), read_audio(tmp_path / name, start_s=1.0, duration_s=2.0))


def test_blocks_beyond_full_scale_are_scaled_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising = np.linspace(0, 4, 3 * SAMPLE_RATE, dtype=np.float32)
    soundfile.write(tmp_path / "x.wav", rising, SAMPLE_RATE, subtype="FLOAT")
    monkeypatch.setattr("uniaudio2.audio.read.BLOCK_VALUES", 10_000)
    joined = open_audio(tmp_path / "x.wav", hold_s=0).read()
    assert torch.allclose(joined[0], torch.from_numpy(rising / 4))


def test_a_long_file_that_is_bad_at_its_end_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.zeros(3 * SAMPLE_RATE, np.float32)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "x.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    monkeypatch.setattr("uniaudio2.audio.read.BLOCK_VALUES", 10_000)
    with pytest.raises(AudioError, match="NaN"):
        open_audio(tmp_path / "x.wav", hold_s=0)


def test_standard_input_is_read_again_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    soundfile.write(data, tone(1.0), SAMPLE_RATE, format="WAV")
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data.getvalue())))
    recording = open_audio("-", hold_s=0)
    assert torch.equal(recording.read(), recording.read())


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_pieces_written_give_the_file_of_the_whole(tmp_path: Path, name: str) -> None:
    wave = 1.3 * torch.randn(1, 30_000, generator=torch.Generator().manual_seed(0))
    write_audio(tmp_path / f"whole-{name}", wave)
    with AudioWriter(tmp_path / name) as writer:
        for piece in wave.split([1, 20_000, 0, 9_999], dim=1):
            writer.write(piece)
        assert not (tmp_path / name).exists()
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_a_full_disk_is_noticed_in_every_piece(tmp_path: Path, name: str) -> None:
    wave = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(0))
    for number in range(3):
        with (
            pytest.raises(AudioError, match=rf"{name}: cannot be written \(No space left"),
            AudioWriter(tmp_path / name) as writer,
        ):
            for index in range(3):
                if index == number:
                    writer._sink.file = Full()  # pyright: ignore
                writer.write(wave)
        assert list(tmp_path.iterdir()) == []


class Full(io.RawIOBase):
    """A disk without any room."""

    def write(self, data: object) -> int:
        raise OSError(28, os.strerror(28))

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return 0


def test_an_error_between_pieces_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), AudioWriter(tmp_path / "x.wav") as writer:
        writer.write(torch.zeros(1, 100))
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), AudioWriter(tmp_path / "x.wav"):
        raise FileNotFoundError("something else")  # not taken for an error of the writer
    assert list(tmp_path.iterdir()) == []


def test_chunks_do_not_depend_on_blocks_and_cut_at_pauses() -> None:
    audio = 0.1 * torch.randn(1, 31 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    pauses = (8.0, 15.5, 22.0)
    for second in pauses:
        audio[:, int((second - 0.15) * SAMPLE_RATE) : int((second + 0.15) * SAMPLE_RATE)] = 0
    chunks = list(chunks_at_pauses([audio], 10.0))
    assert torch.equal(torch.cat([chunk for _, chunk in chunks], 1), audio)
    ends = [start + chunk.shape[1] for start, chunk in chunks]
    assert [start for start, _ in chunks] == [0, *ends[:-1]]
    assert all(0 < chunk.shape[1] <= 10 * SAMPLE_RATE for _, chunk in chunks)
    for cut, second in zip(ends, pauses, strict=False):
        assert abs(cut / SAMPLE_RATE - second) < 0.12
    for block in (7_001, 100_000, 400_000):
        starts = [start for start, _ in chunks_at_pauses(audio.split(block, dim=1), 10.0)]
        assert starts == [start for start, _ in chunks]
    assert [start for start, _ in chunks_at_pauses(Recording.of(audio[:, :240_000]).blocks(), 10.0)] == [0]
    assert list(chunks_at_pauses([], 10.0)) == []
