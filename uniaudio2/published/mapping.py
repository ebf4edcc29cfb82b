"""Source tensors under the names and in the shapes of the model that they fill."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniaudio2.checkpoint import PARTS
from uniaudio2.published.report import ConversionError, ConversionReport, KeyRecord
from uniaudio2.published.source import Source
from uniaudio2.storage.load import MODEL_ERRORS, SizeLimit, no_model
from uniaudio2.tensors import LazyTensor

NORM_SPELLINGS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def build_meta(part: str, config: Any, source: Path, stored: Mapping[str, LazyTensor]) -> nn.Module:
    """A part's model on the meta device: names and shapes without memory.

    Args:
        part: ``lm`` or ``codec``.
        config: Its config.
        source: The file that the sizes come from, for error messages.
        stored: Its tensors, by which absurd sizes are found out.

    Raises:
        ConversionError: If the values do not make a model.
    """
    return on_meta(lambda: PARTS[part].model_class(config), Source(source, "other", stored, {}))


def on_meta(make: Callable[[], nn.Module], source: Source) -> nn.Module:
    """Run a constructor on the meta device, with errors that name the file its sizes come from."""
    try:
        with SizeLimit.of(source.tensors, values=False), torch.device("meta"):
            return make()
    except ImportError as error:
        raise ConversionError(str(error)) from None
    except MODEL_ERRORS as error:
        raise ConversionError(f"{source.path}: {no_model(error)}") from error


def collect(
    sources: Sequence[tuple[Source, str, Callable[[str], str | None]]], model: nn.Module, report: ConversionReport
) -> dict[str, LazyTensor]:
    """Map every source tensor to a name of the model, fold weight norms, and note what became of each.

    Args:
        sources: Each with a prefix to put before its keys when they are looked up, and the function from published
            key to name here (None: not needed, KeyError: unknown).
        model: On the meta device.
        report: Is filled.
    """
    expected = model.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    by_name: dict[str, LazyTensor] = {}
    for source, prefix, rename in sources:
        file = source.path.name
        report.records += [KeyRecord(file, key, "unused", None, why) for key, why in source.dropped.items()]
        for key, tensor in source.tensors.items():
            try:
                name = rename(prefix + key)
            except (KeyError, ValueError):
                _note_unknown(file, key, report)
                continue
            if name is None:
                report.records.append(KeyRecord(file, key, "unused", None, "computed or not used here"))
                continue
            report.records.append(KeyRecord(file, key, "used" if name == key else "renamed", name))
            if name in by_name and not _same(by_name[name], tensor):
                report.unexplained.append(f"{key} (another value of '{name}')")
            by_name[name] = tensor
    named = _fold(by_name, wanted, report)
    finished: dict[str, LazyTensor] = {}
    for name, shape in wanted.items():
        tensor = named.pop(name, None)
        if tensor is None:
            report.missing.append(name)
        elif (fitting := _reshape(name, tensor, shape)) is None:
            report.wrong_shape.append(f"{name} is {list(tensor.shape)}, needs {list(shape)}")
        elif fitting.dtype.is_floating_point != expected[name].is_floating_point():
            report.wrong_type.append(f"{name} holds {fitting.dtype}, needs {expected[name].dtype}")
        else:
            finished[name] = fitting
    report.unexplained += sorted(named)
    return finished


def _note_unknown(file: str, key: str, report: ConversionReport) -> None:
    """A key that no part here knows: training leftovers are explained, anything else is not."""
    leftover = re.match(r"audio_thinking\.(?!cls_token|encoder_|semantic_merge|reasoning_vq|down_sampling)", key)
    if leftover:
        report.records.append(KeyRecord(file, key, "unused", None, "language model of the codec's training"))
    else:
        report.unexplained.append(f"{file}: {key}")


def _same(first: LazyTensor, second: LazyTensor) -> bool:
    return first.shape == second.shape and torch.equal(first.read(), second.read())


def _fold(
    tensors: Mapping[str, LazyTensor], wanted: Mapping[str, Any], report: ConversionReport
) -> dict[str, LazyTensor]:
    """Weight-normalised pairs as the model spells them: either spelling, or folded into the plain weight."""
    folded: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        ending = next((e for pair in NORM_SPELLINGS for e in pair if name.endswith(f".{e}")), None)
        if ending is None or name in wanted:
            folded[name] = tensor
            continue
        stem = name.removesuffix(ending)
        which = next(pair.index(ending) for pair in NORM_SPELLINGS if ending in pair)
        other = next(stem + pair[1 - which] for pair in NORM_SPELLINGS if ending in pair)
        respelled = next((stem + pair[which] for pair in NORM_SPELLINGS if stem + pair[which] in wanted), None)
        if respelled is not None:
            folded[respelled] = tensor
        elif other not in tensors:
            report.unexplained.append(f"{name} (the other half of its weight norm is missing)")
        elif which == 1:
            folded[f"{stem}weight"] = _folded(tensors[other], tensor)
    return folded


def _folded(g: LazyTensor, v: LazyTensor) -> LazyTensor:
    from uniaudio2.codec.autoencoder import apply_weight_norm

    return LazyTensor(v.shape, v.dtype, lambda: apply_weight_norm(g.read(), v.read()).to(v.dtype))


def _reshape(name: str, tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor | None:
    """The tensor in the model's shape, if only axes of size 1 differ."""
    if name.endswith(".initialised"):
        return LazyTensor(shape, torch.bool, lambda: _initialised(name, tensor).reshape(shape))
    if tensor.shape == shape:
        return tensor
    if tensor.shape and tuple(n for n in tensor.shape if n != 1) == tuple(n for n in shape if n != 1):
        return LazyTensor(shape, tensor.dtype, lambda: tensor.read().reshape(shape))
    return None


def _initialised(name: str, tensor: LazyTensor) -> Tensor:
    value = tensor.read()
    if not bool(value.bool().all()):
        raise ConversionError(f"{name}: this codebook was never initialised; the file holds no trained codec")
    return value.bool()
