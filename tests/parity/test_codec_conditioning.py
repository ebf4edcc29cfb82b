"""Strided convolutions, FiLM, the reasoning condition, semantic decoders."""

import pytest
import torch

from tests.parity.fixtures import Fixture, assert_close, load_fixture
from uniaudio2.codec.features import FeatureInfo
from uniaudio2.codec.quantize import QuantizerConfig
from uniaudio2.codec.reconstruction import ReconstructionConfig, ReconstructionEncoder, rename_published


def build_reconstruction(fixture: Fixture) -> ReconstructionEncoder:
    """The branch with all published weights of the fixture (it holds no quantisers, so those stay random)."""
    state = {
        rename_published(key): value
        for key, value in fixture.weights.items()
        if not key.startswith(("film_encoder.", "cond_feature_emb."))
    }
    sizes = fixture.info["config"]
    info = {
        "speech": FeatureInfo(sizes["whisper"], 50.0),
        "phone": FeatureInfo(sizes["wavlm"], 50.0),
        "semantic": FeatureInfo(sizes["bestrq"], 25.0),
        "acoustic": FeatureInfo(sizes["bestrq"], 25.0),
    }
    one = QuantizerConfig(1, sizes["rec_codes"], sizes["rec_dim"])
    six = QuantizerConfig(6, sizes["rec_codes"], sizes["rec_dim"])
    config = ReconstructionConfig(
        dim=sizes["codec"], pronunciation=one, structure=one, acoustic=six, film_strength=fixture.info["film_gamma"]
    )
    branch = ReconstructionEncoder(config, info, reasoning_dim=sizes["codec"])
    missing, unexpected = branch.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("quantizers.") for name in missing)
    return branch.eval()


@torch.no_grad()
def test_strided_convolutions() -> None:
    fixture = load_fixture("codec_conditioning")
    branch = build_reconstruction(fixture)
    for role, source, result in (
        ("speech", "whisper_in", "whisper_out"),
        ("phone", "wavlm_in", "wavlm_out"),
        ("semantic", "semantic_in", "semantic_out"),
        ("acoustic", "semantic_in", "acoustic_out"),
    ):
        actual = branch.downsample[role](fixture[f"conv/{source}"])
        assert_close(actual, fixture[f"conv/{result}"], atol=fixture.tolerances["atol"], what=role)


@pytest.mark.parametrize(
    ("branch_name", "published"), [("pronunciation", "phone"), ("structure", "semantic"), ("acoustic", "acoustic")]
)
@torch.no_grad()
def test_film(branch_name: str, published: str) -> None:
    fixture = load_fixture("codec_conditioning")
    atol = fixture.tolerances["atol"]
    film = build_reconstruction(fixture).film[branch_name]
    x, condition = fixture["film/x"], fixture["film/cond"]
    assert_close(film(x, condition), fixture[f"film/{published}_on"], atol=atol, what="kept")
    film.train()
    film.condition_dropout = 1.0
    assert_close(film(x, condition), fixture[f"film/{published}_off"], atol=atol, what="dropped")


@torch.no_grad()
def test_reasoning_is_added() -> None:
    fixture = load_fixture("codec_conditioning")
    branch = build_reconstruction(fixture)
    for vectors, out in (("rec", "out"), ("rec24", "out24")):
        x = fixture[f"combine/{vectors}"]
        actual = x + branch.reasoning_condition(fixture["combine/reason"], x.shape[1])
        assert_close(actual, fixture[f"combine/{out}"], atol=fixture.tolerances["atol"], what=out)


@torch.no_grad()
def test_semantic_decoders() -> None:
    fixture = load_fixture("codec_conditioning")
    branch = build_reconstruction(fixture)
    for name in ("structure", "pronunciation"):
        actual = branch.semantic_decoders[name](fixture["decoders/z"].transpose(1, 2)).transpose(1, 2)
        assert_close(actual, fixture[f"decoders/{name}"], atol=fixture.tolerances["atol"], what=name)


@torch.no_grad()
def test_fusion_layers_are_the_published_ones() -> None:
    fixture = load_fixture("codec_conditioning")
    branch = build_reconstruction(fixture)
    for ours, theirs in (("pronunciation", "phone"), ("structure", "semantic"), ("acoustic", "acoustic")):
        assert torch.equal(branch.fusion[ours].weight, fixture.weights[f"cond_fusion_layer_{theirs}.weight"])
