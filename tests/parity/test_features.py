"""Resampling and the three published feature encoders."""

import re

import pytest
import torch

from tests.parity.fixtures import Fixture, assert_close, load_fixture, load_json
from uniaudio2.codec.conformer import MusicFM, MusicFMConfig, htk_filters, mel_spectrogram_db
from uniaudio2.codec.features import (
    AudioEncoder,
    MusicFMEncoder,
    WavLMConfig,
    WavLMEncoder,
    WhisperConfig,
    WhisperEncoder,
    build_encoder,
    resample,
    whisper_log_mel,
)


def load_encoder(encoder: WhisperEncoder | WavLMEncoder | MusicFMEncoder, fixture: Fixture) -> AudioEncoder:
    """Load a published state strictly through the encoder's key map, then freeze."""
    prefix = encoder.published_prefix
    assert all(key.startswith(prefix) for key in fixture.weights)
    renamed = {encoder.rename_published(key.removeprefix(prefix)): value for key, value in fixture.weights.items()}
    renamed.pop(None, None)
    encoder.load_state_dict(renamed, strict=True)
    return encoder.freeze()


class TestResample:
    @pytest.fixture(scope="class")
    def fixture(self) -> Fixture:
        return load_fixture("resample")

    def test_to_16khz(self, fixture: Fixture) -> None:
        config = fixture.info["config"]
        options = {"num_zeros": config["lowpass_filter_width"], "rolloff": config["rolloff"]}
        for name in ("wav", "impulse", "noise"):
            out = resample(fixture[f"{name}24"], 24000, 16000, **options)
            assert_close(out, fixture[f"{name}16"], **fixture.tolerances, what=name)

    def test_from_file_rates(self, fixture: Fixture) -> None:
        rates = [int(match[1]) for key in fixture.tensors if (match := re.fullmatch(r"from(\d+)", key))]
        assert rates
        for rate in rates:
            out = resample(fixture[f"from{rate}"], rate, 24000, kernel_dtype=torch.float32)
            assert_close(out, fixture[f"from{rate}_to24k"], **fixture.tolerances, what=f"{rate} Hz")


class TestWhisper:
    @pytest.fixture(scope="class")
    def fixture(self) -> Fixture:
        return load_fixture("whisper_features")

    @pytest.fixture(scope="class")
    def encoder(self, fixture: Fixture) -> WhisperEncoder:
        pytest.importorskip("transformers")
        encoder = WhisperEncoder(WhisperConfig(**fixture.info["config"]))
        load_encoder(encoder, fixture)
        return encoder

    def test_log_mel(self, fixture: Fixture) -> None:
        mel = whisper_log_mel(fixture["wav16"], num_mels=fixture.info["config"]["num_mel_bins"])
        atol = fixture.tolerances["mel_atol"]
        head, tail = fixture["mel_head"], fixture["mel_tail"]
        assert_close(mel[:, :, : head.shape[2]], head, atol=atol, what="first frames")
        assert_close(mel[:, :, -tail.shape[2] :], tail, atol=atol, what="last frames")
        assert_close(mel.mean(2), fixture["mel_mean"], atol=atol, what="mean")

    @torch.no_grad()
    def test_features(self, fixture: Fixture, encoder: WhisperEncoder) -> None:
        atol = fixture.tolerances["features_atol"]
        for name in ("features", "features_longer"):
            expected = fixture[name].transpose(1, 2)
            out = encoder.encode_16khz(fixture["wav16"], expected.shape[1])
            assert_close(out, expected, atol=atol, what=name)
        all_frames = encoder.encode_16khz(fixture["wav16"], fixture.info["config"]["max_source_positions"])
        first, last = fixture["hidden_first"], fixture["hidden_last"]
        assert_close(all_frames[:, : first.shape[1]], first, atol=atol, what="first frames")
        assert_close(all_frames[:, -last.shape[1] :], last, atol=atol, what="last frames")

    @torch.no_grad()
    def test_from_24khz(self, fixture: Fixture, encoder: WhisperEncoder) -> None:
        resampled = load_fixture("resample")
        if not torch.allclose(resampled["wav16"], fixture["wav16"], atol=1e-5):
            pytest.skip("the resample and whisper_features fixtures hold different audio")
        out = encoder(resampled["wav24"][:, None])["speech"]
        expected = fixture["features"].transpose(1, 2)
        assert out.shape[1] == fixture.info["frames_returned"] == 2 * fixture.info["music_frames"]
        assert_close(out, expected, atol=fixture.tolerances["features_atol"], what="features")


