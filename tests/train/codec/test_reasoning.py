"""The reasoning stage: what stays when it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.train.codec.toy import config
from uniaudio2.tensors import load_tensors
from uniaudio2.train.codec import build_stage
from uniaudio2.train.stages import run_stage


def test_the_reasoning_encoder_can_learn_on_while_the_codebooks_stay(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("reasoning", corpus, tmp_path / "first"), log=lambda line: None)
    first = tmp_path / "first" / "reasoning" / "export" / "reasoning.safetensors"
    more: dict[str, Any] = {"parts": (str(first),), "freeze_codebooks": True}
    run_stage(config("reasoning", corpus, tmp_path / "second", **more), log=lambda line: None)
    before, after = (
        load_tensors(tmp_path / name / "reasoning" / "export" / "reasoning.safetensors") for name in ("first", "second")
    )
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and not any("quantizer" in key for key in moved)


def test_phones_keep_their_order_when_the_corpus_grows(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("reasoning", corpus, tmp_path), log=lambda line: None)
    export = tmp_path / "reasoning" / "export"
    phones = ["<blank>", "a", "b", "l"]
    assert json.loads((export / "phones.json").read_text()) == ["<blank>", "a", "l"]
    (export / "phones.json").write_text(json.dumps(phones))
    stage: Any = build_stage(
        config("reasoning", corpus, tmp_path, text_decoder=str(export / "text_decoder.safetensors"))
    )
    assert stage.phone_ids == {"<blank>": 0, "a": 1, "b": 2, "l": 3}
