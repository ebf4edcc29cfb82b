import pytest
import torch
from torch import Tensor

from uniaudio2.codec.features import FeatureInfo
from uniaudio2.codec.quantize import QuantizerConfig
from uniaudio2.codec.reasoning import ReasoningConfig, ReasoningEncoder, rename_published

INFO = {"speech": FeatureInfo(12, 50.0), "semantic": FeatureInfo(6, 25.0)}


def make(**changes: object) -> ReasoningEncoder:
    torch.manual_seed(0)
    values = dict(dim=16, num_layers=2, num_heads=2, feed_forward_dim=24, layer_scale=0.3)
    config = ReasoningConfig(**{**values, "quantizer": QuantizerConfig(3, 20, 8), **changes})
    return ReasoningEncoder(config, INFO).eval()


def draw(units: int = 2, batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "speech": torch.randn(batch, 20 * units, 12, generator=generator),
        "semantic": torch.randn(batch, 10 * units, 6, generator=generator),
    }


def test_five_frames_per_second() -> None:
    result = make()(draw(units=3))
    assert result.quantized.shape == (2, 6, 16)
    assert result.codes.shape == (2, 3, 6)


def test_decoding_gives_the_quantised_vectors() -> None:
    encoder = make()
    result = encoder(draw())
    torch.testing.assert_close(encoder.decode(result.codes), result.quantized)


def test_a_query_follows_every_five_frames() -> None:
    encoder = make()
    x = torch.randn(1, 10, 16)
    rows = encoder.insert_queries(x)
    assert torch.equal(rows[0, [5, 11]], encoder.query.expand(2, 16))
    assert torch.equal(rows[0, [0, 4, 6, 10]], x[0, [0, 4, 5, 9]])


def test_queries_see_the_whole_clip() -> None:
    encoder = make()
    features = draw()
    before = encoder.encode_queries(features)
    features["semantic"][:, -1] += 1.0
    assert (encoder.encode_queries(features) - before).abs().amax(dim=(0, 2)).min() > 1e-5


def test_single_equals_batched() -> None:
    encoder = make()
    features = draw(batch=3)
    codes = encoder(features).codes
    for row in range(3):
        assert torch.equal(encoder({k: v[row : row + 1] for k, v in features.items()}).codes, codes[row : row + 1])


def test_features_are_cut_to_the_shortest() -> None:
    encoder = make()
    features = draw(units=2)
    longer = {**features, "speech": torch.cat([features["speech"], torch.zeros(2, 4, 12)], dim=1)}
    torch.testing.assert_close(encoder.encode_queries(longer), encoder.encode_queries(features))


@pytest.mark.parametrize("frames", [0, 7])
def test_lengths_that_do_not_fit_are_refused(frames: int) -> None:
    features = {"speech": torch.zeros(1, 2 * frames, 12), "semantic": torch.zeros(1, frames, 6)}
    with pytest.raises((ValueError, RuntimeError)) as caught:
        make()(features)
    if frames:
        assert "multiple of 0.4 s" in str(caught.value)


def test_a_missing_role_is_named() -> None:
    with pytest.raises(ValueError, match="'semantic' is missing"):
        make()({"speech": torch.zeros(1, 20, 12)})
    with pytest.raises(ValueError, match="no encoder gives the feature 'phone'"):
        make(inputs=("phone",))


def test_a_rate_that_does_not_fit_is_refused() -> None:
    config = make().config
    with pytest.raises(ValueError, match="30 Hz"):
        ReasoningEncoder(config, {**INFO, "speech": FeatureInfo(12, 30.0)})


def test_all_parameters_get_gradients_and_one_batch_is_overfitted() -> None:
    encoder = make().train()
    head = torch.nn.Linear(16, 7)
    features, target = draw(units=2, batch=4), torch.arange(16).reshape(4, 4) % 7
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=5e-3)
    losses = []
    for _ in range(120):
        result = encoder(features)
        loss = torch.nn.functional.cross_entropy(head(result.quantized).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        (loss + 0.25 * result.commitment_loss).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_layer_scale_is_a_number_of_the_config() -> None:
    assert torch.equal(make(layer_scale=0.125).blocks[0].attention_scale, torch.full((16,), 0.125))


def test_dropout_only_in_training() -> None:
    encoder = make(dropout=0.5)
    features = draw()
    assert torch.equal(encoder.encode_queries(features), encoder.encode_queries(features))
    encoder.train()
    assert not torch.equal(encoder.encode_queries(features), encoder.encode_queries(features))


def test_unknown_published_keys_are_refused() -> None:
    assert rename_published("encoder_transformers.3.rope.inv_freq") is None
    assert rename_published("cls_token") == "query"
    with pytest.raises(KeyError):
        rename_published("llm.model.embed_tokens.weight")


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="num_heads"):
        make(num_heads=3)
    with pytest.raises(ValueError, match="at least one feature role"):
        make(inputs=())
