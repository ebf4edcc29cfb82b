"""The whole codec with published weights: audio to codes, codes to latents and audio."""

import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.fixtures import Fixture, assert_close, load_fixture, load_json
from uniaudio2.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.codec import WindowConfig, finish_published
from uniaudio2.codes import AudioCodes
from uniaudio2.config import config_to_dict, load_config, preset_path


def quantizer_config(weights: dict[str, Tensor], prefix: str) -> dict[str, int]:
    """Sizes of a published quantiser, from its shapes."""
    books = [value for key, value in weights.items() if key.startswith(prefix) and key.endswith("_codebook.embed")]
    return {"num_codebooks": len(books), "codebook_size": books[0].shape[1], "codebook_dim": books[0].shape[2]}


def build_codec(fixture: Fixture) -> ReasoningCodec:
    """A codec with the fixture's sizes and all its weights, through the same key map as conversion."""
    pytest.importorskip("transformers")
    sizes, weights = fixture.info["config"], fixture.weights
    music, flow = sizes["music"], sizes["flow"]
    one_block = weights["codec.audio_thinking.encoder_transformers.0.ff.ff.2.parametrizations.weight.original1"]
    values: dict[str, Any] = {
        "encoders": {
            "whisper": sizes["whisper"],
            "wavlm": sizes["wavlm"],
            "musicfm": {
                "encoder_dim": music["encoder_dim"],
                "conv_dim": music["conv_dim"],
                "num_heads": music["heads"],
                "intermediate_size": music["inter"],
                "depth": music["depth"],
                "depthwise_kernel_size": music["dw"],
            },
        },
        "autoencoder": {"name": "sqcodec", "config": sizes["sq"]},
        "reasoning": {
            "dim": sizes["codec"],
            "num_layers": sizes["think_depth"],
            "num_heads": sizes["codec"] // sizes["think_heads"],
            "feed_forward_dim": one_block.shape[1],
            "quantizer": quantizer_config(weights, "codec.audio_thinking.reasoning_vq."),
        },
        "reconstruction": {
            "dim": sizes["codec"],
            "pronunciation": quantizer_config(weights, "codec.vq_pronunciation_semantic."),
            "structure": quantizer_config(weights, "codec.vq_structure_semantic."),
            "acoustic": quantizer_config(weights, "codec.vq_acoustic."),
        },
        "dit": {
            "width": flow["num_attention_heads"] * flow["attention_head_dim"],
            "num_layers": flow["num_layers"],
            "num_heads": flow["num_attention_heads"],
        },
        "flow": {},
    }
    codec = ReasoningCodec(load_config(CodecConfig, values))
    wanted = codec.state_dict().keys()
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        kind, _, name = key.partition(".")
        ours = codec.published_key(name if kind == "codec" else f"sqcodec:{name}")
        if ours is not None:
            renamed[ours] = value
    codec.load_state_dict(finish_published(renamed, wanted=wanted), strict=True)
    return codec.eval()


@pytest.fixture(scope="module")
def fixture() -> Fixture:
    return load_fixture("codec_pipeline")


@pytest.fixture(scope="module")
def codec(fixture: Fixture) -> ReasoningCodec:
    return build_codec(fixture)


def share_equal(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual == expected).float().mean())


