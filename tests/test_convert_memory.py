"""What ``uniaudio2 convert`` costs on a generated language model in the published layout, with the widths of the 3B.

    UNIAUDIO2_TEST_GB=4 pytest -m slow tests/test_convert_memory.py -s

prints the conversion's report, its time and its private memory, and what loading the result takes. The size is about
that of the generated file, which is written twice to the temporary folder (``--basetemp`` moves it): 1 is the default,
from 3.5 on the vocabularies are the published ones, 10 is the whole published model in bfloat16.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from uniaudio2.config import load_config, preset_path
from uniaudio2.lm.model import AudioLM, LMConfig, published_lm_key
from uniaudio2.tokenizer import TextTokens

SIZE_GB = float(os.environ.get("UNIAUDIO2_TEST_GB", "1"))
LAYER_GB = 0.2014  # one block of the 3B backbone in bfloat16
REST_GB = 3.25  # embeddings, heads, local decoder and one block of each expert, with the published vocabularies
FACTOR, EXTRA_MIB = 1.15, 300  # the promise: private memory at most 1.15 x the largest tensor + 300 MB

MEASURE = """
import contextlib, io, re, sys, threading, time
from pathlib import Path

def private_mib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

peak = 0.0
def watch():
    global peak
    while True:
        peak = max(peak, private_mib())
        time.sleep(0.002)

from uniaudio2.checkpoint import load_lm
from uniaudio2.cli import execute
threading.Thread(target=watch, daemon=True).start()
for name, work in (("convert", lambda: execute(["convert", *sys.argv[1:]])), ("load", lambda: load_lm(sys.argv[2]))):
    peak, began = 0.0, time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as report:
        assert not isinstance(work(), int) or name == "convert"
    print(f"{name}\\t{peak:.0f}\\t{time.perf_counter() - began:.1f}")
    sys.stderr.write(report.getvalue())
"""


def small_text() -> list[str]:
    """Overrides that put the special text tokens first, for a vocabulary without room for the published ids."""
    return [f"text.{field.name}={number}" for number, field in enumerate(fields(TextTokens))]


def sizes(gigabytes: float) -> list[str]:
    """Overrides of the preset ``3b`` that make a file of about this size: fewer layers, smaller vocabularies."""
    changes = ["understanding.num_layers=1", "generation.num_layers=1", "backbone.num_layers=1", "depth.num_layers=1"]
    if gigabytes >= 9.5:
        return []
    if gigabytes >= REST_GB:
        changes[2] = f"backbone.num_layers={max(1, round((gigabytes - REST_GB) / LAYER_GB))}"
        return changes
    changes += ["text_vocab_size=8000", *small_text()]
    for stream, codes in enumerate((1024, 2048)):
        changes += [f"audio.streams.{stream}.num_ids={codes + 8}", f"audio.streams.{stream}.codebook_size={codes}"]
        changes += [f"audio.streams.{stream}.{name}={codes + n}" for n, name in enumerate(("bos", "eos", "pad"))]
    return [*changes, "audio.voice_bos=2051", "audio.voice_eos=2052"]


def write_published(folder: Path, config: LMConfig) -> tuple[int, int]:
    """A pickled checkpoint in bfloat16 with ``llm_config.yaml``; bytes of the file and of its largest tensor."""
    with torch.device("meta"):
        shapes = {published_lm_key(name): tensor.shape for name, tensor in AudioLM(config).state_dict().items()}
    state = {f"module.{key}": torch.zeros(shape, dtype=torch.bfloat16) for key, shape in shapes.items()}
    folder.mkdir()
    torch.save({"model": state, "epoch": 3}, folder / "llm_ep3.checkpoint")
    audio = config.audio
    told = {
        "llm_name": "Llama-3.2-3B",
        "local_model": "Llama-3.2-300M",
        "parallel_number": audio.num_codebooks + 1,
        "audio_reason_card": audio.fine_shift,
        "audio_semantic_card": audio.fine.num_ids,
        "audio_prompt_bos": audio.voice_bos,
        "audio_prompt_eos": audio.voice_eos,
        "text_pad_token": config.text.text_pad,
    }
    for theirs, ours in zip(("reason", "semantic"), audio.streams, strict=True):
        for name, ending in (("bos", "bos"), ("eos", "eos"), ("pad_token", "pad")):
            told[f"{theirs}_{name}"] = getattr(ours, ending)
    (folder / "llm_config.yaml").write_text(yaml.safe_dump(told))
    largest = max(tensor.nbytes for tensor in state.values())
    return (folder / "llm_ep3.checkpoint").stat().st_size, largest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_converting_and_loading_need_little_private_memory(tmp_path: Path) -> None:
    config = load_config(LMConfig, preset_path("lm", "3b"), sizes(SIZE_GB))
    size, largest = write_published(tmp_path / "published", config)
    assert size > 0.8e9 * SIZE_GB
    limit = FACTOR * largest / 2**20 + EXTRA_MIB
    told = [f"lm.{word}" for word in small_text()] if config.text_vocab_size < 128_000 else []
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "published"), str(tmp_path / "out"), *told]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(f"\n{done.stderr}file {size / 1e9:.2f} GB, largest tensor {largest / 2**20:.0f} MiB, limit {limit:.0f} MiB")
    for line in done.stdout.splitlines():
        name, peak, seconds = line.split("\t")
        print(f"{name}: {peak} MiB of private memory, {seconds} s")
        assert float(peak) <= limit, line
