import math

import pytest
import torch

from uniaudio2.codec.features import (
    ENCODERS,
    AudioEncoder,
    WavLMConfig,
    build_encoder,
    resample,
    whisper_log_mel,
)
from uniaudio2.config import ConfigError

TINY: dict[str, dict] = {
    "whisper": {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24},
    "wavlm": {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "num_buckets": 16,
        "max_bucket_distance": 40,
        "feature_layers": [1, 2],
    },
    "musicfm": {
        "encoder_dim": 16,
        "conv_dim": 4,
        "num_heads": 2,
        "intermediate_size": 24,
        "depth": 3,
        "depthwise_kernel_size": 5,
        "acoustic_layer": 1,
        "semantic_layer": 2,
    },
}


def make_encoder(name: str) -> AudioEncoder:
    if name == "wavlm":
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    return build_encoder(name, TINY.get(name, {})).freeze()


@pytest.mark.parametrize("name", sorted(ENCODERS))
@torch.no_grad()
def test_features_are_as_declared(name: str) -> None:
    encoder = make_encoder(name)
    audio = torch.randn(2, 1, 2 * 9600) * 0.1
    features = encoder(audio)
    assert set(features) == set(encoder.feature_info)
    for role, info in encoder.feature_info.items():
        frames = round(audio.shape[2] / 24000 * info.frame_rate_hz)
        assert features[role].shape == (2, frames, info.channels), role
    for i in range(2):
        for role, single in encoder(audio[i : i + 1]).items():
            torch.testing.assert_close(features[role][i : i + 1], single, atol=1e-4, rtol=1e-3)


def test_frozen_encoders_stay_in_evaluation_mode() -> None:
    encoder = make_encoder("musicfm")
    parent = torch.nn.ModuleDict({"musicfm": encoder}).train()
    assert parent.training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    fresh = build_encoder("musicfm", TINY["musicfm"]).train()
    assert fresh.training


def test_audio_over_30_s_is_refused_by_whisper() -> None:
    encoder = make_encoder("whisper")
    with pytest.raises(ValueError, match=r"at most 30 s .* windows"):
        encoder(torch.zeros(1, 1, 24000 * 31))


def test_unknown_name_and_values() -> None:
    with pytest.raises(ConfigError, match="whisper, wavlm, musicfm"):
        build_encoder("hubert", {})
    with pytest.raises(ConfigError, match="d_modle"):
        build_encoder("whisper", {"d_modle": 3})
    with pytest.raises(ValueError, match="feature_layers"):
        WavLMConfig(feature_layers=(13,))


def test_only_needed_layers_are_built_and_mapped() -> None:
    wavlm = make_encoder("wavlm")
    state = wavlm.state_dict()
    assert not any("encoder.layers.2." in key for key in state)
    assert wavlm.rename_published("encoder.layers.2.attention.k_proj.weight") is None
    assert wavlm.rename_published("masked_spec_embed") is None
    for spelling in ("weight_g", "parametrizations.weight.original0"):
        assert wavlm.rename_published(f"encoder.pos_conv_embed.conv.{spelling}") in state
    music = make_encoder("musicfm")
    assert music.rename_published("conformer.layers.2.ffn1.output_dense.bias") is None
    assert music.rename_published("conformer.layers.1.ffn1.output_dense.bias") in music.state_dict()
    assert music.rename_published("cls_token") is None
    with pytest.raises(KeyError):
        music.rename_published("conformer.layers.1.ffn3.output_dense.bias")


class TestResample:
    def test_same_rate_is_untouched(self) -> None:
        audio = torch.randn(2, 50)
        assert resample(audio, 24000, 24000) is audio

    def test_a_tone_stays_a_tone_and_what_is_above_nyquist_goes(self) -> None:
        t24 = torch.arange(24000, dtype=torch.float64) / 24000
        t16 = torch.arange(16000, dtype=torch.float64) / 16000
        low = resample(torch.sin(2 * math.pi * 440 * t24), 24000, 16000)
        inner = slice(100, -100)
        torch.testing.assert_close(low[inner], torch.sin(2 * math.pi * 440 * t16)[inner], atol=2e-3, rtol=0)
        assert resample(torch.sin(2 * math.pi * 10500 * t24), 24000, 16000)[inner].abs().max() < 0.02

    def test_shapes(self) -> None:
        assert resample(torch.zeros(2, 3, 2399), 24000, 16000).shape == (2, 3, 1600)
        assert resample(torch.zeros(1), 16000, 24000).shape == (2,)


def test_whisper_log_mel_range_and_padding() -> None:
    audio = torch.randn(2, 1600) * 0.1
    mel = whisper_log_mel(audio, num_samples=3200)
    assert mel.shape == (2, 80, 20)
    span = mel.amax((1, 2)) - mel.amin((1, 2))
    torch.testing.assert_close(span, torch.full((2,), 2.0))
    torch.testing.assert_close(whisper_log_mel(audio[:1], num_samples=3200), mel[:1])
