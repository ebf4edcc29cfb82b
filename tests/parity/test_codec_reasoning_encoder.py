"""The reasoning branch: merged features, query insertion, blocks, queries, codes."""

import pytest
import torch

from tests.parity.fixtures import Fixture, assert_close, load_fixture
from uniaudio2.codec.codec import finish_published
from uniaudio2.codec.features import FeatureInfo
from uniaudio2.codec.quantize import QuantizerConfig
from uniaudio2.codec.reasoning import ReasoningConfig, ReasoningEncoder, rename_published


def build_reasoning(fixture: Fixture, prefix: str = "audio_thinking.") -> ReasoningEncoder:
    renamed = {rename_published(k.removeprefix(prefix)): v for k, v in fixture.weights.items() if k.startswith(prefix)}
    renamed.pop(None, None)
    state = finish_published(renamed, wanted=())
    sizes = fixture.info["config"]
    config = ReasoningConfig(
        dim=sizes["codec"],
        num_layers=sizes["think_depth"],
        num_heads=sizes["codec"] // sizes["think_heads"],
        feed_forward_dim=state["blocks.0.feed_forward.down.weight"].shape[1],
        quantizer=QuantizerConfig(
            sum(name.endswith(".codebook") for name in state), sizes["reason_codes"], sizes["reason_dim"]
        ),
        frames_per_query=sizes["interval"],
    )
    whisper = state["downsample.speech.weight"].shape[0]
    info = {
        "speech": FeatureInfo(whisper, 50.0),
        "semantic": FeatureInfo(state["merge.weight"].shape[1] - whisper, 25.0),
    }
    encoder = ReasoningEncoder(config, info)
    encoder.load_state_dict(state, strict=True)
    return encoder.eval()


@pytest.mark.parametrize("case", ["even", "short_whisper"])
@torch.no_grad()
def test_stages(case: str) -> None:
    fixture = load_fixture("codec_reasoning_encoder")
    atol = fixture.tolerances["atol"]
    encoder = build_reasoning(fixture)
    want = fixture.group(case)
    features = {"speech": want["whisper"].transpose(1, 2), "semantic": want["music"].transpose(1, 2)}
    merged = encoder.merge_features(features)
    assert_close(merged, want["merged"], atol=atol, what="merged")
    x = encoder.insert_queries(merged)
    assert_close(x, want["with_queries"], atol=atol, what="with queries")
    for block in encoder.blocks:
        x = block(x)
    assert_close(x, want["encoded"], atol=atol, what="encoded")
    assert_close(encoder.encode_queries(features), want["queries"], atol=atol, what="queries")
    result = encoder(features)
    assert torch.equal(result.codes.transpose(1, 2), want["codes"])
    assert_close(result.quantized, want["quantized"], atol=atol, what="quantized")


@torch.no_grad()
def test_block() -> None:
    fixture = load_fixture("codec_reasoning_encoder")
    atol = fixture.tolerances["atol"]
    block = build_reasoning(fixture).blocks[0]
    want = fixture.group("block")
    assert_close(block.attention(want["x"]), want["attn"], atol=atol, what="attention")
    assert_close(block.feed_forward(want["x"]), want["ff"], atol=atol, what="feed-forward")
    assert_close(block(want["x"]), want["out"], atol=atol, what="block")
