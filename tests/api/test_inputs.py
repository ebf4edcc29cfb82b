"""What users hand over as audio."""

import numpy as np
import pytest
import soundfile
import torch

from tests.api.support import noise
from uniaudio2.api.inputs import load_waveform
from uniaudio2.audio import SAMPLE_RATE, AudioError


def test_waveforms_of_every_kind(tmp_path):
    samples = noise(0.5)[0]
    assert torch.equal(load_waveform(samples), load_waveform(samples.numpy())[None][0])
    stereo = torch.stack([samples, -samples])
    assert load_waveform(stereo).abs().max() == 0
    assert load_waveform(samples[:8000], sample_rate=16000).shape == (1, 12000)
    soundfile.write(tmp_path / "a.wav", samples.numpy(), SAMPLE_RATE, subtype="FLOAT")
    assert torch.allclose(load_waveform(tmp_path / "a.wav"), samples[None])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(0), "no samples"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
        (torch.zeros(100, dtype=torch.int16), "must be floats"),
        (torch.zeros(1, 1, 10), r"got \(1, 1, 10\)"),
        (np.zeros((1000, 2), np.float32), "transpose"),
        ("missing.wav", "no such file"),
    ],
)
def test_bad_waveforms_say_why(audio, message):
    with pytest.raises(AudioError, match=message):
        load_waveform(audio)
