"""Augmentation keeps length and timing, depends on its generator only, and does what each effect is for."""

from __future__ import annotations

import time

import numpy as np
import pytest

from uniaudio2.data.augment import _filter, augment, coloured_noise, speed_perturb


def clip(seconds: float = 2.0) -> np.ndarray:
    t = np.arange(int(seconds * 24000)) / 24000
    return (0.2 * np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * 2 * t) > 0)).astype(np.float32)


def test_same_generator_same_result_and_same_length() -> None:
    wave = clip()
    bank = [coloured_noise(np.random.default_rng(9), 1000, 1.0), clip(5.0)]
    for seed in range(30):
        first = augment(wave, np.random.default_rng(seed), noise_bank=bank)
        second = augment(wave, np.random.default_rng(seed), noise_bank=bank)
        assert np.array_equal(first, second)
        assert first.shape == wave.shape and first.dtype == np.float32
        assert np.isfinite(first).all() and np.abs(first).max() <= 0.99 + 1e-6
    assert not np.array_equal(augment(wave, np.random.default_rng(0)), augment(wave, np.random.default_rng(1)))


def test_strength_zero_changes_nothing_and_input_is_untouched() -> None:
    wave = clip()
    before = wave.copy()
    assert np.array_equal(augment(wave, np.random.default_rng(0), strength=0.0), wave)
    for seed in range(10):
        augment(wave, np.random.default_rng(seed))
    assert np.array_equal(wave, before)


def test_odd_inputs() -> None:
    rng = np.random.default_rng(0)
    for wave in (np.zeros(0, np.float32), np.zeros(100, np.float32), np.ones(1, np.float32)):
        for _ in range(20):
            out = augment(wave, rng)
            assert out.shape == wave.shape and np.isfinite(out).all()
    with pytest.raises(ValueError, match="shape"):
        augment(np.zeros((1, 5), np.float32), rng)
    with pytest.raises(ValueError, match="strength"):
        augment(clip(), rng, strength=2.0)


def test_filter_keeps_level_and_timing() -> None:
    wave = np.zeros(24000, np.float32)
    wave[6000:6200] = 0.5
    for seed in range(10):
        out = _filter(wave, np.random.default_rng(seed), room=True, band=False, tilt=False, strength=1.0)
        assert np.sqrt(np.mean(out**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=1e-3)
        assert np.abs(out[:5990]).max() < 1e-4
        assert 6000 <= np.flatnonzero(np.abs(out) > 0.05 * np.abs(out).max())[0] <= 6010


def test_band_limit_removes_high_frequencies() -> None:
    noise = coloured_noise(np.random.default_rng(0), 48000, 0.0)
    shares = []
    for seed in range(20):
        out = _filter(noise, np.random.default_rng(seed), room=False, band=True, tilt=False, strength=1.0)
        power = np.abs(np.fft.rfft(out)) ** 2
        shares.append(power[power.size * 10 // 12 :].sum() / power.sum())
    assert np.median(shares) < 0.02 < 2 / 12


def test_colour_of_noise() -> None:
    for slope in (0.0, 1.0, 2.0):
        power = np.abs(np.fft.rfft(coloured_noise(np.random.default_rng(0), 240000, slope))) ** 2
        low, high = power[2000:4000].mean(), power[40000:80000].mean()
        assert 10 * np.log10(low / high) == pytest.approx(slope * 10 * np.log10(20), abs=1.0)


def test_speed_changes_length_and_pitch() -> None:
    wave = (0.3 * np.sin(2 * np.pi * 400 * np.arange(24000) / 24000)).astype(np.float32)
    fast = speed_perturb(wave, 1.25)
    assert abs(fast.size - 19200) <= 2
    assert abs(np.argmax(np.abs(np.fft.rfft(fast))) * 24000 / fast.size - 500) < 3
    assert np.array_equal(speed_perturb(wave, 1.0), wave)
    with pytest.raises(ValueError, match="speed factor"):
        speed_perturb(wave, 3.0)


def test_it_is_fast() -> None:
    wave, rng = clip(4.0), np.random.default_rng(0)
    started = time.process_time()
    for _ in range(20):
        augment(wave, rng)
    # The design figure is below 2 ms; the bound leaves room for a busy machine.
    assert (time.process_time() - started) / 80 < 0.01
