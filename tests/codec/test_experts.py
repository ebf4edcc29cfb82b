"""The experts trained from scratch: rates, local context, batching."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.codec.encoder import file_of
from uniaudio2.codec.experts import ExpertConfig, SoundExpert, SpeechExpert, WhisperExpert, WhisperExpertConfig, rotary
from uniaudio2.codec.mel import LogMel, mel_filters
from uniaudio2.codec.whisper import WhisperConfig

TINY = ExpertConfig(width=32, num_layers=2, num_heads=2, feed_forward=32, kernel_size=5, context_frames=4, num_bands=20)


WHISPER = WhisperConfig(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, padded=False,
    features={"low": 1, "high": 2},
)  # fmt: skip
ON_WHISPER = WhisperExpertConfig(width=32, num_layers=1, num_heads=2, feed_forward=32, whisper=WHISPER)


@pytest.fixture
def speech() -> SpeechExpert:
    torch.manual_seed(0)
    return SpeechExpert(TINY).eval()


def test_feature_shapes_match_what_is_declared(speech: SpeechExpert) -> None:
    audio = torch.randn(2, 1, 9600)
    sound = SoundExpert(TINY).eval()
    for expert in (speech, sound, WhisperExpert(ON_WHISPER).eval()):
        for role, feature in expert(audio).items():
            info = expert.feature_info[role]
            assert feature.shape == (2, round(9600 / 24000 * info.frame_rate_hz), info.channels)


def test_batched_equals_single(speech: SpeechExpert) -> None:
    audio = torch.randn(3, 1, 19200)
    with torch.no_grad():
        together = speech(audio)["phone"]
        alone = torch.cat([speech(a[None])["phone"] for a in audio])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_attention_and_convolution_reach_only_the_context(speech: SpeechExpert) -> None:
    audio = torch.randn(1, 1, 960 * 60)
    changed = audio.clone()
    changed[..., -960:] = 0
    with torch.no_grad():
        a, b = speech(audio)["phone"], speech(changed)["phone"]
    # Two layers of 4 frames of attention and 2 of convolution, and the stem's own reach.
    assert torch.equal(a[:, : 60 - 16], b[:, : 60 - 16])
    assert not torch.allclose(a[:, -1], b[:, -1])


def test_rotary_scores_depend_on_distance_only() -> None:
    q, k = torch.randn(8), torch.randn(8)
    rows = rotary(torch.stack([q] * 6 + [k] * 6).view(2, 1, 6, 8))
    scores = rows[0, 0] @ rows[1, 0].T
    torch.testing.assert_close(scores[0, 2], scores[3, 5], atol=1e-5, rtol=1e-5)
    assert not torch.isclose(scores[0, 2], scores[0, 3])


def test_log_mel_places_a_tone_in_its_band_and_every_hop_gives_a_frame() -> None:
    mel = LogMel(40)
    t = torch.arange(24000) / 24000
    low, high = (mel(torch.sin(2 * torch.pi * f * t)[None, None]) for f in (300.0, 6000.0))
    assert low.shape == (1, 100, 40)
    assert int(low[0, 50].argmax()) < int(high[0, 50].argmax())


def test_filters_have_unit_area() -> None:
    bank = mel_filters(40, 1024, 24000, f_min=20.0)
    torch.testing.assert_close(bank.sum(1), torch.ones(40, dtype=torch.float64))


def test_width_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match="num_heads"):
        ExpertConfig(width=30, num_heads=4)


def test_whisper_below_an_expert_stays_as_it_is() -> None:
    expert = WhisperExpert(ON_WHISPER).unfreeze().train()
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in expert.parameters() if p.requires_grad], lr=1.0)
    expert(torch.randn(1, 1, 9600))["phone"].square().sum().backward()
    optimiser.step()
    moved = {name for name, value in expert.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(name.startswith("whisper.") for name in moved)
    assert not expert.whisper.training
    files = {file_of(expert, name) for name in before if name.startswith("whisper.")}
    assert files == {"whisper"} and file_of(expert, "stem_1.weight") is None


def test_an_expert_hears_each_of_the_whisper_layers() -> None:
    torch.manual_seed(0)
    expert = WhisperExpert(ON_WHISPER).eval()
    frames = expert.frames(torch.randn(1, 1, 9600))
    assert frames.shape == (1, 20, 32)
    given = expert.hidden_states(frames)[-1]
    for layer in (slice(0, 16), slice(16, 32)):
        changed = frames.clone()
        changed[..., layer] = torch.randn_like(changed[..., layer])
        assert not torch.allclose(given, expert.hidden_states(changed)[-1])
