import pytest
import torch

from uniaudio2.codec.dit import DiT, DiTConfig, rename_published, sinusoidal_positions, time_features


@pytest.fixture
def network() -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(width=32, num_layers=2, num_heads=2), in_channels=20, out_channels=6)


def perturb(network: DiT) -> DiT:
    """Leave the zero initialisation, at which the network is constant."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def test_a_fresh_network_predicts_zero_and_every_block_is_the_identity(network: DiT) -> None:
    x = torch.randn(2, 7, 20)
    assert torch.equal(network(x, torch.tensor([0.1, 0.9])), torch.zeros(2, 7, 6))
    h = torch.randn(2, 7, 32)
    modulation = network.time_modulation(torch.randn(2, 32)).view(2, 6, 32)
    assert torch.equal(network.blocks[0](h, modulation), h)


def test_every_parameter_learns_within_three_steps(network: DiT) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x, target = torch.randn(2, 7, 20), torch.randn(2, 7, 6)
    for _ in range(3):
        optimizer.zero_grad()
        (network(x, torch.tensor([0.2, 0.7])) - target).square().mean().backward()
        optimizer.step()
    # The key's bias shifts all scores of a query alike, so attention does not depend on it.
    still = [n for n, p in network.named_parameters() if torch.equal(p, before[n]) and not n.endswith("key.bias")]
    assert still == []


@torch.no_grad()
def test_time_position_and_every_frame_matter(network: DiT) -> None:
    perturb(network)
    x, t = torch.randn(1, 9, 20), torch.tensor([0.3])
    out = network(x, t)
    assert not torch.allclose(out, network(x, torch.tensor([0.6])), atol=1e-4)
    shifted = network(x.roll(1, dims=1), t).roll(-1, dims=1)
    assert not torch.allclose(out[:, 3:6], shifted[:, 3:6], atol=1e-4)
    changed = x.clone()
    changed[:, -1] += 1
    assert not torch.allclose(out[:, 0], network(changed, t)[:, 0], atol=1e-5)


@torch.no_grad()
def test_batched_equals_single(network: DiT) -> None:
    perturb(network)
    x, t = torch.randn(3, 9, 20), torch.tensor([0.1, 0.5, 0.9])
    single = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x, t), single, atol=1e-5, rtol=1e-5)


def test_tables() -> None:
    positions = sinusoidal_positions(4, 6)
    assert positions.shape == (4, 6)
    assert positions[0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert positions[1, 0].item() == pytest.approx(0.841471, abs=1e-6)
    features = time_features(torch.tensor([0.0, 0.001]), 8)
    assert features[0].tolist() == [1.0] * 4 + [0.0] * 4
    assert features[1, 4].item() == pytest.approx(0.841471, abs=1e-4)


def test_wrong_shapes_and_sizes_are_named(network: DiT) -> None:
    with pytest.raises(ValueError, match=r"\(B, T, 20\)"):
        network(torch.randn(2, 7, 19), torch.zeros(2))
    with pytest.raises(ValueError, match=r"times \(B,\)"):
        network(torch.randn(2, 7, 20), torch.zeros(3))
    with pytest.raises(ValueError, match="multiple of dit.num_heads"):
        DiTConfig(width=30, num_layers=1, num_heads=4)
    with pytest.raises(ValueError, match="dit.num_layers"):
        DiTConfig(width=32, num_layers=0, num_heads=4)


def test_published_names(network: DiT) -> None:
    assert rename_published("transformer_blocks.1.attn1.to_out.0.bias") == "blocks.1.attention.output.bias"
    assert rename_published("scale_shift_table") == "output_modulation"
    assert rename_published("pos_embed.pe") is None
    with pytest.raises(KeyError):
        rename_published("transformer_blocks.1.attn2.to_q.weight")
