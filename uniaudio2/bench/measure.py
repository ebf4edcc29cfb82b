"""How fast frames are made, and what it takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uniaudio2.bench.config import WARM_FRAMES, BenchConfig
from uniaudio2.bench.count import count_operators
from uniaudio2.bench.inputs import build_model, make_request, start_requests
from uniaudio2.bench.plan import measure_bandwidth, plan_frame, wait_for
from uniaudio2.bench.quality import Quality, measure_quality
from uniaudio2.engine import Engine, GenerationRequest
from uniaudio2.lm.quantize import QUANTIZED_TYPES, quantize_weights
from uniaudio2.sequence import SequenceBuilder


@dataclass(frozen=True)
class Measurement:
    """What one setting came to."""

    model: str
    dtype: str
    batch: int
    device: str
    threads: int
    compiled: bool
    cpu_clock: bool
    prompt_rows: int
    frames: int
    frame_ms: float  # median time of a step of the whole batch
    frames_per_s: float  # of all requests together, at that median
    text_tokens_per_s: float  # the same of a text part
    first_frame_ms: float  # from handing in the batch to its first frame, prefill included
    peak_memory_bytes: int
    kernels: float  # per frame: operators that compute something, or compiled loops; on a GPU kernels
    host_syncs: float  # per frame: times the host asks for a value that the device has
    frame_bytes: int  # that a frame reads at the least
    bandwidth: float  # bytes/s measured just before and after
    quality: Quality | None  # None: this is float32

    @property
    def limit_ms(self) -> float:
        """Time to read the bytes of a frame."""
        return 1e3 * self.frame_bytes / self.bandwidth

    @property
    def share_of_limit(self) -> float:
        """How much of the measured bandwidth a frame uses; above 1 only if something stays in a cache."""
        return self.limit_ms / self.frame_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "limit_ms": self.limit_ms, "share_of_limit": self.share_of_limit}


def bench(config: BenchConfig, *, trace: Path | None = None) -> Measurement:
    """Measure one setting.

    Args:
        config: The setting.
        trace: Write a trace of some frames there, for chrome://tracing or Perfetto.

    Raises:
        BenchError: If the setting makes no sense; ConfigError, GenerationError and so on from what it uses.
    """
    if config.compile:
        torch._dynamo.reset()  # code for the setting before is of no use any more
    device = torch.device(config.device)
    model = build_model(config)
    lm = model.config
    quality = None if config.dtype == "float32" else measure_quality(model, config)
    if config.dtype in QUANTIZED_TYPES:
        quantize_weights(model, config.dtype)
    builder = SequenceBuilder(None, lm.audio, text=lm.text)
    engine = Engine(model, builder, max_batch=config.batch, compile=config.compile)
    speak, write = (make_request(config, lm, text=text) for text in (False, True))
    for request in (speak, write):
        _run(engine, request, config, stop_after=WARM_FRAMES)
    before = measure_bandwidth(device, clock=config.clock)
    with peak_memory(device) as peak:
        first, steps = _run(engine, speak, config)
    bandwidth = (before + measure_bandwidth(device, clock=config.clock)) / 2
    frame_s = statistics.median(steps)
    _, text_steps = _run(engine, write, config)
    plain = engine if not config.compile else Engine(model, builder, max_batch=config.batch)
    kernels, syncs = count_operators(engine, plain, speak, config.batch, trace)
    return Measurement(
        model=str(config.model) if config.model is not None else config.preset,
        dtype=config.dtype,
        batch=config.batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        compiled=config.compile,
        cpu_clock=config.cpu_clock,
        prompt_rows=config.prompt_rows,
        frames=config.frames,
        frame_ms=1e3 * frame_s,
        frames_per_s=config.batch / frame_s,
        text_tokens_per_s=config.batch / statistics.median(text_steps),
        first_frame_ms=1e3 * first,
        peak_memory_bytes=peak[0],
        kernels=kernels,
        host_syncs=syncs,
        frame_bytes=_bytes_read(config, engine, speak),
        bandwidth=bandwidth,
        quality=quality,
    )


def _bytes_read(config: BenchConfig, engine: Engine, request: GenerationRequest) -> int:
    """Bytes of an average frame of a request: the engine leaves out the heads of ids that cannot come."""
    phases = request.prompt.phases
    sizes = [engine.window(phase) for phase in phases]
    counts = [request.limit(phase.kind)[1] for phase in phases]
    drawable = sum((stop - start) * count for (start, stop), count in zip(sizes, counts, strict=True)) / sum(counts)
    middle = config.prompt_rows + config.frames // 2
    lm = engine.model.config
    return plan_frame(lm, config.dtype, batch=config.batch, positions=middle, drawable=drawable).frame


def _run(
    engine: Engine, request: GenerationRequest, config: BenchConfig, *, stop_after: int | None = None
) -> tuple[float, list[float]]:
    """Seconds to the first frame and of each frame after it.

    The host looks at the device every ``sync_every`` steps only: times are those of such rounds, divided.
    """
    device, round_size, clock = engine.model.device, engine.sync_every, config.clock
    wait_for(device)
    start = clock()
    session = start_requests(engine, request, config.batch)
    session.step()
    wait_for(device)
    first, times = clock() - start, []
    while session.active and (stop_after is None or len(times) * round_size < stop_after):
        start, done = clock(), 0
        while session.active and done < round_size:
            session.step()
            done += 1
        wait_for(device)
        times.append((clock() - start) / done)
    return first, times


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Yield a list whose only entry is, at the end, the most memory that was in use meanwhile, bytes.

    On a GPU its own; else that of the whole process, since it started where the system cannot reset the mark.
    """
    peak = [0]
    marks = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif marks.exists():
        with suppress(OSError):
            marks.write_text("5")
    yield peak
    if device.type == "cuda":
        peak[0] = torch.cuda.max_memory_allocated(device)
        return
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak[0] = int(line.split()[1]) * 1024
    else:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        peak[0] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# -- counting ------------------------------------------------------------------------------------------------------


def settings(config: BenchConfig, dtypes: list[str], batches: list[int]) -> list[BenchConfig]:
    """Every type with every batch size."""
    return [replace(config, dtype=dtype, batch=batch) for dtype in dtypes for batch in batches]
