"""Weights as they go into a file: in single precision, bfloat16, or 8-bit rows with a scale each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from uniaudio2.errors import CheckpointError
from uniaudio2.storage.load import SCALE_SUFFIX
from uniaudio2.tensors import LazyTensor

MIN_ROW_VALUES = 16  # shorter rows are not worth a scale of their own

SaveDtype = Literal["float32", "bf16", "int8"]


def pack_weights(model: nn.Module, dtype: SaveDtype = "float32") -> dict[str, LazyTensor]:
    """A model's tensors as they go into a file, converted one by one when they are written.

    Args:
        model: The model.
        dtype: See :func:`save_pretrained`.

    Raises:
        CheckpointError: If ``dtype`` is not one of the three.
    """
    tensors = {name: LazyTensor.of(tensor.detach()) for name, tensor in model.state_dict().items()}
    return pack_tensors(tensors, model, dtype)


def pack_tensors(
    tensors: Mapping[str, LazyTensor], model: nn.Module, dtype: SaveDtype | Literal["same"]
) -> dict[str, LazyTensor]:
    """Tensors in another type, converted one by one when they are read.

    Only parameters lose precision; buffers (codebooks, counters) keep their values exactly. With ``int8``, vectors are
    stored in half precision, and so are buffers that it can hold without change.

    Args:
        tensors: The values, by the names of ``model``.
        model: Says which names are parameters, and of what kind of layer; may be on the meta device.
        dtype: ``float32``, ``bf16``, ``int8``, or ``same`` to change nothing.

    Raises:
        CheckpointError: If ``dtype`` is another word.
    """
    if dtype not in ("same", "float32", "bf16", "int8"):
        raise CheckpointError(f"cannot save as {dtype!r}; allowed: float32, bf16, int8")
    axes = {name: _reduced_axes(module, key) for name, module, key in _parameters_with_owner(model)}
    packed: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if dtype == "same" or not tensor.dtype.is_floating_point:
            packed[name] = tensor
        elif name not in axes:
            packed[name] = _pack_exactly(tensor) if dtype == "int8" else tensor
        elif dtype == "int8" and _worth_int8(tensor.shape):
            packed.update(_pack_int8(name, tensor, axes[name]))
        else:
            to = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float16}[dtype]
            if to == torch.float16 and not _fits_half(tensor.read()):
                to = torch.float32
            packed[name] = LazyTensor(tensor.shape, to, lambda t=tensor, to=to: t.read().to("cpu", to))
    return packed


def _parameters_with_owner(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for prefix, module in model.named_modules():
        for key, _ in module.named_parameters(recurse=False):
            yield (f"{prefix}.{key}" if prefix else key), module, key


def _reduced_axes(module: nn.Module, key: str) -> tuple[int, ...] | None:
    """Axes that share one scale: all but the first for a convolution; None leaves the choice to the values."""
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d))
    return (1, 2, 3) if convolution and key == "weight" else None


def _fits_half(value: Tensor) -> bool:
    return bool((value.abs().max() < torch.finfo(torch.float16).max).item()) if value.numel() else True


def _pack_exactly(tensor: LazyTensor) -> LazyTensor:
    """A buffer in half precision where every value survives, else as it is."""
    value = tensor.read()
    if not torch.equal(value.half().to(value.dtype), value):
        return tensor
    return LazyTensor(tensor.shape, torch.float16, lambda: value.half())


def _worth_int8(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and math.prod(shape) >= MIN_ROW_VALUES * max(shape[0], MIN_ROW_VALUES)


def _pack_int8(name: str, tensor: LazyTensor, axes: tuple[int, ...] | None) -> dict[str, LazyTensor]:
    rank = len(tensor.shape)
    if axes is not None:
        reduced = tuple(axis for axis in axes if axis < rank)
    elif rank == 2:
        reduced = (1,)
    else:  # a stack of matrices: the axis whose scales lose less
        value = tensor.read()
        reduced = min(((rank - 1,), (rank - 2,)), key=lambda axis: _int8_error(value, axis))
    scale_shape = tuple(1 if axis in reduced else size for axis, size in enumerate(tensor.shape))
    return {
        name: LazyTensor(tensor.shape, torch.int8, lambda: quantize_rows(tensor.read(), reduced)[0]),
        name + SCALE_SUFFIX: LazyTensor(scale_shape, torch.float16, lambda: quantize_rows(tensor.read(), reduced)[1]),
    }


def _int8_error(tensor: Tensor, axes: tuple[int, ...]) -> float:
    values, scale = quantize_rows(tensor, axes)
    return float((values.float() * scale.float() - tensor.float().cpu()).square().mean())


def quantize_rows(tensor: Tensor, axes: tuple[int, ...] = (1,)) -> tuple[Tensor, Tensor]:
    """Symmetric 8-bit rounding with one half-precision scale per row.

    Args:
        tensor: Any shape, floating point.
        axes: The axes that share a scale.

    Returns:
        ``int8`` values of the same shape, and the scale as float16 with size 1 along ``axes``; their product is at
        most half a scale step away from ``tensor``.
    """
    tensor = tensor.detach().float().cpu()
    peak = tensor.abs().amax(dim=axes, keepdim=True)
    if not bool(torch.isfinite(peak).all()) or float(peak.max()) / 127 > torch.finfo(torch.float16).max:
        raise CheckpointError("cannot save as int8: a weight is not finite or too large; save as float32")
    scale = (peak / 127).half()
    scale = torch.where(scale == 0, torch.full_like(scale, 2.0**-24), scale)
    too_small = scale.float() * 127 < peak * (1 - 2**-9)
    scale = torch.where(too_small, torch.nextafter(scale, torch.full_like(scale, math.inf)), scale)
    values = (tensor / scale.float()).round().clamp(-127, 127).to(torch.int8)
    return values, scale
