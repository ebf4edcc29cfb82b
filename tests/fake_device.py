"""A second device that is not there: real numbers, computed on the CPU, under another device's name.

Tensors on it refuse to meet tensors that were left on the CPU, as a real accelerator's would, and to be of float64, as
those of an Apple GPU do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")  # one that torch lets tensors claim, and lets gradients flow on, without hardware


class Elsewhere(torch.Tensor):
    """A tensor that says it is on `DEVICE`; ``inner`` holds the numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )
        self.inner = inner
        return self

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met."""


SCALARS = {getattr(Tensor, name) for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__")}
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
# An accelerator takes indices from the CPU, and small descriptions of shapes.
CPU_INDICES = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the numbers; what comes out is on `DEVICE` if what went in was, or as ``device`` says."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [leaf for leaf in leaves if not isinstance(leaf, Elsewhere)]
    away = len(leaves) > len(here)
    strangers = [leaf for leaf in here if leaf.dim() > 0]
    assert not any(leaf.is_meta for leaf in here), f"{func}: a tensor was made where this device does not look"
    if away and strangers and func not in MOVES and func not in CPU_INDICES:
        raise MixedDevicesError(
            f"{func} got tensors of two devices: {[tuple(leaf.shape) for leaf in strangers]} is on the CPU"
        )
    target = kwargs.get("device")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        away = torch.device(target).type == DEVICE.type
    if func is torch.ops.aten._local_scalar_dense.default:
        away = False
    if func is torch.ops.aten.copy_.default:
        away = isinstance(args[0], Elsewhere)
    unwrapped_args, unwrapped_kwargs = tree_map_only(Elsewhere, lambda t: t.inner, (args, kwargs))
    result = func(*unwrapped_args, **unwrapped_kwargs)
    if away and any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(result)):
        raise TypeError(f"{func} made float64, which an Apple GPU does not have")
    known = {id(t.inner): t for t in leaves if isinstance(t, Elsewhere)}  # in-place operators give back what they got
    return tree_map_only(Tensor, lambda t: known[id(t)] if id(t) in known else Elsewhere(t), result) if away else result


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What happens below the operators that `_Operators` sees: ``torch.tensor``, and numbers that are read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.__getitem__ and isinstance(args[0], Elsewhere):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(part) if isinstance(part, list) else part for part in index))
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(DEVICE)
        if func in SCALARS and isinstance(args[0], Elsewhere):
            return func(args[0].inner, *args[1:], **kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def fake_device() -> Iterator[torch.device]:
    """Within it `DEVICE` is there."""
    with contextlib.ExitStack() as stack:
        for name in ("autocast", "is_autocast_enabled"):  # which know no such device
            stack.enter_context(mock.patch(f"torch.{name}", _on_cpu(getattr(torch, name))))
        stack.enter_context(_Functions())
        stack.enter_context(_Operators())
        yield DEVICE


def _on_cpu(function: Any) -> Any:
    """A function of a device's type that knows nothing of `DEVICE`."""
    return lambda *args, **kwargs: function(*("cpu" if arg == DEVICE.type else arg for arg in args), **kwargs)
