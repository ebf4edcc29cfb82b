"""The benchmark: its arithmetic, its counters, and one run of every kind of weights on a small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from uniaudio2.bench import (
    BenchConfig,
    BenchError,
    Measurement,
    SyncCounter,
    bench,
    make_prompt,
    measure_bandwidth,
    measure_quality,
    plan_frame,
)
from uniaudio2.checkpoint import DEFAULT_FOLDER, load_lm
from uniaudio2.cli import execute
from uniaudio2.engine import Engine, GenerationRequest, SamplingConfig
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.sequence import SequenceBuilder

SMALL = BenchConfig(preset="tiny", prompt_rows=30, frames=12, compile=False)


def lm(preset: str) -> LMConfig:
    return BenchConfig(preset=preset).lm_config()


def test_the_published_size_reads_eleven_gigabytes_a_frame() -> None:
    plan = plan_frame(lm("3b"), "bfloat16")
    block, step = 3072 * 40 * 128 + 3072**2 + 3 * 3072 * 8192, 2048 * 48 * 64 + 2048**2 + 3 * 2048 * 8192
    norms = 2 * (33 * 2 * 3072 + 3 * 3072 + 8 * (4 * 2 + 1) * 2048)
    blocks = 2 * (33 * block + 8 * 4 * step + 8 * 2048 * 12300)
    projection = 2 * 8 * 3072 * 2048
    assert plan.frame == blocks + projection + norms
    assert 10.9e9 < blocks < 11.0e9 and 3.6 < 1e3 * plan.frame / 3.0e12 < 3.7
    assert plan.text < plan.frame


def test_a_plan_counts_types_caches_and_left_out_heads() -> None:
    mid = lm("mid")
    full = plan_frame(mid, "float32")
    assert 0.99e9 < full.frame < 1.0e9
    assert full.frame == 2 * plan_frame(mid, "bfloat16").frame
    assert 0.25 < plan_frame(mid, "int8").frame / full.frame < 0.26
    assert 0.14 < plan_frame(mid, "int4").frame / full.frame < 0.15
    assert plan_frame(mid, "float32", drawable=6150).heads == full.heads / 2
    assert plan_frame(mid, "float32", batch=3, positions=10).cache == 3 * 10 * 16 * 2 * 4 * 64 * 4


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("preset", ["tiny", "mid", "3b"])
def test_prompts_have_the_rows_asked_for(preset: str, text: bool) -> None:
    prompt = make_prompt(lm(preset), 50, text=text)
    assert len(prompt) == 50 and prompt.phases[0].is_text == text


def test_syncs_are_counted() -> None:
    x = torch.arange(4)
    with SyncCounter() as syncs:
        _ = x + 1, x[1:], x[torch.tensor([0, 2])], x.sum()
    assert syncs.count == 0
    with SyncCounter() as syncs:
        _ = int(x[0]), bool(x[1] > 0), x.tolist(), x.sum().item(), x[x > 1], x.nonzero()
    assert syncs.count == 6


@pytest.mark.parametrize("sync_every", [1, 4])
def test_frames_do_not_wait_for_the_host(sync_every: int) -> None:
    config = lm("tiny")
    model = AudioLM(config).initialise(torch.Generator().manual_seed(0)).eval()
    builder = SequenceBuilder(None, config.audio, text=config.text)
    session = Engine(model, builder, sync_every=sync_every).session(streaming=False)
    sampling = SamplingConfig(temperature=0.8, top_k=5, top_p=0.9)
    for text in (False, True):
        session.add(
            GenerationRequest(
                make_prompt(config, 30, text=text),
                sampling=sampling,
                limits={"text": (40, 40), "reasoning": (40, 40), "reconstruction": (1, 1)},
                guidance_scale=1.0 if text else 2.0,
                loop_guard=False,
            )
        )
    session.step()
    with SyncCounter() as syncs:
        for _ in range(8):
            session.step()
    assert syncs.count == 8 // sync_every  # one look at all requests together


def test_a_cpu_has_a_bandwidth() -> None:
    assert 1e8 < measure_bandwidth(torch.device("cpu"), repeats=1) < 1e13


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_every_type_is_measured(dtype: str) -> None:
    torch.set_num_threads(1)
    found = bench(BenchConfig(**{**vars(SMALL), "dtype": dtype, "batch": 2}))
    assert isinstance(found, Measurement)
    assert found.frame_ms > 0 and found.frames_per_s == pytest.approx(2000 / found.frame_ms)
    assert found.first_frame_ms > 0 and found.text_tokens_per_s > 0 and found.peak_memory_bytes > 1e7
    assert found.host_syncs == 1 and 500 < found.kernels < 2000
    assert found.share_of_limit == pytest.approx(1e3 * found.frame_bytes / found.bandwidth / found.frame_ms)
    if dtype == "float32":
        assert found.quality is None
    else:
        assert found.quality is not None and found.quality.text_agreement is None
        assert 0 < found.quality.logit_error < (0.4 if dtype == "int4" else 0.05)


def test_weights_of_a_model_folder_are_judged_on_recordings() -> None:
    """The shipped weights, which are stored with 8 bits themselves: four more bits less must show, eight hardly."""
    shipped = load_lm()
    found = {kind: measure_quality(shipped, BenchConfig(model=DEFAULT_FOLDER, dtype=kind)) for kind in ("int8", "int4")}
    for kind, (agreement, error) in {"int8": (0.95, 0.03), "int4": (0.6, 0.3)}.items():
        quality = found[kind]
        assert quality.text_agreement is not None and quality.text_error is not None
        assert min(quality.token_agreement, quality.text_agreement) > agreement
        assert 0 < max(quality.logit_error, quality.text_error) < error
    assert found["int8"].logit_error < found["int4"].logit_error


def test_the_command_measures_and_writes_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.json"
    arguments = "bench --preset tiny --prompt-rows 20 --frames 6 --batch 1,3 --no-compile --threads 1 --device cpu"
    assert execute([*arguments.split(), "--json", "--profile", str(trace)]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["batch"] for record in records] == [1, 3]
    assert {"frame_ms", "share_of_limit", "host_syncs", "kernels", "bandwidth", "limit_ms"} <= set(records[0])
    assert "traceEvents" in json.loads(trace.read_text())


def test_the_command_plans_without_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", "--preset", "3b", "--dtype", "bfloat16,int8", "--plan", "--json", "--device", "cpu"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["dtype"] for record in records] == ["bfloat16", "int8"]
    assert 10e9 < records[0]["stacks"] + records[0]["depth"] + records[0]["heads"] < 11.1e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dtype int2", "unknown dtype 'int2'"),
        ("--batch 0", "batch must be at least 1"),
        ("--batch four", "batch must be at least 1"),
        ("--preset giant", "no lm preset 'giant'"),
        ("--cpu-clock --threads 2", "the time of one thread"),
    ],
)
def test_mistakes_get_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", "--no-compile", "--device", "cpu", *arguments.split()]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err.splitlines()[-1] and "Traceback" not in err


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BenchError, match="frames must be at least 6"):
        BenchConfig(frames=2)
    with pytest.raises(BenchError, match="a prompt has at least"):
        make_prompt(lm("tiny"), 5, text=True)
