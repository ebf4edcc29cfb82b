"""Training checkpoints on disk: atomic folders of safetensors and JSON, newest found first.

A checkpoint is a folder ``step-00001200`` with ``model.safetensors``, ``ema.safetensors`` (with averaging),
``optimizer.safetensors`` and ``state.json``. It is written under a temporary name and renamed, so that an
interrupted save leaves the previous one untouched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniaudio2.errors import CheckpointError
from uniaudio2.files import write_text
from uniaudio2.tensors import TensorFileError, load_tensors, save_tensors

_STEP_NAME = re.compile(r"step-(\d+)$")


def mean_state(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over models that were trained from one start.

    Source: model soups, arXiv 2203.05482: runs that differ in their seed alone end in one basin, and their mean does at
    least as well as each. What is not a floating point number is the first one's.
    """
    return {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def write_json(value: Any, path: Path) -> None:
    """Write JSON; the file is the old one or the whole new one."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str]
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """The optimiser's state by parameter name, as (tensors ``KEY/NAME``, numbers by name and key)."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, float]] = {}
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{key}/{name}"] = value
            else:
                numbers.setdefault(name, {})[key] = value
    return tensors, numbers


def state_keys(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, list[str]]:
    """Which state the optimiser keeps of every trained parameter; none of one that never had a gradient."""
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    return {names[id(p)]: sorted(optimizer.state.get(p, {})) for p in trained}


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Mapping[str, float]],
    trained: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Put back what ``optimizer_tensors`` returned.

    Args:
        optimizer: Fresh.
        parameters: What it trains, by name.
        tensors: State tensors.
        numbers: State numbers.
        trained: What ``state_keys`` said when they were saved; None in checkpoints that did not note it.

    Raises:
        CheckpointError: If other parameters are trained now, or some of the state is missing.
    """
    trained = trained if trained is not None else dict.fromkeys(parameters, ())
    for name in sorted(trained.keys() ^ parameters.keys()):
        before, now = ("trained", "does not") if name in trained else ("did not train", "does")
        raise CheckpointError(f"the checkpoint {before} {name!r}, this stage {now}; use another out_dir")
    for name, keys in trained.items():
        missing = [key for key in keys if f"{key}/{name}" not in tensors and key not in numbers.get(name, {})]
        if missing:
            raise CheckpointError(
                f"the checkpoint lacks the optimiser's {missing[0]!r} of {name!r}; remove its folder to resume from "
                "the one before"
            )
    for full, value in tensors.items():
        key, name = full.split("/", 1)
        if name not in parameters:
            raise CheckpointError(f"the checkpoint trained {name!r}, this stage does not; use another out_dir")
        parameter = parameters[name]
        device = "cpu" if key == "step" and value.ndim == 0 and parameter.device.type == "cpu" else parameter.device
        optimizer.state[parameter][key] = value.to(device).clone()
    for name, values in numbers.items():
        optimizer.state[parameters[name]].update(values)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Complete checkpoints under ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(m.group(1)), p) for p in folder.iterdir() if (m := _STEP_NAME.match(p.name)) and p.is_dir()]
    return [path for _, path in sorted(found)]


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write ``step-STEP`` under ``folder`` and remove all but the newest ``keep``.

    Args:
        folder: Where the checkpoints of the run lie.
        step: Number of optimiser steps done.
        tensors: File name without suffix → tensors.
        state: Written as ``state.json``; floats survive exactly.
        keep: Checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    temporary = folder / f"step-{step:08d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name, part in tensors.items():
            save_tensors(temporary / f"{name}.safetensors", part)
        write_json(dict(state), temporary / "state.json")
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in checkpoint_folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def amend_checkpoint(folder: Path, step: int, **changes: Any) -> None:
    """Change entries of the state of checkpoint ``step`` under ``folder``, if it is there."""
    path = folder / f"step-{step:08d}" / "state.json"
    if path.is_file():
        write_json({**json.loads(path.read_text(encoding="utf-8")), **changes}, path)


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint folder.

    Raises:
        CheckpointError: If the file is missing or broken.
    """
    try:
        return json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def identity_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Trainer.identity`` was when a checkpoint was written; checkpoints of format 1 know a part of it."""
    return state.get("identity") or {f"train.{key}": value for key, value in state["config"].items()}


def read_tensors(path: Path, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint folder by the file names ``names``, without suffix.

    Raises:
        CheckpointError: If a file is missing or broken.
    """
    try:
        return {name: load_tensors(path / f"{name}.safetensors") for name in names}
    except TensorFileError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read ({error}); remove that folder to resume from the one before")
