"""Residual quantisers: the published code's codes and vectors, both directions."""

import pytest
import torch

from tests.parity.fixtures import assert_close, load_fixture
from uniaudio2.codec.codec import finish_published
from uniaudio2.codec.quantize import ResidualVectorQuantize, rename_published


def build_quantizer(weights: dict, prefix: str) -> ResidualVectorQuantize:
    """A quantiser with the published weights below ``prefix``, sized by their shapes, loaded strictly."""
    renamed = {rename_published(k.removeprefix(prefix)): v for k, v in weights.items() if k.startswith(prefix)}
    state = finish_published(renamed, wanted=())
    size, codebook_dim = state["levels.0.codebook"].shape
    num_levels = sum(name.endswith(".codebook") for name in state)
    quantizer = ResidualVectorQuantize(state["project_in.weight"].shape[1], num_levels, size, codebook_dim)
    quantizer.load_state_dict(state, strict=True)
    return quantizer.eval()


@pytest.mark.parametrize("name", ["vq_pronunciation_semantic", "vq_structure_semantic", "vq_acoustic", "reasoning_vq"])
@torch.no_grad()
def test_quantizer(name: str) -> None:
    fixture = load_fixture("codec_vq")
    atol = fixture.tolerances["atol"]
    quantizer = build_quantizer(fixture.weights, f"{name}.")
    result = quantizer(fixture[f"{name}/x"])
    assert torch.equal(result.codes.transpose(1, 2), fixture[f"{name}/codes"])
    assert_close(result.quantized, fixture[f"{name}/quantized"], atol=atol, what="quantized")
    decoded = quantizer.decode(fixture[f"{name}/codes_in"].transpose(1, 2))
    assert_close(decoded, fixture[f"{name}/from_codes"], atol=atol, what="from codes")
    assert_close(quantizer.decode(result.codes), fixture[f"{name}/from_own_codes"], atol=atol, what="own codes")
