"""Judges of comparisons: what they prefer on real speech, what they say where they are not at hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from uniaudio2.data.example import Example
from uniaudio2.data.sources import read_set
from uniaudio2.errors import UserError
from uniaudio2.eval import frechet
from uniaudio2.eval.context import Clip
from uniaudio2.eval.frechet import Moments, axes_of, distances, pooled
from uniaudio2.eval.judges import JUDGES, find_judges


def clip(kind="speech", **fields):
    example = Example(id="x", path="x.wav", duration=1.0, kind=kind, **fields)
    return Clip(example, lambda: torch.zeros(1, 24000))


@pytest.fixture
def readers(shared):
    """Two recordings of each of two readers, by reader."""
    found: dict[str, list] = {}
    for example in read_set(shared / "data", "librispeech_text", split="dev"):
        own = found.setdefault(str(example.speaker), [])
        if len(own) < 2 and len(found) <= 2:
            own.append(example)
    return [[example.audio() for example in own] for own in list(found.values())[:2]]


def test_a_voice_is_more_like_itself(readers):
    pytest.importorskip("resemblyzer")
    judge = JUDGES["similarity"]("whisper")
    (first, second), (other, _) = readers

    def like(wave, wanted):
        return judge.score(wave, clip(), wanted)["similarity"]

    assert like(first, first) == pytest.approx(1, abs=1e-4)
    assert like(first, second) > like(first, other) + 0.1
    assert math.isnan(like(first, torch.zeros(1, 24000)))
    assert judge.score(first, clip(), None) == {} == judge.score(first, clip(kind="sound"), second)
    assert "Resemblyzer" in judge.title


def test_noise_is_worse_by_dnsmos(readers):
    pytest.importorskip("speechmos")
    judge = JUDGES["dnsmos"]("whisper")
    wave = readers[0][0][:, : 9 * 24000]
    noisy = wave + 0.05 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0))
    clean, bad = (judge.score(one, clip(), None) for one in (wave, noisy))
    assert clean["dnsmos_ovrl"] > bad["dnsmos_ovrl"] + 0.3 and clean["dnsmos_bak"] > bad["dnsmos_bak"] + 0.3
    assert judge.score(wave, clip(kind="music"), None) == {}


def test_a_classifier_hears_the_class_that_it_knows(monkeypatch):
    class Knows:
        labels = ("rain", "dog_bark")

        def classify(self, waves):
            return ["rain"] * len(waves)

    monkeypatch.setattr("uniaudio2.eval.classifier.SoundClassifier.trained", lambda *args, **options: Knows())
    monkeypatch.setattr("uniaudio2.data.sources.find_data_root", lambda *args: None)
    monkeypatch.setattr("uniaudio2.data.sources.read_set", lambda *args, **options: [])
    judge = JUDGES["classifier"]("whisper")
    scores = [
        judge.score(torch.zeros(1, 100), clip("sound", label=label), None) for label in ("rain", "dog_bark", "siren")
    ]
    assert scores == [{"class_heard": 1.0}, {"class_heard": 0.0}, {}]


@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [("similarity", "resemblyzer", "pip install --no-deps resemblyzer"), ("dnsmos", "speechmos", r"uniaudio2[judges]")],
)
def test_one_that_is_missing_leaves_a_note(name, package, remedy, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    found, notes = find_judges([name])
    assert found == {} and len(notes) == 1
    assert notes[0].startswith(f"No figures by {name}: ") and remedy in notes[0]


def test_a_classifier_without_its_data_leaves_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIAUDIO2_DATA", str(tmp_path))
    found, notes = find_judges(["classifier"])
    assert found == {} and notes[0].startswith("No figures by classifier: ")
    with pytest.raises(UserError, match="unknown judge 'nobody'; there are whisper, dnsmos, similarity"):
        find_judges(["nobody"])


# ---------------------------------------------------------------------------------------------- Fréchet distance


def frames(mean, spread, seed, count=4000):
    return np.random.default_rng(seed).normal(mean, spread, (count, 3))


def test_distance_of_normal_distributions():
    first, second = Moments.of(frames(0, 1, 0)), Moments.of(frames(1, 2, 1))
    # Three channels, each |1 - 0|^2 + (2 - 1)^2.
    assert frechet.frechet(first, second) == pytest.approx(6, rel=0.05)
    assert frechet.frechet(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet.frechet(first, second) == pytest.approx(frechet.frechet(second, first))


def test_moments_of_parts_are_those_of_the_whole():
    whole = frames(2, 1, 0)
    parts = [Moments.of(whole[:1000]), Moments.of(whole[1000:])]
    together = pooled(parts)
    np.testing.assert_allclose(together.mean, whole.mean(0))
    np.testing.assert_allclose(together.covariance, np.cov(whole.T, bias=True))
    twice = pooled(parts, [2, 0])
    np.testing.assert_allclose(twice.mean, parts[0].mean)
    axes = axes_of(together, 2)
    np.testing.assert_allclose(together.along(axes).covariance, np.cov((whole @ axes).T, bias=True), atol=1e-9)


def test_the_interval_holds_the_value_and_pairs_systems(monkeypatch):
    monkeypatch.setattr(frechet, "DRAWS", 60)
    real = [Moments.of(frames(0, 1, seed, 200)) for seed in range(8)]
    near, far = ([Moments.of(frames(mean, 1, 50 + seed, 200)) for seed in range(8)] for mean in (0.1, 1.0))
    close, difference = distances(real, near), distances(real, far, near)
    assert close.low <= close.value <= close.high and close.count == 8
    assert difference.low > 0 and difference.value == pytest.approx(distances(real, far).value - close.value)


@pytest.mark.slow
def test_whisper_hears_that_noise_is_not_speech(readers):
    embed = frechet.whisper_frames()
    first, second = readers[0]
    real, speech = Moments.of(embed(first)), Moments.of(embed(second))
    noise = Moments.of(embed(0.1 * torch.randn(first.shape, generator=torch.Generator().manual_seed(0))))
    assert real.total.shape == (512,) and real.frames == pytest.approx(first.shape[1] / 480, abs=1)
    axes = axes_of(real)
    near, away = (frechet.frechet(real.along(axes), other.along(axes)) for other in (speech, noise))
    assert near < 0.3 * away  # 2.5 and 11.3
    assert len(embed(torch.zeros(1, 10))) > 0  # very short
