"""Weights of 8 and 4 bits: what the language model's matrices become when memory or its bandwidth is short.

Only weights are quantised; activations keep their type. Every matrix that is read in a frame is replaced (blocks,
heads, projection) and so are the embeddings; norms stay. Knows matrices, not what they are for.

Shapes: M rows of input, I input and O output features, N groups of a row (4 bits), V entries of a table.
"""

from __future__ import annotations

from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.errors import UserError
from uniaudio2.lm.transformer import Embedding, Linear, is_matvec, linear

Model = TypeVar("Model", bound=nn.Module)
QuantizedType = Literal["int8", "int4"]
QUANTIZED_TYPES: tuple[str, ...] = get_args(QuantizedType)

GROUP_SIZES = (64, 32)  # weights of a row that share a 4-bit scale: the largest that divides the row
BLOCK_ROWS = 64  # the 4-bit kernel of a CPU packs this many rows together
_FEW_ROWS = 8  # up to this many input rows the 8-bit kernel is faster than unpacking the matrix


class QuantizationError(UserError):
    """A matrix or type that cannot be quantised."""


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric 8-bit weights with one scale per row.

    The scale is rounded to bfloat16 before the weights are, so that kernels in either type see the same matrix.

    Args:
        weight: (O, I), float.

    Returns:
        int8 (O, I) and scales, bfloat16 (O,).
    """
    wide = weight.detach().float().contiguous()
    scale = (wide.abs().amax(dim=1) / 127).clamp(min=1e-12).bfloat16()
    return (wide / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """4-bit weights with a scale and a midpoint for each group of a row: weight = (value - 8) * scale + midpoint.

    Args:
        weight: (O, I), float.

    Returns:
        Values 0..15, uint8 (O, I), and scales with midpoints, bfloat16 (N, O, 2), the layout of torch's 4-bit kernels.

    Raises:
        QuantizationError: If no group size divides I.
    """
    rows, width = weight.shape
    size = next((size for size in GROUP_SIZES if width % size == 0), None)
    if size is None:
        raise QuantizationError(
            f"int4 needs matrices whose rows divide into groups of {GROUP_SIZES[-1]}, this one has {width}; use int8"
        )
    groups = weight.detach().float().reshape(rows, -1, size)
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    scale = ((high - low) / 15).clamp(min=1e-12).bfloat16()
    middle = (low + scale.float() * 8).bfloat16()
    values = ((groups - middle.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15)
    return values.to(torch.uint8).view(rows, width), torch.stack((scale, middle), dim=-1).transpose(0, 1).contiguous()


class QuantizedLinear(nn.Module):
    """A matrix of 8- or 4-bit weights in the place of a :class:`Linear`.

    Choice: kernels that torch brings. On a CPU 4-bit weights are packed for its kernel, hence they must be quantised
    on the device where they are used; other devices unpack two values per byte.

    Args:
        weight: (O, I), float.
        kind: ``int8`` or ``int4``.
    """

    def __init__(self, weight: Tensor, kind: QuantizedType) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if kind == "int8":
            packed, scale = quantize_int8(weight)
        else:
            values, scale = quantize_int4(F.pad(weight.detach(), (0, 0, 0, -self.out_features % BLOCK_ROWS)))
            packed = _pack(values)
        self.register_buffer("weight", packed)
        self.register_buffer("scale", scale)
        self.weight: Tensor
        self.scale: Tensor

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Weights and scales of output features start..stop-1, of 4-bit weights up to the end of the block.

        Raises:
            QuantizationError: If ``start`` cuts through a block of 4-bit weights.
        """
        if self.weight.dtype == torch.int8:
            return self.weight[start:stop], self.scale[start:stop]
        if start % BLOCK_ROWS:
            raise QuantizationError(f"4-bit rows can be taken from multiples of {BLOCK_ROWS} on, not from {start}")
        stop += -stop % BLOCK_ROWS
        return self.weight[start:stop], self.scale[:, start:stop].contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return product(x, self.weight, self.scale)[..., : self.out_features]

    def dequantize(self) -> Tensor:
        """The matrix that this stands for, (O, I) float32."""
        identity = torch.eye(self.in_features, device=self.weight.device, dtype=torch.float32)
        return self(identity).t()


