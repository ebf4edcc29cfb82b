"""The flow decoder against the published one: time features, one network evaluation, and Euler solves."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.parity.fixtures import Fixture, assert_close, load_fixture, load_json
from uniaudio2.codec.dit import DiTConfig, sinusoidal_positions, time_features
from uniaudio2.codec.flow_matching import FlowConfig, FlowDecoder, rename_published


@pytest.fixture(scope="module")
def fixture() -> Fixture:
    return load_fixture("flow_decoder")


@pytest.fixture(scope="module")
def decoder(fixture: Fixture) -> FlowDecoder:
    config = fixture.info["config"]
    heads, head_size = config["num_attention_heads"], config["attention_head_dim"]
    latent_dim = config["out_channels"]
    decoder = FlowDecoder(
        FlowConfig(),
        DiTConfig(width=heads * head_size, num_layers=config["num_layers"], num_heads=heads),
        latent_dim=latent_dim,
        condition_dim=config["in_channels"] - 2 * latent_dim,
    )
    load_network(decoder, fixture.weights)
    return decoder.eval()


def load_network(decoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the solver wrapper's weights; everything but the condition's projection must be there."""
    renamed = {rename_published(f"cfm_wrapper.{key}"): value for key, value in weights.items()}
    renamed.pop(None, None)
    missing, unexpected = decoder.load_state_dict(renamed, strict=False)
    assert set(missing) == {"condition_projection.weight", "condition_projection.bias", "empty_condition"}
    assert unexpected == []


def test_time_features(fixture: Fixture) -> None:
    expected = fixture["net/time_features"]
    # The features are sines of angles up to 1000, whose float32 spacing is 6e-5.
    assert_close(time_features(fixture["net/t"], expected.shape[1]), expected, atol=2e-4, what="time features")


def test_positions_equal_the_stored_table(fixture: Fixture) -> None:
    stored = fixture.weights["estimator.pos_embed.pe"][0]
    assert_close(sinusoidal_positions(*stored.shape), stored, atol=1e-6, what="positions")


@torch.no_grad()
def test_time_embedding_and_modulation(fixture: Fixture, decoder: FlowDecoder) -> None:
    atol = fixture.tolerances["net_atol"]
    time = decoder.dit.time_embedding(fixture["net/t"])
    assert_close(time, fixture["net/time_emb"], atol=atol, rtol=fixture.tolerances["rtol"], what="time embedding")
    modulation = decoder.dit.time_modulation(nn.functional.silu(time))
    assert_close(modulation, fixture["net/adaln"], atol=atol, rtol=fixture.tolerances["rtol"], what="modulation")


@torch.no_grad()
def test_one_evaluation(fixture: Fixture, decoder: FlowDecoder) -> None:
    out = decoder.dit(fixture["net/x"], fixture["net/t"])
    assert_close(
        out, fixture["net/out"], atol=fixture.tolerances["net_atol"], rtol=fixture.tolerances["rtol"], what="velocity"
    )


def test_euler_solves(fixture: Fixture, decoder: FlowDecoder) -> None:
    assert fixture.info["sigma_min"] == decoder.config.sigma_min
    for name, case in fixture.info["cases"].items():
        length = case["incontext_length"]
        context = fixture[f"{name}/incontext"][:, :length]
        out = decoder.sample(
            fixture[f"{name}/mu"],
            context=context if length else None,
            steps=case["steps"],
            guidance_scale=case["guidance_scale"],
            noise=fixture[f"{name}/noise"],
        )
        # The fixture holds the solver's result before the in-context frames are written back.
        expected = torch.cat([context, fixture[f"{name}/out"][:, length:]], dim=1)
        tolerances = fixture.tolerances
        assert_close(out, expected, atol=tolerances["solve_atol"], rtol=tolerances["rtol"], what=f"solve {name}")


def test_published_sizes_and_key_map_fit_the_layout() -> None:
    layout = load_json("layout_codec")["keys"]
    with torch.device("meta"):
        dit = DiTConfig(width=1536, num_layers=32, num_heads=24)
        decoder = FlowDecoder(FlowConfig(), dit, latent_dim=136, condition_dim=768)
    mapped: dict[str | None, list[int]] = {}
    for key, shape in layout.items():
        if key.startswith(("cfm_wrapper.", "cond_feature_emb.", "zero_cond_embedding1")):
            mapped[rename_published(key)] = list(shape)
    mapped.pop(None, None)
    assert mapped == {key: list(value.shape) for key, value in decoder.state_dict().items()}
