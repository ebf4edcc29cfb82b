"""Critics of waveforms: they learn to tell, their maker learns from them, and neither moves the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from uniaudio2.codec.critic import Critics


def small() -> Critics:
    torch.manual_seed(0)
    return Critics(width=4, periods=(2, 3), sizes=(128,))


def waves(seed: int, length: int = 1200) -> Tensor:
    return 0.3 * torch.randn(4, 1, length, generator=torch.Generator().manual_seed(seed))


def test_each_side_learns_from_its_own_loss_alone() -> None:
    critics, scale = small(), nn.Parameter(torch.tensor(0.5))
    own, deceiving, features = critics.losses(scale * waves(0), waves(1))
    (deceiving + features).backward(retain_graph=True)
    assert scale.grad is not None and float(scale.grad.abs()) > 0
    assert all(p.grad is None for p in critics.parameters())
    scale.grad = None
    own.backward()
    assert scale.grad is None and all(p.grad is not None for p in critics.parameters())


def test_critics_learn_to_tell_blurred_from_real() -> None:
    critics = small()
    optimizer = torch.optim.Adam(critics.parameters(), 5e-3)
    losses = []
    for step in range(80):
        real = waves(step)
        blurred = torch.nn.functional.avg_pool1d(real, 5, 1, 2)
        own, deceiving, _ = critics.losses(blurred, real)
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
        losses.append((float(own.detach()), float(deceiving.detach())))
    assert losses[-1][0] < 0.3 < losses[0][0]
    assert losses[-1][1] > 0.5  # the blurred is not taken for real
    _, same, apart = critics.losses(waves(99), waves(99))
    assert float(same) < losses[-1][1] and float(apart) == 0


@pytest.mark.parametrize("length", [1, 100, 1201])
def test_any_length(length: int) -> None:
    assert all(bool(value.isfinite()) for value in small().losses(waves(0, length), waves(1, length)))
