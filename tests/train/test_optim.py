from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from uniaudio2.train.optim import (
    EMA,
    Muon,
    _shared_out,
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    orthogonal,
    parameter_groups,
    set_learning_rate,
)


def test_schedule_rises_stays_and_falls() -> None:
    options = dict(steps=100, warmup_steps=10, decay_fraction=0.3, min_lr_ratio=0.1)
    factors = [learning_rate_factor(step, **options) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:70] == [1.0] * 61
    assert all(a > b for a, b in itertools.pairwise(factors[69:]))
    assert 0.1 < factors[-1] < 0.15


def test_a_shorter_run_has_the_same_beginning() -> None:
    long = [learning_rate_factor(s, steps=1000, warmup_steps=10, decay_fraction=0.2) for s in range(80)]
    short = [learning_rate_factor(s, steps=100, warmup_steps=10, decay_fraction=0.2) for s in range(80)]
    assert long == short


def test_vectors_are_not_decayed_and_frozen_parameters_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    groups = parameter_groups(model.parameters(), weight_decay=0.1)
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (3, 0.0)]
    with pytest.raises(ValueError, match="no parameter to train"):
        parameter_groups(model[2].parameters(), weight_decay=0.1)


def test_every_given_group_is_clipped_by_itself() -> None:
    small, large = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    optimizer = make_optimizer([{"params": [small], "lr_scale": 0.5}, {"params": [large]}], lr=1.0)
    small.grad, large.grad = torch.full((4,), 0.1), torch.full((4,), 100.0)
    assert float(clip_gradients(optimizer, 1.0)) == pytest.approx(200.0)
    assert torch.equal(small.grad, torch.full((4,), 0.1))
    assert float(large.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_muon_trains_hidden_matrices_with_orthogonal_updates_and_adamw_the_rest() -> None:
    torch.manual_seed(0)
    hidden, head = nn.Linear(32, 64), nn.Linear(64, 5)
    before = hidden.weight.detach().clone()
    alike = nn.Linear(64, 5)
    alike.load_state_dict(head.state_dict())
    groups = [{"params": [*hidden.parameters(), *head.parameters()], "hidden": [hidden.weight], "lr_scale": 0.5}]
    optimizer = make_optimizer(groups, lr=1.0, weight_decay=0.0, muon_lr=2.0)
    plain = make_optimizer([{"params": alike.parameters(), "lr_scale": 0.5}], lr=1.0, weight_decay=0.0)
    for one in (optimizer, plain):
        set_learning_rate(one, 0.01)
    for layer in (hidden, head):
        for parameter in layer.parameters():
            parameter.grad = torch.randn_like(parameter)
    for to, source in zip(alike.parameters(), head.parameters(), strict=True):
        to.grad = source.grad.clone()
    optimizer.step()
    plain.step()
    assert torch.equal(head.weight, alike.weight) and torch.equal(head.bias, alike.bias)
    singular = torch.linalg.svdvals(hidden.weight.detach() - before) / (0.01 * 0.2 * 64**0.5)  # 0.5 x 2 x 0.01
    assert float(singular.min()) > 0.6 and float(singular.max()) < 1.3
    assert set(optimizer.state[hidden.weight]) == {"momentum_buffer"} and "exp_avg" in optimizer.state[head.weight]
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in (*hidden.parameters(), *head.parameters()))
    with pytest.raises(ValueError, match="names no hidden matrices"):
        make_optimizer(head.parameters(), lr=1.0, muon_lr=2.0)


def test_muon_is_torchs_but_for_the_precision_of_its_products() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((24, 48), (24, 48), (48, 16))]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    one = Muon([{"params": ours, "weight_decay": 0.03}], lr=0.02)
    other = torch.optim.Muon([{"params": theirs, "weight_decay": 0.03}], lr=0.02, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for mine, his in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            his.grad = mine.grad.clone()
        one.step()
        other.step()
    for mine, his in zip(ours, theirs, strict=True):
        assert torch.allclose(one.state[mine]["momentum_buffer"], other.state[his]["momentum_buffer"])
        assert float((mine - his).detach().abs().max()) < 0.01 * float(his.detach().abs().max())


def test_orthogonal_is_orthogonal_on_every_shape() -> None:
    for shape in ((3, 8, 20), (2, 20, 8), (1, 6, 6)):
        singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert float(singular.min()) > 0.5 and float(singular.max()) < 1.3


def test_average_follows_its_formula_and_is_swapped_in_and_out() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    ema = EMA({"p": parameter}, 0.5)
    expected = 0.0
    for step in range(5):
        with torch.no_grad():
            parameter += 1.0
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter[0].item()
    assert float(ema.average["p"][0]) == pytest.approx(expected)
    with ema.swapped():
        assert parameter[0].item() == pytest.approx(expected)
    assert parameter[0].item() == 5.0
    with pytest.raises(ValueError, match="do not fit"):
        ema.load({"q": torch.zeros(2)})


@pytest.mark.parametrize("count", [1, 2, 7])
def test_processes_that_train_together_share_the_matrices_out(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    matrices, size = torch.randn(count, 6, 4), 3
    parts: list[Tensor] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: size)
    monkeypatch.setattr(dist, "all_reduce", parts.append)
    for rank in range(size):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        _shared_out(matrices)
    done = [sum(bool(matrix.any()) for matrix in part) for part in parts]
    assert sum(done) == count and max(done) <= -(-count // size)
    torch.testing.assert_close(torch.stack(parts).sum(0), orthogonal(matrices))
