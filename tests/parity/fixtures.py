"""Finds and reads the parity fixtures: tensors that an independent implementation produced, with their tolerances.

A fixture is ``NAME.safetensors`` + ``NAME.json``. Keys ``weights/<published key>`` are the state of the published
module, everything else is input or output. Sizes and tolerances come from the JSON, so that a folder of the same
layout with other seeds and sizes works as well.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parent.parent


@dataclass(frozen=True)
class Fixture:
    """One fixture: ``info`` is its JSON, ``weights`` the published state, ``tensors`` inputs and outputs."""

    name: str
    info: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below ``prefix/``, with the prefix removed."""
        head = prefix.rstrip("/") + "/"
        return {key.removeprefix(head): value for key, value in self.tensors.items() if key.startswith(head)}

    @property
    def tolerances(self) -> dict[str, Any]:
        value = self.info.get("tolerances", {})
        return value if isinstance(value, dict) else {"all": value}


def fixture_folders() -> list[Path]:
    """Folders that are searched, first match wins: ``$UNIAUDIO2_FIXTURES`` alone, else shared, else the kept copies."""
    chosen = os.environ.get("UNIAUDIO2_FIXTURES")
    if chosen:
        return [Path(chosen)]
    shared = _REPOSITORY.parent / "shared" / "reference" / "fixtures"
    return [folder for folder in (shared, _HERE / "data") if folder.is_dir()]


def find_fixture(filename: str) -> Path | None:
    """Path of a fixture file, or None when no searched folder holds it."""
    for folder in fixture_folders():
        if (folder / filename).is_file():
            return folder / filename
    return None


def load_json(name: str) -> dict[str, Any]:
    """Read ``NAME.json``; skips the calling test with a reason when it is not there."""
    path = find_fixture(f"{name}.json")
    if path is None:
        searched = ", ".join(str(folder) for folder in fixture_folders()) or "no folder"
        pytest.skip(f"fixture {name} is not in {searched}; set UNIAUDIO2_FIXTURES to a folder that holds it")
    return json.loads(path.read_text(encoding="utf-8"))


def load_fixture(name: str) -> Fixture:
    """Read a fixture; skips the calling test with a reason when it is not there."""
    info = load_json(name)
    path = find_fixture(f"{name}.safetensors")
    if path is None:
        pytest.skip(f"fixture {name} has a JSON file but no safetensors file")
    weights: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            if key.startswith("weights/"):
                weights[key.removeprefix("weights/")] = file.get_tensor(key)
            else:
                tensors[key] = file.get_tensor(key)
    return Fixture(name, info, weights, tensors)


def assert_close(actual: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0, what: str = "tensor") -> None:
    """Shapes equal and values within the tolerance; the message names the largest difference."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if actual.numel() == 0:
        return
    difference = (actual.double() - expected.double()).abs()
    excess = difference - rtol * expected.double().abs()
    assert torch.all(excess <= atol), f"{what}: largest difference {difference.max().item():.3g} (atol {atol})"
