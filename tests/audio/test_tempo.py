"""Faster and slower speech: length, pitch, no clicks, range."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from uniaudio2.audio import SAMPLE_RATE, change_speed


def pitch_hz(audio: torch.Tensor) -> float:
    """Of the strongest partial of the middle half of a waveform (1, N)."""
    quarter = audio.shape[1] // 4
    middle = audio[0, quarter:-quarter].numpy()
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
    return float(spectrum.argmax()) * SAMPLE_RATE / (1 << 18)


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("hz", [85.0, 220.0, 700.0])
def test_a_tone_gets_another_length_and_keeps_pitch_and_level(
    tone: Callable[..., torch.Tensor], speed: float, hz: float
) -> None:
    audio = tone(1.5, hz)
    made = change_speed(audio, speed)
    assert made.shape == (1, round(audio.shape[1] / speed))
    assert pitch_hz(made) == pytest.approx(hz, rel=0.01)
    inner = made[0, 1000:-1000]
    assert float(inner.square().mean().sqrt()) == pytest.approx(0.5 / 2**0.5, rel=0.03)
    assert float(inner.diff().abs().max()) <= 1.3 * float(audio.diff().abs().max())  # nothing clicks


def test_events_come_when_they_should(tone: Callable[..., torch.Tensor]) -> None:
    audio = torch.zeros(1, 2 * SAMPLE_RATE)
    audio[:, SAMPLE_RATE : SAMPLE_RATE + 4800] = tone(0.2, 200.0)
    for speed in (0.6, 1.7):
        loud = (change_speed(audio, speed)[0].abs() > 0.05).nonzero()[:, 0] / SAMPLE_RATE
        assert float(loud[0]) == pytest.approx(1.0 / speed, abs=0.05)
        assert float(loud[-1]) == pytest.approx(1.2 / speed, abs=0.05)


def test_what_is_not_changed_and_what_is_refused(tone: Callable[..., torch.Tensor]) -> None:
    audio = tone(0.3)
    assert change_speed(audio, 1.0) is audio
    assert change_speed(audio[:, :7], 2.0).shape == (1, 4)
    assert change_speed(audio[:, :0], 2.0).shape == (1, 0)
    for speed in (0.2, 4.1, float("nan")):
        with pytest.raises(ValueError, match="speed"):
            change_speed(audio, speed)
