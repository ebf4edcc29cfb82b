"""The reconstruction stage: what is frozen does not move."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.train.codec.toy import config, same
from uniaudio2.tensors import load_tensors
from uniaudio2.train.codec import build_stage
from uniaudio2.train.stages import run_stage


def test_frozen_parts_do_not_move(corpus: Path, tmp_path: Path) -> None:
    stage = build_stage(config("reconstruction", corpus, tmp_path))
    before = {k: v.clone() for k, v in stage.codec.reasoning.state_dict().items()}  # pyright: ignore
    stage.model.train()
    loss, _ = stage.loss(stage.batch(0, 0), 0)  # pyright: ignore
    loss.backward()
    assert all(p.grad is None for p in stage.codec.reasoning.parameters())  # pyright: ignore
    assert same(before, stage.codec.reasoning.state_dict())  # pyright: ignore


def test_the_flow_decoder_can_learn_on_while_the_codes_stay(corpus: Path, tmp_path: Path) -> None:
    parts = []
    for name, more in (("first", {}), ("second", {"freeze_codes": True})):
        run_stage(config("reconstruction", corpus, tmp_path / name, parts=tuple(parts), **more), log=lambda line: None)
        parts = [str(tmp_path / name / "reconstruction" / "export" / "reconstruction.safetensors")]
    first, second = (
        load_tensors(tmp_path / name / "reconstruction" / "export" / "reconstruction.safetensors")
        for name in ("first", "second")
    )
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])}
    assert moved == {"decoder"}
