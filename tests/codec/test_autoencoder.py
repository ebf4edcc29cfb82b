import dataclasses
from collections.abc import Callable

import pytest
import torch

from uniaudio2.codec.autoencoder import (
    AUTOENCODERS,
    SQCodec,
    SQCodecConfig,
    apply_weight_norm,
    fold_weight_norm,
    rename_published,
    round_latents,
)
from uniaudio2.config import ConfigError

TINY = SQCodecConfig(
    num_bands=1,
    sample_rate=24000,
    causal=True,
    num_samples=1,
    downsample_factors=(2, 5),
    downsample_kernel_sizes=(4, 10),
    upsample_factors=(5, 2),
    upsample_kernel_sizes=(10, 4),
    latent_hidden_dim=6,
    default_kernel_size=7,
    delay_kernel_size=5,
    init_channel=4,
    res_kernel_size=7,
)


def make_model(**changes: object) -> SQCodec:
    torch.manual_seed(0)
    return SQCodec(dataclasses.replace(TINY, **changes)).eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"causal": False},
        {"num_samples": 3},
        {"causal": False, "upsample_kernel_sizes": (9, 4), "num_samples": 2},
    ],
)
@torch.no_grad()
def test_lengths_are_exact(changes: dict) -> None:
    model = make_model(**changes)
    assert model.hop_length == 10 * changes.get("num_samples", 1)
    for frames in (1, 2, 7):
        latents = model.encode(torch.randn(2, 1, frames * model.hop_length))
        assert latents.shape == (2, frames, model.latent_dim)
        assert latents.abs().max() <= 1
        assert model.decode(latents).shape == (2, 1, frames * model.hop_length)


@torch.no_grad()
def test_batched_equals_single() -> None:
    model = make_model()
    audio = torch.randn(3, 1, 50)
    latents = model.encode(audio)
    torch.testing.assert_close(latents, torch.cat([model.encode(a[None]) for a in audio]))
    torch.testing.assert_close(model.decode(latents), torch.cat([model.decode(x[None]) for x in latents]))


@torch.no_grad()
def test_causal_encoder_does_not_look_ahead() -> None:
    audio = torch.randn(1, 1, 200)
    changed = audio.clone()
    changed[..., 120:] += 1
    causal, symmetric = make_model(), make_model(causal=False)
    assert torch.equal(causal.encode(audio)[:, :12], causal.encode(changed)[:, :12])
    assert not torch.equal(symmetric.encode(audio)[:, :12], symmetric.encode(changed)[:, :12])


@torch.no_grad()
def test_decoding_rounds_and_encoding_does_not() -> None:
    model = make_model()
    latents = model.encode(torch.randn(1, 1, 100))
    assert not torch.equal(latents, round_latents(latents))
    assert torch.equal(model.decode(latents), model.decode(round_latents(latents)))


def test_rounding() -> None:
    values = torch.tensor([0.0, 0.05, 0.06, -0.95, 1.0, 0.5 / 9, 1.5 / 9])
    ninths = (round_latents(values) * 9).round().tolist()
    assert ninths == [0, 0, 1, -9, 9, 0, 2]
    latents = torch.rand(5, requires_grad=True)
    rounded = round_latents(latents, straight_through=True)
    torch.testing.assert_close(rounded, round_latents(latents))
    rounded.sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, torch.ones(5))


def test_gradients_reach_the_encoder_in_training() -> None:
    model = make_model().train()
    audio = torch.randn(1, 1, 100)
    (model.decode(model.encode(audio)) - audio).square().mean().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


