"""The published scalar autoencoder: causal, and non-causal with pooling."""

import pytest
import torch

from tests.parity.fixtures import Fixture, assert_close, load_fixture
from uniaudio2.codec.autoencoder import SQCodec, SQCodecConfig, fold_weight_norm, rename_published, round_latents
from uniaudio2.config import load_config


@pytest.fixture(scope="module", params=["sqcodec_causal", "sqcodec_noncausal_pooled"])
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return load_fixture(request.param)


@pytest.fixture(scope="module")
def model(fixture: Fixture) -> SQCodec:
    config = load_config(SQCodecConfig, fixture.info["config"])
    model = SQCodec(config)
    renamed: dict[str, torch.Tensor] = {}
    for key, value in fixture.weights.items():
        name = rename_published(key.removeprefix("model."), config)
        assert name not in renamed or torch.equal(renamed[name], value), f"{key} differs from its other copies"
        renamed[name] = value
    model.load_state_dict(fold_weight_norm(renamed), strict=True)
    return model.eval()


def test_hop(fixture: Fixture, model: SQCodec) -> None:
    assert model.hop_length == fixture.info["hop"]


@torch.no_grad()
def test_encode(fixture: Fixture, model: SQCodec) -> None:
    latents = model.encode(fixture["io/wav"])
    assert_close(latents.transpose(1, 2), fixture["io/encode"], **fixture.tolerances, what="latents")


@torch.no_grad()
def test_rounding(fixture: Fixture) -> None:
    assert_close(round_latents(fixture["io/latents"]), fixture["io/quantised_latents"], atol=1e-6, what="rounded")


@torch.no_grad()
@pytest.mark.parametrize(("source", "target"), [("encode", "decode_of_encode"), ("latents", "decode_of_latents")])
def test_decode(fixture: Fixture, model: SQCodec, source: str, target: str) -> None:
    audio = model.decode(fixture[f"io/{source}"].transpose(1, 2))
    assert_close(audio, fixture[f"io/{target}"], **fixture.tolerances, what=target)
