"""Memory does not grow with the length of a recording: files are read, worked on and written piece by piece.

    UNIAUDIO2_TEST_MINUTES=1,5,20 pytest -m slow tests/test_memory.py -s

decodes so many minutes with a codec of the published widths and prints time and memory of each; it takes long.
"""

import os
import sys

import pytest

from tests.test_configs import EXAMPLE_AUTOENCODER
from tests.tiny_model import make_tiny_model
from uniaudio2.checkpoint import save_parts
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm.model import AudioLM, LMConfig

MINUTES = os.environ.get("UNIAUDIO2_TEST_MINUTES", "")

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


# Random weights at the published widths; the flow decoder has one layer of 32 and takes one step of ten, which changes
# times only: every layer and step works in the memory of the one before.
DECODE = """
import sys, time
from pathlib import Path
import torch
from uniaudio2.bench import peak_memory
from uniaudio2.storage.load import build_empty
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codes import AudioCodes
from uniaudio2.config import load_config, preset_path

torch.set_num_threads(1)
overrides = [f"autoencoder.config={sys.argv[1]}", "dit.num_layers=1"]
config = load_config(CodecConfig, preset_path("codec", "published"), overrides)
codec = build_empty(lambda: ReasoningCodec(config))  # the encoders stay empty and take no memory
for part in (codec.reconstruction, codec.decoder, codec.autoencoder):
    for tensor in part.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.02)
for minutes in (0.75, *map(float, sys.argv[2].split(","))):  # three windows first, to warm up
    frames = round(minutes * 750)
    codes = AudioCodes(torch.zeros(1, 8, frames * 2 // 5).long(), torch.randint(0, 8192, (1, 8, frames)), None)
    start, made = time.perf_counter(), 0
    with peak_memory(torch.device("cpu")) as peak:
        for piece in codec.decode_stream(codes, steps=1, guidance_scale=1.0):
            made += piece.shape[2]
    assert made == 1920 * frames
    print(minutes, round(time.perf_counter() - start, 1), peak[0] // 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resets the peak as Linux does")
@pytest.mark.skipif(not MINUTES, reason="takes long: set UNIAUDIO2_TEST_MINUTES, for example to 1,5")
def test_decoding_at_published_widths_takes_the_same_memory_for_any_length(run_python):
    pytest.importorskip("transformers", reason="the published encoders need the extra 'published'")
    code = f"import sys\nsys.argv = ['-', {EXAMPLE_AUTOENCODER!r}, {MINUTES!r}]\n{DECODE}"
    done = run_python(code, timeout_s=7200)
    assert done.returncode == 0, done.stderr
    peaks = []
    for line in done.stdout.splitlines()[1:]:
        minutes, seconds, peak = line.split()
        print(f"{minutes} min: {seconds} s, {peak} MiB at most")
        peaks.append(int(peak))
    # The allocator creeps by some ten MiB in the first minutes; 20 minutes of audio alone would be 110.
    assert max(peaks) < 1.05 * peaks[0]


LOAD = """
import sys
import torch
from uniaudio2.bench import peak_memory
from uniaudio2.checkpoint import load_lm

torch.set_num_threads(1)
load_lm(sys.argv[1] + "/tiny")  # what loading takes whatever the size
with peak_memory(torch.device("cpu")) as before:
    pass
with peak_memory(torch.device("cpu")) as peak:
    model = load_lm(sys.argv[1] + "/lm", dtype=getattr(torch, sys.argv[2]))
size = sum(value.nbytes for value in model.state_dict().values())
print((peak[0] - before[0]) / 2**20, size / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resets the peak as Linux does")
@pytest.mark.parametrize(("stored", "wanted"), [("int8", "float32"), ("float32", "bfloat16")])
def test_loading_takes_the_memory_of_the_weights(tmp_path, run_python, stored, wanted):
    for name, preset in (("tiny", "tiny"), ("lm", "small")):
        save_parts(tmp_path / name, lm=AudioLM(load_config(LMConfig, preset_path("lm", preset))), dtype=stored)
    code = f"import sys\nsys.argv = ['-', {str(tmp_path)!r}, {wanted!r}]\n{LOAD}"
    done = run_python(code, timeout_s=300)
    assert done.returncode == 0, done.stderr
    peak, size = map(float, done.stdout.split())
    # Beside the weights: what was just read of the file (32 MB), one tensor before conversion (12), the allocator.
    assert peak < size + 60, f"{peak:.0f} MiB for {size:.0f} MiB of weights"