class TestWavLM:
    @pytest.fixture(scope="class")
    def fixture(self) -> Fixture:
        return load_fixture("wavlm_features")

    @torch.no_grad()
    def test_features(self, fixture: Fixture) -> None:
        pytest.importorskip("transformers")
        values = {k: v for k, v in fixture.info["config"].items() if k in WavLMConfig.__dataclass_fields__}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        encoder = WavLMEncoder(WavLMConfig(**values))
        load_encoder(encoder, fixture)
        out = encoder(fixture["wav24"][:, None])["phone"]
        assert_close(out, fixture["features"].transpose(1, 2), **fixture.tolerances, what="features")
        capped = fixture["features_capped"].transpose(1, 2)
        assert_close(out[:, : capped.shape[1]], capped, **fixture.tolerances, what="capped")


class TestMusicFM:
    @pytest.fixture(scope="class")
    def fixture(self) -> Fixture:
        return load_fixture("musicfm_features")

    @pytest.fixture(scope="class")
    def encoder(self, fixture: Fixture) -> MusicFMEncoder:
        encoder = MusicFMEncoder(music_config(fixture))
        load_encoder(encoder, fixture)
        return encoder

    def test_filters_equal_the_stored_ones(self, fixture: Fixture) -> None:
        info = fixture.info["config"]
        stored = fixture.weights[f"{MusicFMEncoder.published_prefix}preprocessor_melspec_2048.mel_stft.mel_scale.fb"]
        filters = htk_filters(info["n_fft"] // 2 + 1, info["n_mels"], info["sample_rate"])
        assert_close(filters, stored, atol=1e-4, what="mel filters")

    @torch.no_grad()
    def test_mel(self, fixture: Fixture, encoder: MusicFMEncoder) -> None:
        atol = fixture.tolerances["mel_atol"]
        assert_close(
            mel_spectrogram_db(fixture["wav24"], encoder.config), fixture["mel_db"], atol=atol, what="mel in dB"
        )
        mel = encoder.encoder.log_mel(fixture["wav24"])
        assert_close(mel, fixture["mel_normalised"], atol=atol, what="normalised mel")

    @torch.no_grad()
    def test_features(self, fixture: Fixture, encoder: MusicFMEncoder) -> None:
        atol = fixture.tolerances["features_atol"]
        after_conv = encoder.encoder.subsampling(encoder.encoder.log_mel(fixture["wav24"]))
        assert_close(after_conv, fixture["after_conv"], atol=atol, what="subsampling")
        out = encoder(fixture["wav24"][:, None])
        for role in ("acoustic", "semantic"):
            assert_close(out[role], fixture[role].transpose(1, 2), atol=atol, what=role)

    @torch.no_grad()
    def test_all_layers(self, fixture: Fixture) -> None:
        last = MusicFMEncoder(music_config(fixture, semantic_layer=fixture.info["config"]["depth"]))
        load_encoder(last, fixture)
        states = last.encoder(fixture["wav24"])
        atol = fixture.tolerances["features_atol"]
        assert_close(states[0], fixture["hidden0"], atol=atol, what="hidden state 0")
        assert isinstance(last.encoder, MusicFM)
        published_norm = {k.rsplit(".", 1)[1]: v for k, v in fixture.weights.items() if "conformer.layer_norm." in k}
        normed = torch.nn.functional.layer_norm(
            states[-1], states[-1].shape[-1:], published_norm["weight"], published_norm["bias"]
        )
        # The published model lists its last hidden state after the encoder's final norm.
        assert_close(normed, fixture[f"hidden{last.config.depth}"], atol=atol, what="last hidden state")


@pytest.mark.parametrize("name", ["whisper", "wavlm", "musicfm"])
def test_default_sizes_and_key_maps_fit_the_published_layout(name: str) -> None:
    layout = load_json("layout_codec")["keys"]
    if name != "musicfm":
        pytest.importorskip("transformers")
    with torch.device("meta"):
        encoder = build_encoder(name, {})
    prefix = encoder.published_prefix
    mapped = {
        encoder.rename_published(key.removeprefix(prefix)): list(shape)
        for key, shape in layout.items()
        if key.startswith(prefix)
    }
    mapped.pop(None, None)
    assert mapped == {key: list(value.shape) for key, value in encoder.state_dict().items()}


def music_config(fixture: Fixture, semantic_layer: int | None = None) -> MusicFMConfig:
    """The encoder's config, from the names of the published one."""
    info = fixture.info["config"]
    return MusicFMConfig(
        encoder_dim=info["encoder_dim"],
        conv_dim=info["conv_dim"],
        num_heads=info["heads"],
        intermediate_size=info["inter"],
        depth=info["depth"],
        depthwise_kernel_size=info["dw"],
        num_mels=info["n_mels"],
        fft_size=info["n_fft"],
        hop_length=info["hop"],
        **({} if semantic_layer is None else {"semantic_layer": semantic_layer}),
    )
