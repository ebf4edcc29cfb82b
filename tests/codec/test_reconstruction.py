import pytest
import torch
from torch import Tensor

from uniaudio2.codec.features import FeatureInfo
from uniaudio2.codec.quantize import QuantizerConfig
from uniaudio2.codec.reconstruction import (
    ReconstructionConfig,
    ReconstructionEncoder,
    SemanticDecoder,
    TimeFiLM,
    rename_published,
)

INFO = {
    "speech": FeatureInfo(12, 50.0),
    "phone": FeatureInfo(8, 50.0),
    "semantic": FeatureInfo(6, 25.0),
    "acoustic": FeatureInfo(10, 25.0),
}
ONE, SIX = QuantizerConfig(1, 24, 6), QuantizerConfig(6, 24, 6)


def make(**changes: object) -> ReconstructionEncoder:
    torch.manual_seed(0)
    values = {"dim": 16, "pronunciation": ONE, "structure": ONE, "acoustic": SIX, **changes}
    return ReconstructionEncoder(ReconstructionConfig(**values), INFO, reasoning_dim=14).eval()


def draw(units: int = 2, batch: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = {
        role: torch.randn(batch, round(0.4 * info.frame_rate_hz) * units, info.channels, generator=generator)
        for role, info in INFO.items()
    }
    return features, torch.randn(batch, 2 * units, 14, generator=generator)


def test_shapes_and_order_of_the_codebooks() -> None:
    encoder = make()
    output = encoder(*draw())
    assert output.codes.shape == (2, 8, 10)
    assert output.quantized.shape == (2, 10, 16)
    assert output.perplexity.shape == (8,)
    assert torch.equal(output.phone, encoder.quantizers["pronunciation"].decode(output.codes[:, :1]))
    assert torch.equal(output.structure, encoder.quantizers["structure"].decode(output.codes[:, 1:2]))


def test_decoding_gives_the_sum_of_the_branches() -> None:
    encoder = make()
    output = encoder(*draw())
    torch.testing.assert_close(encoder.decode(output.codes), output.quantized)


def test_each_branch_hears_its_own_features_only() -> None:
    encoder = make()
    features, reasoning = draw()
    before = encoder.quantizer_inputs(features, reasoning)
    for role, branch in (("phone", "pronunciation"), ("semantic", "structure"), ("acoustic", "acoustic")):
        after = encoder.quantizer_inputs({**features, role: features[role] + 1.0}, reasoning)
        assert [name for name in before if not torch.equal(before[name], after[name])] == [branch]


def test_the_reasoning_conditions_every_branch() -> None:
    encoder = make()
    features, reasoning = draw()
    before = encoder.quantizer_inputs(features, reasoning)
    after = encoder.quantizer_inputs(features, reasoning + 1.0)
    assert all(not torch.allclose(before[name], after[name]) for name in before)


def test_film_formula() -> None:
    film = TimeFiLM(3, 4, strength=0.1, condition_dropout=0.2).eval()
    x, condition = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    scale, shift = (condition @ film.weight.T + film.bias).chunk(2, dim=-1)
    torch.testing.assert_close(film(x, condition), (1 + 0.1 * torch.tanh(scale)) * x + shift)


def test_condition_is_dropped_by_rows_in_training_only() -> None:
    film = TimeFiLM(3, 4, strength=0.1, condition_dropout=0.2)
    x, condition = torch.randn(400, 2, 4), torch.randn(400, 2, 3)
    film.eval()
    kept = film(x, condition)
    assert torch.equal(film(x, condition), kept)
    film.train()
    torch.manual_seed(0)
    result = film(x, condition)
    dropped = (result == x).flatten(1).all(dim=1)
    untouched = (result == kept).flatten(1).all(dim=1)
    assert (dropped ^ untouched).all()
    assert 0.1 < float(dropped.float().mean()) < 0.3


def test_codes_do_not_change_from_run_to_run() -> None:
    encoder = make()
    inputs = draw(batch=6)
    codes = encoder(*inputs).codes
    assert all(torch.equal(encoder(*inputs).codes, codes) for _ in range(3))


def test_pairs_of_reasoning_frames_cover_three_and_two_frames() -> None:
    encoder = make()
    reasoning = torch.randn(1, 4, 14)
    spread = encoder.reasoning_condition(reasoning, 10)
    mapped = encoder.reasoning_adaptor(reasoning)
    assert torch.equal(spread[0], mapped[0, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]])
    assert torch.equal(encoder.reasoning_condition(reasoning, 4, first_frame=3), spread[:, 3:7])
    assert torch.equal(encoder.reasoning_condition(reasoning, 12)[:, 10:], spread[:, [9, 9]])


def test_strides_follow_the_frame_rates() -> None:
    encoder = make()
    assert {role: conv.stride[0] for role, conv in encoder.downsample.items()} == {
        "phone": 4,
        "speech": 4,
        "semantic": 2,
        "acoustic": 2,
    }
    with pytest.raises(ValueError, match="20 Hz"):
        ReconstructionEncoder(encoder.config, {**INFO, "phone": FeatureInfo(8, 20.0)}, reasoning_dim=14)


@pytest.mark.parametrize(("upsampling", "ratio"), [((1, 1), 1), ((1, 2), 2), ((2, 2), 4), ((3,), 3)])
def test_semantic_decoder_lengths(upsampling: tuple[int, ...], ratio: int) -> None:
    assert SemanticDecoder(5, 7, upsampling)(torch.randn(2, 11, 5)).shape == (2, 11 * ratio, 7)


def test_semantic_loss_is_learned() -> None:
    encoder = make(condition_dropout=0.0).train()
    features, reasoning = draw(units=3)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    losses = []
    for _ in range(100):
        output = encoder(features, reasoning)
        loss = encoder.semantic_loss(output, features)
        optimizer.zero_grad()
        (loss + 0.25 * output.commitment_loss).backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    assert losses[-1] < 1.0


def test_without_semantic_decoders() -> None:
    encoder = make(semantic_decoders=False)
    assert not any("semantic_decoders" in name for name in encoder.state_dict())
    inputs = draw()
    with pytest.raises(ValueError, match="semantic_decoders: true"):
        encoder.semantic_loss(encoder(*inputs), inputs[0])


def test_branches_of_different_lengths_are_refused() -> None:
    features, reasoning = draw()
    features["phone"] = features["phone"][:, :-4]
    with pytest.raises(ValueError, match=r"different lengths.*0\.4 s"):
        make()(features, reasoning)


@pytest.mark.parametrize("bad", [24, -1])
def test_codes_out_of_range_are_refused_in_every_level(bad: int) -> None:
    encoder = make()
    for level in range(8):
        codes = torch.zeros(1, 8, 3, dtype=torch.long)
        codes[0, level, 1] = bad
        with pytest.raises(ValueError, match=r"reconstruction codes must lie in 0\.\.23"):
            encoder.decode(codes)


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="same codebook_size"):
        make(structure=QuantizerConfig(1, 25, 6))
    with pytest.raises(ValueError, match="structure_inputs"):
        make(structure_inputs=())


def test_unknown_published_keys_are_refused() -> None:
    with pytest.raises(KeyError):
        rename_published("vq_acoustic.layers.0._codebook.batch_mean")
    with pytest.raises(KeyError):
        rename_published("something.weight")


def test_without_film_the_reasoning_changes_no_code() -> None:
    encoder = make(film=False)
    features, reasoning = draw()
    assert torch.equal(encoder(features, reasoning).codes, encoder(features, reasoning + 1.0).codes)
    assert not any("film" in name for name in encoder.state_dict())
