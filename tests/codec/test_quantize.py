import copy

import pytest
import torch
from torch import Tensor, nn

from uniaudio2.codec.quantize import QuantizerConfig, ResidualVectorQuantize, VectorQuantize, check_codes


def make(**changes: float) -> ResidualVectorQuantize:
    torch.manual_seed(0)
    values = {"num_codebooks": 4, "codebook_size": 32, "codebook_dim": 6, **changes}
    return ResidualVectorQuantize.from_config(16, QuantizerConfig(**values))


def draw(seed: int, batch: int = 4, frames: int = 50) -> Tensor:
    """Frames from 24 clusters, so that there is something to learn."""
    centers = torch.randn(24, 16, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(24, (batch, frames), generator=generator)
    return centers[which] + 0.05 * torch.randn(batch, frames, 16, generator=generator)


def train(quantizer: ResidualVectorQuantize, steps: range, lr: float = 0.2) -> list[float]:
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=lr)
    losses = []
    for step in steps:
        torch.manual_seed(step)
        x = draw(step)
        result = quantizer(x)
        loss = (result.quantized - x).square().mean() + 0.25 * result.commitment_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def test_decoding_the_codes_gives_the_quantised_vectors() -> None:
    quantizer = make().eval()
    x = draw(0)
    result = quantizer(x)
    assert result.quantized.shape == x.shape
    assert result.codes.shape == (4, 4, 50)
    assert result.codes.dtype == torch.int64
    torch.testing.assert_close(quantizer.decode(result.codes), result.quantized)


def test_codes_are_the_nearest_entries() -> None:
    level = VectorQuantize(6, 32).eval()
    x = torch.randn(3, 7, 6)
    entries, codes, counts = level(x)
    assert torch.equal(codes, torch.cdist(x, level.codebook[None]).argmin(dim=-1))
    assert torch.equal(entries, level.codebook[codes])
    assert counts.sum() == 21


def test_evaluation_changes_nothing_and_ignores_the_batch() -> None:
    quantizer = make()
    train(quantizer, range(3))
    quantizer.eval()
    before = copy.deepcopy(quantizer.state_dict())
    x = draw(7)
    codes = quantizer(x).codes
    assert torch.equal(quantizer(x).codes, codes)
    assert torch.equal(torch.cat([quantizer(row[None]).codes for row in x]), codes)
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_training_learns_and_uses_all_levels() -> None:
    quantizer = make()
    losses = train(quantizer, range(150))
    assert losses[-1] < 0.8 * losses[0]
    perplexity = quantizer.usage_perplexity()
    assert perplexity.shape == (4,)
    assert (perplexity > 10).all()
    assert (perplexity <= 32).all()
    levels = [quantizer.eval()(draw(1000)).codes[:, :k].unique().numel() for k in (1, 4)]
    assert levels[0] > 10


def test_each_level_makes_the_error_smaller() -> None:
    quantizer = make()
    train(quantizer, range(100))
    quantizer.eval()
    quantizer.project_in, quantizer.project_out = nn.Identity(), nn.Identity()
    x = torch.randn(2, 30, 6) * quantizer.levels[0].codebook.std()
    codes = quantizer.levels[0](x)
    residual, errors = x, [float(x.square().mean())]
    for level in quantizer.levels:
        residual = residual - level(residual)[0]
        errors.append(float(residual.square().mean()))
    assert codes[1].shape == (2, 30)
    assert errors[1] < errors[0]
    assert errors[-1] < 0.7 * errors[0]


def test_codebooks_start_from_the_data() -> None:
    level = VectorQuantize(2, 8)
    corners = torch.tensor([[5.0, 5.0], [5.0, -5.0], [-5.0, 5.0], [-5.0, -5.0]])
    x = corners.repeat(16, 1) + 0.01 * torch.randn(64, 2)
    level.train()
    level(x)
    assert bool(level.initialised)
    assert (torch.cdist(level.codebook, corners).min(dim=1).values < 1.0).all()


def test_a_dead_entry_moves_to_badly_represented_vectors() -> None:
    level = VectorQuantize(2, 4, dead_fraction=0.1).train()
    level.initialised.fill_(True)
    level.codebook.copy_(torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [1e6, 1e6]]))
    x = torch.cat([0.05 * torch.randn(60, 2), torch.tensor([[9.0, 9.0]]).repeat(4, 1)])
    for _ in range(300):
        level(x)
    assert level.codebook.abs().max() < 20
    assert float(torch.cdist(torch.tensor([[9.0, 9.0]]), level.codebook).min()) < 0.5


def test_no_revival_when_it_is_turned_off() -> None:
    level = VectorQuantize(2, 4, dead_fraction=0.0).train()
    level.initialised.fill_(True)
    level.codebook[3] = 1e6
    for _ in range(300):
        level(torch.randn(20, 2))
    assert level.codebook[3].min() > 1e5


def test_the_gradient_passes_straight_through() -> None:
    quantizer = make().train()
    x = draw(0).requires_grad_()
    quantizer(x)  # sets the codebooks
    result = quantizer(x)
    (gradient,) = torch.autograd.grad(result.quantized.sum(), x)
    expected = quantizer.project_out.weight.sum(dim=0) @ quantizer.project_in.weight
    torch.testing.assert_close(gradient[0, 0], expected)
    (pull,) = torch.autograd.grad(quantizer(x).commitment_loss, x)
    assert pull.abs().sum() > 0


def test_four_steps_equal_two_steps_saved_and_resumed() -> None:
    whole = make()
    losses = train(whole, range(4))
    first = make()
    train(first, range(2))
    second = make()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert train(second, range(2, 4)) == losses[2:]
    assert all(torch.equal(second.state_dict()[name], value) for name, value in whole.state_dict().items())


def test_level_dropout_drops_only_in_training() -> None:
    always, never = make(level_dropout=1.0), make()
    x = draw(0)
    for quantizer in (always, never):
        quantizer.train()(x)
    always.load_state_dict(never.state_dict())
    torch.testing.assert_close(always.eval()(x).quantized, never.eval()(x).quantized)
    dropped, full = always.train()(x), never.train()(x)
    assert torch.equal(dropped.codes, full.codes)
    assert not torch.allclose(dropped.quantized, full.quantized)


def test_autocast_does_not_change_the_codes() -> None:
    quantizer = make().eval()
    x = draw(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = quantizer(x).codes
    assert torch.equal(codes, quantizer(x).codes)


def test_perplexity_is_of_this_batch() -> None:
    quantizer = make().eval()
    assert torch.allclose(quantizer(torch.zeros(1, 9, 16)).perplexity, torch.ones(4))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 4, 3), 32), r"0\.\.31, got 32\.\.32"),
        (torch.full((1, 4, 3), -1), r"0\.\.31"),
        (torch.zeros(1, 3, 3, dtype=torch.long), r"\(B, 4, T\)"),
        (torch.zeros(1, 4, 3), "integers"),
    ],
)
def test_bad_codes_are_refused(codes: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().decode(codes)
    with pytest.raises(ValueError, match="reasoning codes"):
        check_codes(codes, 4, 32, "reasoning codes")


@pytest.mark.parametrize("x", [torch.zeros(2, 16), torch.zeros(1, 0, 16), torch.zeros(1, 3, 15)])
def test_bad_features_are_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, T, 16\)"):
        make()(x)


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="codebook_size"):
        QuantizerConfig(1, 0, 8)
    with pytest.raises(ValueError, match="ema_decay"):
        QuantizerConfig(1, 8, 8, ema_decay=1.0)
