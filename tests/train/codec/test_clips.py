"""Batches of clips are functions of the step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train.codec.toy import config, same
from uniaudio2.train.codec import build_stage
from uniaudio2.train.codec.clips import ClipSampler


def test_a_batch_depends_on_seed_and_step_alone(corpus: Path, tmp_path: Path) -> None:
    stage = build_stage(config("reasoning", corpus, tmp_path))
    first = stage.batch(3, 0)  # pyright: ignore
    stage.batch(4, 0)  # pyright: ignore
    assert same(first, stage.batch(3, 0))  # pyright: ignore
    assert not torch.equal(first["audio"][0, 0, :100], stage.batch(5, 0)["audio"][0, 0, :100])  # pyright: ignore


def test_clips_of_a_whole_batch_share_a_padded_length(corpus: Path, tmp_path: Path) -> None:
    batch = build_stage(config("speech_expert", corpus, tmp_path)).batch(0, 0)  # pyright: ignore
    assert batch["audio"].shape[-1] % 9600 == 0
    assert batch["target"].shape[0] == batch["audio"].shape[0]


def test_an_empty_choice_of_clips_says_so(corpus: Path, tmp_path: Path) -> None:
    stage = build_stage(config("speech_expert", corpus, tmp_path))
    with pytest.raises(ValueError, match="no clip"):
        ClipSampler(stage.train_corpus, [], stage.clips)
