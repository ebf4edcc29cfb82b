"""Memory does not grow with the length of a recording: files are read, worked on and written piece by piece."""

import sys

import pytest

from tests.tiny_model import make_tiny_model

WORK = """
import resource, sys
import torch
from pathlib import Path
from uniaudio2 import UniAudio2
from uniaudio2.audio import AudioWriter, open_audio

torch.set_num_threads(1)
folder = Path(sys.argv[1])
model = UniAudio2.from_pretrained(folder / "model", device="cpu")
model._texts = lambda chunks, *arguments: ["x"] * len(chunks)  # what is divided and held, without the language model

def work(minutes):
    with AudioWriter(folder / "in.wav", 16000) as file:
        for _ in range(minutes):
            file.write(0.1 * torch.randn(1, 60 * 16000))
    if sys.argv[2] == "transcribe":
        assert model.transcribe(folder / "in.wav", batch_size=1).duration_s == 60 * minutes
        return
    codes = model.encode(folder / "in.wav")
    assert codes.num_samples == minutes * 60 * 24000
    with AudioWriter(folder / "out.wav") as file:
        for piece in model.decode_stream(codes, steps=1, guidance=1.0):
            file.write(piece)
    assert open_audio(folder / "out.wav").num_samples == codes.num_samples

work(4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
work(14)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in the units of Linux")
@pytest.mark.parametrize("command", ["encode and decode", "transcribe"])
def test_ten_more_minutes_take_no_more_memory(tmp_path, run_python, command):
    make_tiny_model(tmp_path / "model")
    code = f"import sys\nsys.argv = ['-', {str(tmp_path)!r}, {command!r}]\n{WORK}"
    done = run_python(code, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 16, "MB; the waveform of those ten minutes is 58"
