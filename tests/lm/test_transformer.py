"""The block: causality, cache against whole sequence, grouped heads, rotary table, probes."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.lm.transformer import AttentionProbe, Block, RMSNorm, RopeConfig, StackConfig, Transformer, rope_table

ROPE = RopeConfig(factor=None, base=10000.0)
SIZES = StackConfig(num_layers=2, width=32, num_heads=4, num_kv_groups=2, mlp_width=48)


def stack(sizes: StackConfig = SIZES) -> Transformer:
    torch.manual_seed(1)
    return Transformer(sizes, ROPE).eval()


@torch.no_grad()
def test_a_later_input_cannot_change_an_earlier_output() -> None:
    x = torch.randn(2, 7, 32)
    changed = x.clone()
    changed[:, 5] += 1.0
    before, after = stack()(x)[0], stack()(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_cached_steps_equal_the_whole_sequence_at_different_positions(groups: int) -> None:
    model = stack(StackConfig(2, 32, 4, groups, 48))
    x = torch.randn(3, 9, 32)
    whole, _ = model(x)
    cache = model.new_cache(3, 12)
    lengths = [2, 5, 4]
    positions = torch.arange(5).expand(3, -1)
    model.step(x[:, :5], cache, positions, length=5)  # padded prefill: what lies beyond a row's length is garbage
    for step in range(4):
        now = torch.tensor([length + step for length in lengths])
        inputs = x[torch.arange(3), now][:, None]
        out = model.step(inputs, cache, now[:, None], length=int(now.max()) + 1)
        for row in range(3):
            assert torch.allclose(out[row, 0], whole[row, now[row]], atol=1e-5)


@torch.no_grad()
def test_cache_rows_can_be_chosen_and_kept() -> None:
    model, x = stack(), torch.randn(1, 4, 32)
    whole, _ = model(x)
    cache = model.new_cache(3, 4)
    model.step(x[:, :3], cache.pick([2]), torch.arange(3)[None], length=3)
    cache.resize(torch.tensor([2]), 8)
    assert cache.batch_size == 1 and cache.max_positions == 8
    out = model.step(x[:, 3:], cache, torch.tensor([[3]]), length=4, exact=True)
    assert torch.allclose(out[0, 0], whole[0, 3], atol=1e-5)
    with pytest.raises(ValueError, match="larger cache"):
        model.step(x[:, 3:], cache, torch.tensor([[8]]), length=9)


@torch.no_grad()
@pytest.mark.parametrize("slots", [[0, 1, 2], [1, 2, 3], [0, 2, 3, 5], [4, 1, 0]])
def test_any_slots_of_a_cache_serve_without_copies(slots: list[int]) -> None:
    model = stack()
    x = torch.randn(len(slots), 6, 32)
    whole, _ = model(x)
    cache = model.new_cache(6, 8)
    view = cache.pick(slots)
    assert view.batch_size == len(slots) and view.max_positions == 8
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(float("nan"))  # nothing but what is written may be read
    model.step(x[:, :4], view, torch.arange(4).expand(len(slots), -1), length=4)
    out = model.step(x[:, 4:5], view, torch.full((len(slots), 1), 4), length=5, exact=True)
    assert torch.allclose(out[:, 0], whole[:, 4], atol=1e-5)
    out = model.step(x[:, 5:], view, torch.full((len(slots), 1), 5), length=6)
    assert torch.allclose(out[:, 0], whole[:, 5], atol=1e-5)
    others = [slot for slot in range(6) if slot not in slots]
    for tensor in (*cache.keys, *cache.values):
        assert tensor[slots, :, :6].isfinite().all() and tensor[others].isnan().all()
    view.clear(0, 2)
    assert not cache.keys[0][slots, :, :2].any()


@torch.no_grad()
def test_probed_probabilities_are_those_of_the_layer() -> None:
    model, x = stack(), torch.randn(2, 6, 32)
    plain, none = model(x)
    same, probed = model(x, probe=AttentionProbe(1, (0, 3)))
    assert none is None and probed is not None
    assert torch.equal(plain, same)
    attention = probed.attention
    cos, sin = rope_table(ROPE, SIZES.head_dim, torch.arange(6))
    first, second = model.layers
    assert isinstance(second, Block)
    assert torch.equal(probed.state, second.attention_norm(first(x, cos[None, None], sin[None, None])))
    assert attention.shape == (2, 2, 6, 6)
    assert torch.allclose(attention.sum(-1), torch.ones(2, 2, 6), atol=1e-5)
    assert attention.triu(1).abs().max() == 0


def test_norm_is_float32_inside() -> None:
    norm = RMSNorm(8)
    x = (torch.randn(3, 8) * 100).bfloat16()
    out = norm(x)
    assert out.dtype == torch.bfloat16
    wide = x.float()
    expected = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
    assert torch.allclose(out.float(), expected, atol=0.02)


def test_rope_factor_stretches_low_frequencies_only() -> None:
    positions = torch.tensor([1])
    plain, _ = rope_table(RopeConfig(factor=None), 64, positions)
    slow, _ = rope_table(RopeConfig(factor=32.0), 64, positions)
    assert torch.equal(plain[0, :8], slow[0, :8])  # high frequencies
    assert slow[0, 31].acos() < plain[0, 31].acos() or torch.equal(slow[0, 31], torch.tensor(1.0))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 32, 4, 2, 48), "num_layers"),
        ((1, 32, 4, 3, 48), "does not divide num_heads"),
        ((1, 30, 4, 2, 48), "does not divide width"),
        ((1, 12, 4, 2, 48), "even"),
    ],
)
def test_bad_sizes(sizes: tuple[int, int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StackConfig(*sizes)
