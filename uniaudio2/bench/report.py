"""Measurements as rows of a table."""

from __future__ import annotations

from dataclasses import asdict

from uniaudio2.bench.measure import Measurement
from uniaudio2.bench.plan import FramePlan


def measurement_rows(found: Measurement) -> list[tuple[str, str]]:
    """Names and values of a measurement, as a user reads them."""
    told = asdict(found.quality) if found.quality is not None else {}
    names = ("tokens as in float32", "logit error", "text tokens as in float32", "text logit error")
    quality = [
        (name, f"{100 * share:.1f} %") for name, share in zip(names, told.values(), strict=False) if share is not None
    ]
    return [
        ("weights", found.dtype),
        ("batch", str(found.batch)),
        ("code", "compiled" if found.compiled else "plain"),
        ("frames/s", f"{found.frames_per_s:.1f}"),
        ("ms per frame, median", f"{found.frame_ms:.2f}"),
        ("text tokens/s", f"{found.text_tokens_per_s:.1f}"),
        ("first frame, ms", f"{found.first_frame_ms:.0f}"),
        ("peak memory, MB", f"{found.peak_memory_bytes / 1e6:.0f}"),
        ("kernels per frame", f"{found.kernels:.0f}"),
        ("host syncs per frame", f"{found.host_syncs:.2f}"),
        ("read per frame, MB", f"{found.frame_bytes / 1e6:.1f}"),
        ("bandwidth measured, GB/s", f"{found.bandwidth / 1e9:.1f}"),
        ("limit, ms per frame", f"{found.limit_ms:.2f}"),
        ("share of the limit", f"{100 * found.share_of_limit:.0f} %"),
        *quality,
    ]


def plan_rows(plan: FramePlan, bandwidth: float) -> list[tuple[str, str]]:
    """Names and values of a plan at a bandwidth, bytes/s."""
    return [
        ("experts and backbone, MB", f"{plan.stacks / 1e6:.1f}"),
        ("local decoder, once per codebook, MB", f"{plan.depth / 1e6:.1f}"),
        ("audio heads, MB", f"{plan.heads / 1e6:.1f}"),
        ("keys and values, MB", f"{plan.cache / 1e6:.1f}"),
        ("audio frame, MB", f"{plan.frame / 1e6:.1f}"),
        ("audio frame, ms", f"{1e3 * plan.frame / bandwidth:.2f}"),
        ("text token, MB", f"{plan.text / 1e6:.1f}"),
        ("text token, ms", f"{1e3 * plan.text / bandwidth:.2f}"),
    ]
