"""How fast the engine generates with one language model, and how near that is to what memory allows.

Weights may be random: times do not depend on them. Everything runs through :class:`Engine`, as in real use. What each
figure means is told in ``docs/use/speed.md``.
"""

from uniaudio2.bench.config import DTYPES, PROFILED_FRAMES, WARM_FRAMES, BenchConfig, BenchError
from uniaudio2.bench.count import SyncCounter
from uniaudio2.bench.inputs import build_model, make_prompt, make_request
from uniaudio2.bench.measure import Measurement, bench, peak_memory, settings
from uniaudio2.bench.plan import FramePlan, measure_bandwidth, plan_frame
from uniaudio2.bench.quality import Quality, measure_quality
from uniaudio2.bench.report import measurement_rows, plan_rows

__all__ = [
    "DTYPES",
    "PROFILED_FRAMES",
    "WARM_FRAMES",
    "BenchConfig",
    "BenchError",
    "FramePlan",
    "Measurement",
    "Quality",
    "SyncCounter",
    "bench",
    "build_model",
    "make_prompt",
    "make_request",
    "measure_bandwidth",
    "measure_quality",
    "measurement_rows",
    "peak_memory",
    "plan_frame",
    "plan_rows",
    "settings",
]