def test_wrong_shapes_and_configs_are_named() -> None:
    model = make_model()
    for shape in ((1, 1, 95), (1, 1, 0), (1, 2, 100), (100,)):
        with pytest.raises(ValueError, match="multiple of 10"):
            model.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(B, T, 6\)"):
        model.decode(torch.zeros(1, 6, 5))
    for changes, message in (
        ({"num_bands": 4}, "num_bands"),
        ({"upsample_factors": (5, 4)}, "same product"),
        ({"downsample_kernel_sizes": (4,)}, "pair up"),
        ({"upsample_kernel_sizes": (9, 4)}, "twice"),
        ({"delay_kernel_size": 4}, "delay_kernel_size must be odd"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **changes)


class TestRegistry:
    def test_builds_by_name(self) -> None:
        model = AUTOENCODERS.build("sqcodec", {**dataclasses.asdict(TINY), "init_channel": 2})
        assert isinstance(model, SQCodec)
        assert model.config.init_channel == 2

    def test_every_name_fulfils_the_interface(self) -> None:
        configs = {"sqcodec": dataclasses.asdict(TINY)}
        for name in AUTOENCODERS:
            model = AUTOENCODERS.build(name, configs.get(name, {})).eval()
            with torch.no_grad():
                latents = model.encode(torch.randn(1, 1, 2 * model.hop_length) * 0.1)
                assert latents.shape == (1, 2, model.latent_dim)
                assert model.decode(latents).shape == (1, 1, 2 * model.hop_length)

    def test_unknown_name_and_values(self) -> None:
        with pytest.raises(ConfigError, match="sqcodec, convnext"):
            AUTOENCODERS.build("dac", {})
        with pytest.raises(ConfigError, match="init_chanel"):
            AUTOENCODERS.build("sqcodec", {**dataclasses.asdict(TINY), "init_chanel": 2})
        incomplete = dataclasses.asdict(TINY)
        del incomplete["init_channel"]
        with pytest.raises(ConfigError, match="init_channel"):
            AUTOENCODERS.build("sqcodec", incomplete)


class TestPublishedWeights:
    @pytest.mark.parametrize("make", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_both_spellings_of_weight_norm_fold_to_the_same_layer(self, make: Callable) -> None:
        for layer in (torch.nn.Conv1d(4, 5, 4), torch.nn.ConvTranspose1d(4, 5, 4), torch.nn.Linear(4, 1)):
            normed = make(layer)
            with torch.no_grad():
                for name, parameter in normed.named_parameters():
                    if name.endswith(("weight_g", "original0")):
                        parameter *= 1.7
                normed(torch.zeros(1, 4, 4))  # the older spelling computes the weight at the next call
            folded = fold_weight_norm({f"a.{key}": value for key, value in normed.state_dict().items()})
            assert set(folded) == {"a.weight", "a.bias"}
            torch.testing.assert_close(folded["a.weight"], normed.weight.detach())

    def test_norm_over_other_axes(self) -> None:
        conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(4, 6, 5), dim=2)
        state = conv.state_dict()
        weight = apply_weight_norm(
            state["parametrizations.weight.original0"], state["parametrizations.weight.original1"]
        )
        torch.testing.assert_close(weight, conv.weight.detach())

    def test_half_a_pair_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"a\.weight_v is missing"):
            fold_weight_norm({"a.weight_g": torch.ones(2, 1)})
        with pytest.raises(ValueError, match=r"a\.weight_g is missing"):
            fold_weight_norm({"a.weight_v": torch.ones(2, 1)})

    def test_numbered_layers_depend_on_pooling(self) -> None:
        pooled = dataclasses.replace(TINY, num_samples=2)
        assert rename_published("encoder.1.conv.weight", pooled) == "encoder.pool_conv.weight"
        assert rename_published("encoder.3.down_conv.layer.weight_g", pooled) == "encoder.blocks.1.conv.weight_g"
        assert rename_published("encoder.2.down_conv.layer.weight_g", TINY) == "encoder.blocks.1.conv.weight_g"
        assert rename_published("decoder.3.activation.weight", pooled) == "decoder.pool_activation.weight"
        assert rename_published("decoder.3.weight_v", TINY) == "decoder.output_conv.weight_v"
        for wrong in ("decoder.5.bias", "encoder.1.conv.weight", "quantizer.bias", "encoder.1.up_conv.x.bias"):
            with pytest.raises(KeyError):
                rename_published(wrong, TINY)
