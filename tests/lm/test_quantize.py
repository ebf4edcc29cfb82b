"""Weights of 8 and 4 bits: rounding within half a step, products near float32, a whole model that still works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2.api.model import UniAudio2
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.lm.quantize import (
    QuantizationError,
    QuantizedLinear,
    product,
    quantize_int4,
    quantize_int8,
    quantize_weights,
)
from uniaudio2.lm.transformer import Embedding, Linear

KINDS = ("int8", "int4")


def matrix(rows: int = 70, width: int = 128) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, rows)[:, None]


def model() -> AudioLM:
    built = AudioLM(load_config(LMConfig, preset_path("lm", "tiny")))
    return built.initialise(torch.Generator().manual_seed(0)).eval()


def test_int8_rounds_to_the_nearest_step() -> None:
    weight = matrix()
    values, scale = quantize_int8(weight)
    assert values.dtype == torch.int8 and scale.shape == (70,)
    error = (values.float() * scale.float()[:, None] - weight).abs()
    # Half a step; the largest weight of a row may lose a little more, because its scale is rounded.
    assert (error <= 1.01 * scale.float()[:, None]).all()
    assert (error <= 0.501 * scale.float()[:, None]).float().mean() > 0.98


@pytest.mark.parametrize("width", [128, 96])
def test_int4_rounds_to_the_nearest_step_of_its_group(width: int) -> None:
    weight = matrix(64, width)
    values, scale = quantize_int4(weight)
    groups = width // (64 if width == 128 else 32)
    assert int(values.max()) <= 15 and scale.shape == (groups, 64, 2)
    step, middle = (part.t().float()[..., None] for part in scale.unbind(-1))
    restored = (values.view(64, groups, -1).float() - 8) * step + middle
    assert ((restored - weight.view(64, groups, -1)).abs() <= 0.6 * step).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_product_is_that_of_the_restored_matrix(kind: str, rows: int) -> None:
    weight = matrix()
    layer = QuantizedLinear(weight, kind)  # type: ignore[arg-type]
    x = torch.randn(2, rows, 128, generator=torch.Generator().manual_seed(1))
    out = layer(x)
    assert out.shape == (2, rows, 70) and out.dtype == torch.float32
    exact = x @ layer.dequantize().t()
    assert (out - exact).std() < 0.006 * exact.std()  # activations are rounded to bfloat16
    assert (out - x @ weight.t()).std() < {"int8": 0.012, "int4": 0.15}[kind] * exact.std()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_slices_of_the_whole(kind: str) -> None:
    layer, x = QuantizedLinear(matrix(200), kind), torch.randn(2, 128)  # type: ignore[arg-type]
    part = product(x, *layer.rows(64, 150))
    assert torch.equal(part[:, : 150 - 64], layer(x)[:, 64:150])
    if kind == "int4":
        with pytest.raises(QuantizationError, match="multiples of 64"):
            layer.rows(10, 150)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "error", "agreement"), [("int8", 0.05, 0.9), ("int4", 0.4, 0.4)])
def test_a_whole_model_stays_near_float32(kind: str, error: float, agreement: float) -> None:
    plain, generator = model(), torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 60, (2, 30, 9), generator=generator)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[..., -1] = False
    exact = plain(tokens, mask)
    size = sum(tensor.nbytes for tensor in plain.state_dict().values())
    quantized = quantize_weights(model(), kind)
    assert not any(isinstance(module, Linear | Embedding) for module in quantized.modules())
    assert all(parameter.ndim == 1 for parameter in quantized.parameters())
    assert sum(tensor.nbytes for tensor in quantized.state_dict().values()) < 0.3 * size
    found = quantized(tokens, mask)
    for name in ("audio_logits", "text_logits"):
        wanted, got = getattr(exact, name), getattr(found, name)
        assert (got - wanted).square().mean().sqrt() < error * wanted.std(), name
        assert (got.argmax(-1) == wanted.argmax(-1)).float().mean() > agreement, name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_cached_steps_of_the_local_decoder_equal_its_forward(kind: str) -> None:
    depth = quantize_weights(model(), kind).depth
    hidden, embedded = torch.randn(3, 64), torch.randn(3, 7, 64)
    whole = depth(hidden, embedded)
    cache = depth.new_cache(3)
    for codebook in range(8):
        inputs = hidden if codebook == 0 else embedded[:, codebook - 1]
        step = depth.step(inputs, codebook, cache)
        assert (step - whole[:, codebook]).abs().max() < 0.02 * whole.abs().max()


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(QuantizationError, match="unknown type of weights 'int2'"):
        quantize_weights(model(), "int2")
    with pytest.raises(QuantizationError, match="groups of 32"):
        quantize_weights(torch.nn.ModuleList([Linear(40, 8)]), "int4")


def test_a_model_folder_loads_with_light_weights(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    light = UniAudio2.from_pretrained(folder, device="cpu", dtype="int8")
    assert light.lm is not None and isinstance(light.lm.text_head, QuantizedLinear)
    assert isinstance(light.caption(torch.randn(1, 4800) * 0.1).text, str)
    with pytest.raises(ValueError, match="unknown dtype 'int3'"):
        UniAudio2.from_pretrained(folder, device="cpu", dtype="int3")
