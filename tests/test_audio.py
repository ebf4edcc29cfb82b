"""Reading, writing, resampling, limiting and windowing of waveforms; every kind of bad file."""

from __future__ import annotations

import io
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
    limit,
    normalise_level,
    overlap_add,
    read_audio,
    resample,
    rms_dbfs,
    split_windows,
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


def test_level_normalisation_hits_the_level_but_never_clips() -> None:
    wave = torch.from_numpy(tone())[None]
    assert rms_dbfs(normalise_level(wave, -30)) == pytest.approx(-30, abs=0.01)
    assert normalise_level(wave, 20).abs().max() <= 0.99 + 1e-6
    silence = torch.zeros(1, 100)
    assert torch.equal(normalise_level(silence), silence)


def test_resample_changes_length_and_keeps_shape() -> None:
    audio = torch.randn(2, 1, 2400)
    assert resample(audio, 24000, 16000).shape == (2, 1, 1600)
    assert resample(audio, 24000, 24000) is audio


@pytest.mark.parametrize("total", [1, 99, 100, 101, 250, 317])
def test_windows_joined_again_are_the_same(total: int) -> None:
    audio = torch.randn(1, total)
    windows = split_windows(audio, 100, 70)
    assert all(window.shape[-1] == 100 for window in windows[:-1])
    assert torch.allclose(overlap_add(windows, 70, total), audio, atol=1e-6)
    assert overlap_add(windows, 70, total + 5).shape == (1, total + 5)


def test_overlap_is_cross_faded() -> None:
    joined = overlap_add([torch.zeros(1, 100), torch.ones(1, 100)], 60)
    assert joined.shape == (1, 160)
    assert (joined[0, 60:100].diff() > 0).all()
    with pytest.raises(ValueError, match="hop"):
        split_windows(torch.zeros(1, 10), 5, 6)