def _pack(values: Tensor) -> Tensor:
    """Two 4-bit values (O, I) per byte, (O, I / 2): as the CPU's kernel wants them, else the even ones low."""
    if values.device.type == "cpu":
        return torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)
    return values[:, 0::2] | (values[:, 1::2] << 4)


def product(x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """Product with a matrix that may be quantised.

    Args:
        x: (..., I), float.
        weight: Float or int8 (O, I), or 4-bit values packed, uint8 (O, I / 2).
        scale: None, (O,) of 8-bit weights, or (N, O, 2) of 4-bit ones.

    Returns:
        (..., O) in the type of ``x``.
    """
    if scale is None:
        return linear(x, weight)
    if weight.dtype == torch.int8 and is_matvec(x):
        summed = (weight.float() * x.float().reshape(-1)).sum(-1)
        return (summed * scale.float()).to(x.dtype).view(*x.shape[:-1], -1)
    rows = x.reshape(-1, x.shape[-1])
    if x.device.type == "cpu":
        out = _product_on_cpu(rows.bfloat16(), weight, scale)
    elif weight.dtype == torch.int8:
        out = F.linear(rows, weight.to(x.dtype)) * scale.to(x.dtype)
    else:
        values = torch.stack((weight & 15, weight >> 4), dim=-1).view(weight.shape[0], scale.shape[0], -1)
        wide = (values.to(x.dtype) - 8) * scale[..., 0].t()[..., None] + scale[..., 1].t()[..., None]
        out = F.linear(rows, wide.to(x.dtype).flatten(1))
    return out.to(x.dtype).view(*x.shape[:-1], -1)


def _product_on_cpu(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The product of bfloat16 rows (M, I), (M, O)."""
    if weight.dtype == torch.uint8:
        group = rows.shape[1] // scale.shape[0]
        return torch.ops.aten._weight_int4pack_mm_for_cpu(rows, weight, group, scale)
    if rows.shape[0] <= _FEW_ROWS:
        return torch.ops.aten._weight_int8pack_mm(rows, weight, scale)
    return F.linear(rows, weight.bfloat16()) * scale


class QuantizedEmbedding(nn.Module):
    """A table of 8-bit embeddings in the place of an :class:`Embedding`.

    Args:
        weight: (V, D), float; the embeddings come in its type.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.dtype = weight.dtype
        packed, scale = quantize_int8(weight)
        self.register_buffer("weight", packed)
        self.register_buffer("scale", scale)
        self.weight: Tensor
        self.scale: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) to (..., D)."""
        return self.weight[ids].to(self.dtype) * self.scale[ids].to(self.dtype)[..., None]

    def bag(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Sum of the embeddings of ids (..., K) where the mask says so, (..., D)."""
        return (self(ids) * mask[..., None].to(self.dtype)).sum(dim=-2)


def quantize_weights(model: Model, kind: str) -> Model:
    """Replace every :class:`Linear` and :class:`Embedding` of a model, one at a time, in place.

    The local decoder's heads (K, d, A) become K matrices. Embeddings get 8 bits in either case, since only a few of
    their rows are read in a frame.

    Args:
        model: On the device where it will run; for generation only, it cannot be trained any more.
        kind: ``int8`` or ``int4``.

    Returns:
        The same model.

    Raises:
        QuantizationError: If the type is unknown or a matrix does not fit it.
    """
    if kind not in QUANTIZED_TYPES:
        raise QuantizationError(f"unknown type of weights {kind!r}; use one of: {', '.join(QUANTIZED_TYPES)}")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear):
                setattr(module, name, QuantizedLinear(child.weight, kind))  # type: ignore[arg-type]
            elif isinstance(child, Embedding):
                setattr(module, name, QuantizedEmbedding(child.weight))
        heads = getattr(module, "heads", None)
        if isinstance(heads, nn.Parameter):
            del module.heads
            module.heads = nn.ModuleList(QuantizedLinear(head.t(), kind) for head in heads)  # type: ignore[arg-type]
    return model