def assert_same_audio(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Equal but for a few samples around latents that round to another ninth."""
    assert actual.shape == expected.shape
    assert float(((actual - expected).abs() <= atol).float().mean()) > 0.97


LEAST_EQUAL = 0.98  # of the codes, by the fixture's tolerance


@torch.no_grad()
def test_encode(fixture: Fixture, codec: ReasoningCodec) -> None:
    codes = codec.encode(fixture["wav"][:, None])
    assert share_equal(codes.reasoning, fixture["encode_segment/reason"]) >= LEAST_EQUAL
    assert share_equal(codes.reconstruction, fixture["encode_segment/rec"]) >= LEAST_EQUAL


@torch.no_grad()
def test_quantizer_inputs(fixture: Fixture, codec: ReasoningCodec) -> None:
    want, atol = fixture.group("encode_segment"), fixture.tolerances["vq_input_atol"]
    audio = fixture["wav"][:, None]
    padded = torch.nn.functional.pad(audio, (0, -audio.shape[2] % 9600))
    features = codec.extract_features(padded)
    assert_close(codec.reasoning.encode_queries(features), want["vq_input_reason"], atol=atol, what="reasoning")
    vectors = codec.reasoning.decode(want["codes_reason"].transpose(1, 2))
    inputs = codec.reconstruction.quantizer_inputs(features, vectors)
    for ours, theirs in (("pronunciation", "phone"), ("structure", "semantic"), ("acoustic", "acoustic")):
        assert_close(inputs[ours], want[f"vq_input_{theirs}"], atol=atol, what=ours)
    output = codec.reconstruction(features, vectors)
    merged = codec.decoder.condition_projection(output.quantized)
    if share_equal(output.codes.transpose(1, 2)[..., :1], want["codes_phone"]) == 1:
        equal = (merged - want["merge_features"]).abs().amax(-1) < atol
        assert float(equal.float().mean()) > 0.9


@torch.no_grad()
def test_encode_with_published_filling(fixture: Fixture, codec: ReasoningCodec) -> None:
    codes = codec.encode(fixture["wav"][:, None], fill="repeat", windows_at_once=2)
    assert share_equal(codes.reasoning, fixture["audio2token/reason"]) >= LEAST_EQUAL
    assert share_equal(codes.reconstruction, fixture["audio2token/rec"]) >= LEAST_EQUAL


@pytest.mark.parametrize("case", ["infer_rec", "infer_both", "infer_context", "infer_start"])
@torch.no_grad()
def test_codes_to_latents(fixture: Fixture, codec: ReasoningCodec, case: str) -> None:
    options = fixture.info["infer"][case]
    codes = AudioCodes(fixture["reason_codes"], fixture["rec_codes"])
    condition = codec.condition(codes, with_reasoning="reason" in options["uses"])
    length = options["incontext_length"]
    latents = codec.decoder.sample(
        condition,
        context=fixture[f"{case}/true_latents"][:, :length] if length else None,
        num_frames=options["latent_length"],
        steps=options["steps"],
        guidance_scale=options["guidance_scale"],
        noise=fixture[f"{case}/noise"],
    )
    assert_close(latents, fixture[f"{case}/latents"], atol=fixture.tolerances["latents_atol"], what=case)


@torch.no_grad()
def test_latents_to_audio(fixture: Fixture, codec: ReasoningCodec) -> None:
    audio = codec.autoencoder.decode(fixture["infer_rec/latents"])
    assert_same_audio(audio, fixture["infer_rec/wav"], fixture.tolerances["wav_atol"])


@pytest.mark.parametrize(
    ("case", "steps", "with_reasoning", "fill"),
    [
        ("decode_segment", 5, True, "silence"),
        ("detokenize_no_reason", 4, False, "repeat"),
        ("detokenize", 4, True, "repeat"),
    ],
)
@torch.no_grad()
def test_decode(
    fixture: Fixture, codec: ReasoningCodec, case: str, steps: int, with_reasoning: bool, fill: Any
) -> None:
    """One-window decoding by the public method; the published one with reasoning codes has windows of 30 s."""
    noise = fixture[f"{case}/noise"]
    values = {"decode_codes": noise.shape[1] // 2} if fill == "repeat" else {}
    codec.config = dataclasses.replace(codec.config, windows=WindowConfig(**values))
    codes = AudioCodes(fixture["reason_codes"], fixture["rec_codes"])
    audio = codec.decode(
        codes, steps=steps, guidance_scale=1.5, with_reasoning=with_reasoning, noise=[noise], fill=fill
    )
    assert_same_audio(audio[:, 0], fixture[f"{case}/wav"], fixture.tolerances["wav_atol"])


def test_preset_has_exactly_the_published_layout() -> None:
    """Every key of the real file has a place of the right shape in the published preset, and no place is left over."""
    pytest.importorskip("transformers")
    layout = load_json("layout_codec")["keys"]
    autoencoder = load_json("codec_pipeline")["config"]["sq"]
    preset = load_config(CodecConfig, preset_path("codec", "published"))
    values = {**config_to_dict(preset), "autoencoder": {"name": "sqcodec", "config": autoencoder}}
    with torch.device("meta"):
        codec = ReasoningCodec(load_config(CodecConfig, values))
    state = {name: value for name, value in codec.state_dict().items() if not name.startswith("autoencoder.")}
    found = set()
    for key, shape in layout.items():
        name = codec.published_key(key)
        if name is None:
            continue
        if name not in state:
            name = re.sub(r"parametrizations\.weight\.original[01]$", "weight", name)
        assert name in state, key
        if not key.endswith("original0"):
            assert list(shape) in (list(state[name].shape), [1, *state[name].shape]), key
        found.add(name)
    assert found == set(state)
