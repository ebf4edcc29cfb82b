"""The autoencoder's stage with critics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.codec.toy import config
from uniaudio2.tensors import load_tensors
from uniaudio2.train.codec import build_stage
from uniaudio2.train.config import TrainingError
from uniaudio2.train.stages import run_stage


def test_critics_count_from_their_step_on(corpus: Path, tmp_path: Path) -> None:
    gradients = []
    for values in ({}, {"critic": 1.0, "critic_after": 1, "critic_width": 4}):
        stage: Any = build_stage(config("autoencoder", corpus, tmp_path, **values))
        for step in (0, 1):
            torch.manual_seed(step)
            stage.model.zero_grad()
            loss, logs = stage.loss(stage.batch(0, 0), step)
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in stage.model["part"].parameters()]))
    plain, later_plain, before, after = gradients
    assert torch.allclose(plain, before) and not torch.allclose(later_plain, after)
    assert {"critics", "deceiving", "features"} <= logs.keys()


def test_critics_are_no_part_of_what_is_exported(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("autoencoder", corpus, tmp_path, critic=0.5, critic_width=4), log=lambda line: None)
    exported = load_tensors(tmp_path / "autoencoder" / "export" / "autoencoder.safetensors")
    assert all(name.startswith("autoencoder.") and "critic" not in name for name in exported)


@pytest.mark.parametrize(
    ("values", "message"), [({"critic": -1.0}, "not be negative"), ({"critic_width": 0}, "at least 1")]
)
def test_odd_settings_are_refused(corpus: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        config("autoencoder", corpus, tmp_path, **values)
