"""Whisper's encoder: against transformers, windows, pieces, batches, odd lengths, types."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from uniaudio2.codec.features import build_encoder
from uniaudio2.codec.whisper import WhisperConfig, WhisperEncoder, sinusoids, whisper_log_mel
from uniaudio2.errors import UserError

SIZES = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
SHORT = {**SIZES, "padded": False, "window_s": 2.0, "context_s": 0.4}


def make(**values: object) -> WhisperEncoder:
    torch.manual_seed(0)
    return build_encoder("whisper", values).freeze()


def noise(seconds: float, batch: int = 1) -> Tensor:
    torch.manual_seed(1)
    return 0.1 * torch.randn(batch, 1, round(seconds * 24000))


@torch.no_grad()
def test_equal_to_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

    theirs = Theirs(transformers.WhisperConfig(**SIZES, num_mel_bins=80, max_source_positions=1500)).eval()
    ours = make(**SIZES, features={"first": 0, "middle": 2, "last": -1})
    for parameter in theirs.parameters():  # its own start leaves out what a wrong sum would show
        torch.nn.init.normal_(parameter, std=0.3)
    ours.encoder.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours.state_dict()["encoder.embed_positions.weight"], theirs.embed_positions.weight)
    audio = noise(3.2, 2)[:, 0, : 16000 * 2]
    mel = whisper_log_mel(audio)
    expected = theirs(mel, output_hidden_states=True)
    states = ours.encoder(mel, (0, 2, 3))
    for number, state in states.items():
        torch.testing.assert_close(state, expected.hidden_states[number], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours.encode_16khz(audio, 100), expected.last_hidden_state[:, :100], atol=2e-5, rtol=1e-5)


def test_positions_are_whispers_sinusoids() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import sinusoids as theirs

    assert transformers
    torch.testing.assert_close(sinusoids(50, 16), theirs(50, 16))
    torch.testing.assert_close(make(**SIZES).encoder.embed_positions.weight, sinusoids(1500, 16))


@pytest.mark.parametrize("seconds", [0.005, 0.05, 0.4, 2.0, 2.02, 3.58, 7.0])
@torch.no_grad()
def test_any_length_has_its_frames(seconds: float) -> None:
    encoder = make(**SHORT)
    audio = noise(seconds, 2)
    features = encoder(audio)["speech"]
    assert features.shape == (2, -(-audio.shape[2] // 480), 16)
    assert torch.isfinite(features).all()
    torch.testing.assert_close(encoder(audio[1:])["speech"], features[1:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_windows_give_what_their_own_audio_gives() -> None:
    encoder = make(**SHORT)
    audio = noise(5.0)
    features = encoder(audio)["speech"]
    # Windows of 2 s start every 1.2 s; each gives 1.2 s from its middle, the first and last also their ends.
    for start, (first, last) in {0: (0, 80), 60: (80, 140), 120: (140, 200)}.items():
        window = encoder(audio[:, :, start * 480 : (start + 100) * 480])["speech"]
        torch.testing.assert_close(features[:, first:last], window[:, first - start : last - start])
    window = encoder(audio[:, :, 180 * 480 :])["speech"]
    torch.testing.assert_close(features[:, 200:], window[:, 20:])
    # So a frame depends on nothing after its window.
    changed = audio.clone()
    changed[:, :, 100 * 480 :] = 0.0
    torch.testing.assert_close(encoder(changed)["speech"][:, :80], features[:, :80], atol=0.0, rtol=0.0)
    assert not torch.allclose(encoder(changed)["speech"][:, 80:], features[:, 80:])


@torch.no_grad()
def test_pieces_of_any_size_make_no_difference() -> None:
    encoder = make(**SHORT)
    audio = noise(6.1)
    whole = encoder(audio)["speech"]
    for sizes in ((1000,), (48000, 1), (17, 40000, 480)):
        places = list(itertools.accumulate(itertools.islice(itertools.cycle(sizes), 200_000 // min(sizes)), initial=0))
        pieces = [audio[:, :, a:b] for a, b in itertools.pairwise(places) if a < audio.shape[2]]
        given = [out["speech"] for out in encoder.stream(pieces)]
        assert max(out.shape[1] for out in given) <= 80 + 20
        torch.testing.assert_close(torch.cat(given, 1), whole, atol=0.0, rtol=0.0)
    assert not list(encoder.stream([]))


@torch.no_grad()
def test_a_window_is_given_as_soon_as_it_is_full() -> None:
    encoder = make(**SHORT)
    heard = 0.0
    audio = noise(10.0)

    def pieces() -> object:
        """Tenths of a second, counted as they are taken."""
        nonlocal heard
        for piece in audio.split(2400, 2):
            heard += 0.1
            yield piece

    stream = encoder.stream(pieces())  # pyright: ignore[reportArgumentType]
    next(stream)
    assert heard == pytest.approx(2.1)
    next(stream)
    assert heard == pytest.approx(3.3)


@torch.no_grad()
def test_features_are_hidden_states_and_unused_layers_are_not_computed() -> None:
    whole, early = make(**SHORT, features={"speech": -1, "phone": 1}), make(**SHORT, features={"phone": 1})
    audio = noise(1.0)
    features = whole(audio)
    assert set(features) == set(whole.feature_info) == {"speech", "phone"}
    torch.testing.assert_close(early(audio)["phone"], features["phone"])
    assert not torch.allclose(features["speech"], features["phone"])
    early.encoder.layers[1].forward = None  # type: ignore[assignment]
    early(audio)


@torch.no_grad()
def test_bfloat16_is_near() -> None:
    encoder, audio = make(**SHORT), noise(1.0)
    exact = encoder(audio)["speech"]
    rounded = encoder.to(torch.bfloat16)(audio)["speech"]
    assert rounded.dtype == torch.bfloat16
    assert float((rounded.float() - exact).norm() / exact.norm()) < 0.02


def test_it_learns_when_it_is_not_frozen() -> None:
    encoder = make(**SHORT).unfreeze().train()
    encoder(noise(1.0))["speech"].square().mean().backward()
    assert encoder.encoder.conv1.weight.grad is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 15}, "even and a multiple of its 2 heads"),
        ({"features": {}}, "at least one hidden state"),
        ({"features": {"speech": 4}}, "'speech' is hidden state 4, but they go from 0 to 3"),
        ({"padded": False, "window_s": 31.0}, "window_s 31 must .* at most 30"),
        ({"padded": False, "context_s": 10.0}, "above twice context_s"),
    ],
)
def test_impossible_values_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WhisperConfig(**{**SIZES, **values})
