"""Where somebody speaks: the network against the package's own, silence and noise, long recordings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from torch import Tensor

import uniaudio2
from uniaudio2.audio import SAMPLE_RATE, Recording, open_audio, read_audio
from uniaudio2.errors import UserError
from uniaudio2.voice_activity import CONTEXT, FRAME, cut, find_speech, load_detector, speech_probabilities

ASSETS = Path(uniaudio2.__file__).parent / "demo_assets"
WORDS = ("keyword_alexa", "keyword_computer", "digit_seven")


def word(name: str) -> Tensor:
    return read_audio(ASSETS / f"{name}.opus")


def silence(seconds: float, level_db: float | None = None) -> Tensor:
    audio = torch.zeros(1, round(seconds * SAMPLE_RATE))
    if level_db is not None:
        audio = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0)) * 10 ** (level_db / 20)
    return audio


def test_network_equals_the_packages_own() -> None:
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None and spec.submodule_search_locations
    theirs = torch.jit.load(str(Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.jit"))
    audio = torch.from_numpy(soxr.resample(word("keyword_computer")[0].numpy(), SAMPLE_RATE, 16000))
    audio = torch.nn.functional.pad(audio, (0, -len(audio) % FRAME))[None]
    names = {"stft_conv.weight": "stft.forward_basis_buffer", "final_conv.bias": "decoder.decoder.2.bias"}
    names |= {
        f"conv{n}.{part}": f"encoder.{n - 1}.reparam_conv.{part}" for n in range(1, 5) for part in ("weight", "bias")
    }
    names |= {f"lstm.{kind}_l0": f"decoder.rnn.{kind}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    state = theirs.state_dict()  # of another version: the same network, other weights
    for name, value in load_detector().state_dict().items():
        if name in names:
            state[f"_model.{names[name]}"].copy_(value)
    state["_model.decoder.decoder.2.weight"].copy_(load_detector().final_conv.weight[..., None])
    expected = theirs.audio_forward(audio, 16000)
    ours, _ = load_detector()(torch.nn.functional.pad(audio, (CONTEXT, 0)))
    assert torch.allclose(ours, expected, atol=1e-5)


def test_blocks_do_not_matter() -> None:
    audio = torch.cat([silence(0.7), word("digit_seven"), silence(0.4)], 1)
    whole = np.concatenate(list(speech_probabilities([audio])))
    parts = np.concatenate(list(speech_probabilities(iter(audio.split(5000, dim=1)))))
    assert whole.shape == parts.shape and np.allclose(whole, parts, atol=1e-4)


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("before_s", [0.0, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("level_db", [None, -60.0])
def test_a_word_is_found_wherever_it_is(name: str, before_s: float, level_db: float | None) -> None:
    said = word(name)
    audio = torch.cat([silence(before_s, level_db), said, silence(2.0, level_db)], 1)
    (found,) = find_speech(Recording.of(audio), 0.3)
    start = round(before_s * SAMPLE_RATE)
    assert start - 0.3 * SAMPLE_RATE <= found.start < found.end <= start + said.shape[1] + 0.4 * SAMPLE_RATE
    assert found.first >= start - SAMPLE_RATE and found.last <= audio.shape[1]


@pytest.mark.parametrize("level_db", [None, -60.0, -40.0, -20.0])
def test_nobody_speaks_in_silence_and_noise(level_db: float | None) -> None:
    assert find_speech(Recording.of(silence(4.0, level_db)), 0.3) == []


def test_short_silence_is_left_alone() -> None:
    audio = torch.cat([silence(0.4), word("digit_seven"), silence(0.4)], 1)
    (found,) = find_speech(Recording.of(audio), 0.3)
    assert (found.first, found.last) == (0, audio.shape[1])


def test_stretches_are_cut_out_whatever_the_blocks() -> None:
    gap = silence(3.0)
    audio = torch.cat([word(WORDS[0]), gap, word(WORDS[1]), gap, word(WORDS[2])], 1)
    stretches = find_speech(Recording.of(audio), 0.3)
    assert len(stretches) == 3
    for size in (1000, 50_000, audio.shape[1]):
        taken = [torch.cat(list(blocks), 1) for _, blocks in cut(audio.split(size, dim=1), stretches)]
        for stretch, part in zip(stretches, taken, strict=True):
            assert torch.equal(part, audio[:, stretch.first : stretch.last])


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load_detector.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install silero-vad"):
        load_detector()
    load_detector.cache_clear()


def test_words_of_real_users(shared: Path) -> None:
    path = shared / "cases" / "words_at_5_25_45.flac"
    if not path.exists():
        pytest.skip("the file is kept beside the checkout only")
    starts = [stretch.start / SAMPLE_RATE for stretch in find_speech(open_audio(path), 0.3)]
    assert np.allclose(starts, [5.5, 25.5, 45.5], atol=0.6)


def test_captions_say_what_is_speech() -> None:
    model = uniaudio2.UniAudio2.from_pretrained(device="cpu")
    said = model.caption([ASSETS / "keyword_computer.opus", ASSETS / "sound_dog.opus"])
    assert said[0].text == "a person speaking"
    assert "dog" in said[1].text and "speaking" not in said[1].text


def test_noise_has_no_transcript() -> None:
    model = uniaudio2.UniAudio2.from_pretrained(device="cpu")
    quiet, word_later = silence(3.0, -60.0), torch.cat([silence(4.0, -60.0), word("keyword_computer")], 1)
    nothing, something = model.transcribe([quiet, word_later])
    assert (nothing.text, nothing.segments, nothing.no_speech_probability) == ("", (), 1.0)
    assert something.text == "computer" and abs(something.segments[0].start_s - 4.4) < 0.6
