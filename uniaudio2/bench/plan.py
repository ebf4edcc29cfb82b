"""What a frame must read from memory, and how fast memory is: the limit of generation with one request."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.lm.quantize import GROUP_SIZES, QUANTIZED_TYPES


@dataclass(frozen=True)
class FramePlan:
    """Bytes of weights and caches that one step of a batch has to read, by part."""

    stacks: int  # understanding expert, backbone, generation expert: once
    depth: int  # blocks and projection of the local decoder: once per codebook
    heads: int  # audio heads
    cache: int  # keys and values of all positions of all rows
    text: int  # backbone and text head: what a step of a text part reads instead, its cache included

    @property
    def frame(self) -> int:
        """Bytes of an audio frame."""
        return self.stacks + self.depth + self.heads + self.cache


def plan_frame(
    config: LMConfig, dtype: str, *, batch: int = 1, positions: int = 0, drawable: float | None = None
) -> FramePlan:
    """Count what a step reads.

    The local decoder is read once per codebook, since it does not stay in any cache from one to the next. Rows of
    embeddings are left out: a few kilobytes.

    Args:
        config: Sizes.
        dtype: Of the weights.
        batch: Rows; each has its own keys and values.
        positions: Of the sequence so far.
        drawable: Ids per codebook whose logits are worked out, on average; None: all of them.
    """
    with torch.device("meta"):
        model = AudioLM(config)
    codebooks, size = config.audio.num_codebooks, config.audio.size

    def weights(module: torch.nn.Module) -> float:
        """Bytes of a module's parameters."""
        return sum(_stored_bytes(p, dtype) for p in module.parameters())

    backbone = weights(model.backbone)
    heads = _stored_bytes(model.depth.heads.flatten(0, 1), dtype)  # type: ignore[operator, union-attr]
    per_value = 2 if dtype == "bfloat16" else 4
    cache = {
        name: 2 * stack.num_layers * stack.num_kv_groups * stack.head_dim * per_value * positions * batch
        for name, stack in (("u", config.understanding), ("b", config.backbone), ("g", config.generation))
    }
    return FramePlan(
        stacks=round(weights(model.understanding) + backbone + weights(model.generation)),
        depth=round(codebooks * (weights(model.depth.transformer) + weights(model.depth.projection))),
        heads=round(heads * (1.0 if drawable is None else drawable / size)),
        cache=sum(cache.values()),
        text=round(backbone + weights(model.text_head)) + cache["b"],
    )


def _stored_bytes(parameter: Tensor, dtype: str) -> float:
    """Bytes of a matrix (or vector, which is never quantised) in a type, scales included."""
    if dtype == "float32" or (parameter.ndim < 2 and dtype in QUANTIZED_TYPES):
        return parameter.numel() * 4
    if dtype == "bfloat16":
        return parameter.numel() * 2
    if dtype == "int8":
        return parameter.numel() + 2 * parameter.shape[0]
    return parameter.numel() * (0.5 + 4 / GROUP_SIZES[0])


def measure_bandwidth(
    device: torch.device, repeats: int = 9, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Bytes per second of a float32 matrix-vector product, the median of some; on a GPU the better of it and a copy."""
    width = 8192 if device.type == "cpu" else 16384
    matrix, vector = torch.ones(width, width, device=device), torch.ones(width, device=device)
    size = matrix.numel() * matrix.element_size()
    rate = size / statistics.median(_times(lambda: torch.mv(matrix, vector), device, repeats, clock))
    if device.type != "cpu":
        target = torch.empty_like(matrix)
        rate = max(rate, 2 * size / statistics.median(_times(lambda: target.copy_(matrix), device, repeats, clock)))
    return rate


def _times(action: Callable[[], object], device: torch.device, repeats: int, clock: Callable[[], float]) -> list[float]:
    action()
    times = []
    for _ in range(repeats):
        wait_for(device)
        start = clock()
        action()
        wait_for(device)
        times.append(clock() - start)
    return times


def wait_for(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- model and requests --------------------------------------------------------------------------------------------
