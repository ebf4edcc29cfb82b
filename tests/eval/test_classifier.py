import pytest
import torch

from uniaudio2.audio import write_audio
from uniaudio2.data.sources import read_set
from uniaudio2.eval import classifier
from uniaudio2.eval.classifier import FRAMES, NearestClip, SoundClassifier, picture


@pytest.fixture
def train(data_root):
    return read_set(data_root, "esc10", split="train")


def test_it_learns_three_tones_and_is_cached(train, data_root, tmp_path):
    state = torch.get_rng_state()
    judge = SoundClassifier.trained(train, cache=tmp_path, epochs=50)
    assert torch.equal(state, torch.get_rng_state())  # nobody else's randomness is touched
    dev = read_set(data_root, "esc10", split="dev")
    named = judge.classify([example.audio() for example in dev])
    assert sum(a == e.label for a, e in zip(named, dev, strict=True)) >= 5
    assert judge.probabilities([dev[0].audio()]).sum() == pytest.approx(1, abs=1e-5)
    again = SoundClassifier.trained(train, cache=tmp_path, epochs=50)
    assert torch.equal(judge.probabilities([dev[0].audio()]), again.probabilities([dev[0].audio()]))
    assert len(list(tmp_path.glob("sound-classifier-*.safetensors"))) == 1


def test_clips_without_labels_are_refused(train):
    with pytest.raises(ValueError, match="two classes"):
        SoundClassifier.trained(train[:2])


def test_an_unwritable_cache_is_no_error(train, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert SoundClassifier.trained(train, cache=blocked / "cache", epochs=1).labels == (
        "dog_bark",
        "helicopter",
        "rain",
    )


def test_picture_ignores_level_and_padding(tone):
    clip = tone(1.0, 800)
    padded = torch.cat([torch.zeros(1, 12000), 0.1 * clip, torch.zeros(1, 48000)], 1)
    assert picture(clip).shape == (80, FRAMES)
    assert float((picture(clip) - picture(padded)).abs().mean()) < 0.25
    assert picture(torch.zeros(1, 10)).shape == (80, FRAMES)


def test_a_copy_is_found_even_if_shifted_and_recoded(train, tmp_path):
    nearest = NearestClip(train)
    original = train[5].audio()
    write_audio(tmp_path / "copy.wav", 0.5 * original.roll(6000, 1))
    name, distance = nearest.find(0.5 * original.roll(6000, 1))
    assert name == train[5].id
    noise = torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    assert nearest.find(noise)[1] > 3 * distance
    with pytest.raises(ValueError, match="no training clips"):
        NearestClip([])


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIAUDIO2_CACHE", str(tmp_path))
    assert classifier.cache_folder() == tmp_path
