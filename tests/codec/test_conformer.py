import dataclasses

import pytest
import torch

from uniaudio2.codec.conformer import MusicFM, MusicFMConfig, RotaryAttention, htk_filters
from uniaudio2.rotary import rotary_frequencies, rotary_table

TINY = MusicFMConfig(
    encoder_dim=16, conv_dim=4, num_heads=2, intermediate_size=24, depth=3, depthwise_kernel_size=5,
    acoustic_layer=1, semantic_layer=2,
)  # fmt: skip


def make_model() -> MusicFM:
    torch.manual_seed(0)
    return MusicFM(TINY).eval()


@torch.no_grad()
def test_one_state_per_layer_at_25_hz_and_a_rest_below_a_frame_is_cut() -> None:
    model = make_model()
    audio = torch.randn(2, 9600)
    states = model(audio)
    assert [tuple(state.shape) for state in states] == [(2, 10, 16)] * 3
    longer = model(torch.cat([audio, torch.randn(2, 959)], dim=1))
    assert torch.equal(longer[-1], states[-1])


@torch.no_grad()
def test_position_matters_only_through_rotated_queries_and_keys() -> None:
    torch.manual_seed(0)
    attention = RotaryAttention(16, 2)
    x = torch.randn(1, 6, 16)
    cos, sin = rotary_table(torch.arange(6), rotary_frequencies(8))
    out = attention(x, (cos, sin))
    still = attention(x, (torch.ones_like(cos), torch.zeros_like(sin)))
    assert not torch.allclose(out, still, atol=1e-5)
    # One frame attends to itself alone: its rotation cannot matter, since values are not rotated.
    torch.testing.assert_close(attention(x[:, 5:], (cos[5:], sin[5:])), attention(x[:, 5:], (cos[:1], sin[:1])))


def test_filters_cover_the_spectrum_with_peaks_near_one() -> None:
    filters = htk_filters(1025, 128, 24000)
    assert filters.shape == (1025, 128)
    assert filters.min() == 0
    assert filters.max() <= 1
    assert (filters[:, 64:].amax(0) > 0.8).all()
    torch.testing.assert_close(filters[100:900].sum(1), torch.ones(800), atol=1e-3, rtol=0)


def test_the_default_config_is_the_published_size() -> None:
    with torch.device("meta"):
        model = MusicFM(MusicFMConfig())
    assert len(model.layers) == 11
    assert model.subsampling.projection.weight.shape == (1024, 16384)
    assert model.layers[0].conv.depthwise.weight.shape == (1024, 1, 31)


def test_configs_are_checked() -> None:
    for changes, message in (
        ({"num_heads": 3}, "num_heads"),
        ({"semantic_layer": 4}, "semantic_layer"),
        ({"depthwise_kernel_size": 4}, "odd"),
        ({"num_mels": 126}, "multiple of 4"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **changes)
