"""Losses: hand-made values, normalisation, choice of targets."""

from __future__ import annotations

import math

import pytest
import torch

from uniaudio2.lm.loss import LMLossConfig, audio_cross_entropy, choose_audio_targets, text_cross_entropy


def test_text_loss_counts_masked_in_positions_only() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 2, 1] = 50.0
    labels = torch.tensor([[0, 3, 1]])
    loss, accuracy = text_cross_entropy(logits, labels, torch.tensor([[True, False, True]]))
    assert math.isclose(float(loss), math.log(4) / 2, rel_tol=1e-5)
    assert float(accuracy) == 1.0
    nothing, _ = text_cross_entropy(logits, labels, torch.zeros(1, 3))
    assert float(nothing) == 0.0


def test_audio_normalisation_by_rows_or_targets() -> None:
    logits, labels = torch.zeros(4, 2, 5), torch.zeros(4, 2, dtype=torch.int64)
    mask = torch.tensor([[1, 1], [0, 0], [0, 0], [0, 0]])
    rows = audio_cross_entropy(logits, labels, mask, (1.0, 0.5), normalisation="rows")
    targets = audio_cross_entropy(logits, labels, mask, (1.0, 0.5), normalisation="targets")
    assert torch.allclose(targets[1], torch.full((2,), math.log(5)))
    assert torch.allclose(rows[1], targets[1] / 4)
    assert math.isclose(float(targets[0]), 1.5 * math.log(5) / 2, rel_tol=1e-5)
    with pytest.raises(ValueError, match="3 codebook weights for 2"):
        audio_cross_entropy(logits, labels, mask, (1.0, 1.0, 1.0))


def test_choice_of_targets_is_a_seeded_part() -> None:
    loss_mask = torch.zeros(2, 30, 9, dtype=torch.bool)
    loss_mask[:, 10:, :8] = True
    whole = choose_audio_targets(loss_mask)
    assert whole.shape == (40,) and int(whole[0]) == 9  # position 9 predicts row 10
    part = choose_audio_targets(loss_mask, 0.25, torch.Generator().manual_seed(1))
    assert part.shape == (10,) and set(part.tolist()) <= set(whole.tolist())
    assert torch.equal(part, choose_audio_targets(loss_mask, 0.25, torch.Generator().manual_seed(1)))
    assert not torch.equal(part, choose_audio_targets(loss_mask, 0.25, torch.Generator().manual_seed(2)))
    assert choose_audio_targets(torch.zeros(1, 5, 9, dtype=torch.bool), 0.5).numel() == 0


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="frame_fraction"):
        LMLossConfig(frame_fraction=0.0)
    with pytest.raises(ValueError, match="reasoning_share"):
        LMLossConfig(reasoning_share=1.5)
    with pytest.raises(ValueError, match="codebooks"):
        LMLossConfig(codebooks=())
