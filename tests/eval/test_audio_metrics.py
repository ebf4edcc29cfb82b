import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from uniaudio2.codes import Stream
from uniaudio2.eval import audio_metrics as m

RATE = 24000
SHARED = Path(os.environ.get("UNIAUDIO2_SHARED") or Path(__file__).parents[3] / "shared")
SEED_DEMO = SHARED / "data" / "seed_demo"


def voice(f0=120.0, seconds=1.5, seed=0):
    """A pulse train through two resonances, gated like syllables, with a little noise."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    out = np.zeros(n)
    out[(np.arange(0, seconds - 0.01, 1 / f0) * RATE).astype(int)] = 1.0
    for frequency, radius in ((600, 0.97), (1800, 0.96)):
        a1, a2 = 2 * radius * math.cos(2 * math.pi * frequency / RATE), -(radius**2)
        y = np.zeros(n)
        for i in range(n):
            y[i] = out[i] + a1 * y[i - 1] + a2 * y[i - 2]
        out = y
    gate = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(n) / RATE)
    return 0.3 * (out / np.abs(out).max()) * gate + 1e-3 * rng.standard_normal(n)


@pytest.fixture(scope="module")
def speech():
    return voice()


def test_identity_is_perfect(speech):
    scores = m.reconstruction_scores(speech, speech)
    assert scores["stoi"] == pytest.approx(1, abs=1e-4)
    assert scores["estoi"] == pytest.approx(1, abs=1e-4)
    assert scores["pesq_wb"] > 4.6 or importlib.util.find_spec("pesq") is None
    for name in ("log_mel_l1", "log_mel_l1_7k5", "mr_stft", "mcd_db", "f0_semitones", "lag_ms", "gain_db"):
        assert scores[name] == pytest.approx(0, abs=1e-9), name


def test_noise_makes_every_figure_worse(speech):
    noisy = speech + 0.05 * np.random.default_rng(1).standard_normal(len(speech))
    more = speech + 0.2 * np.random.default_rng(1).standard_normal(len(speech))
    little, much = m.reconstruction_scores(speech, noisy), m.reconstruction_scores(speech, more)
    for name in ("log_mel_l1", "log_mel_l1_7k5", "mr_stft", "mcd_db"):
        assert 0 < little[name] < much[name], name
    assert 1 > little["stoi"] > much["stoi"]


@pytest.mark.parametrize("lag", [-500, 0, 321])
def test_delay_and_level_are_removed(speech, lag):
    moved = np.concatenate([np.zeros(lag), speech]) if lag >= 0 else speech[-lag:]
    pair = m.align(speech, 0.25 * moved)
    assert pair.lag_samples == lag
    assert pair.gain == pytest.approx(4, rel=0.1)
    scores = m.reconstruction_scores(speech, 0.25 * moved)
    assert scores["stoi"] > 0.99
    assert scores["gain_db"] == pytest.approx(12.04, abs=0.6)


def test_alignment_without_phase(speech):
    spectrum = torch.stft(
        torch.from_numpy(speech), 512, 128, window=torch.hann_window(512).double(), return_complex=True
    )
    noise = torch.polar(
        spectrum.abs(), 2 * math.pi * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0)).double()
    )
    phaseless = torch.istft(noise, 512, 128, window=torch.hann_window(512).double(), length=len(speech)).numpy()
    late = np.concatenate([np.zeros(480), phaseless])
    assert abs(m.align(speech, late).lag_samples - 480) <= 96


def test_log_mel_distance_is_in_decades(speech):
    assert m.log_mel_distance(speech, 10 * speech, max_hz=4000) == pytest.approx(1, abs=0.01)


def test_mel_bands_match_an_independent_implementation():
    utils = pytest.importorskip("transformers.audio_utils")
    expected = utils.mel_filter_bank(513, 80, 0.0, 12000.0, RATE, norm="slaney", mel_scale="slaney").T
    np.testing.assert_allclose(m._mel_bands(), expected, atol=1e-6)


def test_mcd_of_a_gain_is_zero_and_of_a_known_tilt_is_known(speech):
    assert m.mel_cepstral_distortion(speech, 0.3 * speech) == pytest.approx(0, abs=0.05)
    cepstrum, _ = m.mel_cepstrum(speech)
    assert cepstrum.shape[1] == 25


@pytest.mark.parametrize("f0", [80.0, 120.0, 210.0, 300.0])
def test_pitch_of_pulse_trains(f0):
    assert m.median_f0_hz(voice(f0, 0.8)) == pytest.approx(f0, rel=0.01)


def test_pitch_error_in_semitones():
    assert m.f0_error_semitones(voice(110, 0.8), voice(220, 0.8)) == pytest.approx(12, abs=0.3)


def test_noise_and_silence_have_no_pitch():
    assert math.isnan(m.median_f0_hz(np.zeros(RATE)))
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    assert (m.pitch(noise) > 0).mean() < 0.1


def test_bandwidth_of_a_tone():
    tone = np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE)
    assert m.bandwidth_hz(tone) == pytest.approx(3000, abs=60)


def test_timbre_tells_voices_apart():
    one, again, other = voice(120, 1, 0), voice(125, 1, 1), soxr.resample(voice(120, 1, 0), 24000, 19000)
    near = np.linalg.norm(m.timbre(one) - m.timbre(again))
    far = np.linalg.norm(m.timbre(one) - m.timbre(other))
    assert near < far


@pytest.mark.parametrize("length", [1, 100, 1000, 3000])
@pytest.mark.parametrize("kind", ["speech", "sound"])
def test_very_short_clips_give_figures_or_nan(length, kind):
    wave = 0.1 * np.random.default_rng(0).standard_normal(length)
    scores = m.reconstruction_scores(wave, 0.5 * wave, kind=kind)
    assert scores["log_mel_l1"] < 1e-6 or math.isnan(scores["log_mel_l1"])
    assert ("stoi" in scores) == (kind == "speech")


def test_silence_is_survived():
    scores = m.reconstruction_scores(np.zeros(RATE), np.zeros(RATE))
    assert math.isnan(scores["pesq_wb"]) and math.isnan(scores["bandwidth_hz"])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="mono"):
        m.as_wave(np.zeros((2, 10)))
    with pytest.raises(ValueError, match="NaN"):
        m.as_wave(np.array([0.0, math.nan]))


def test_bit_rates_of_the_published_codec():
    assert Stream("reconstruction", 1920, 8, 8192).bit_rate == pytest.approx(1300)
    assert Stream("reasoning", 4800, 8, 4096).bit_rate == pytest.approx(480)


def test_perplexity():
    uniform = torch.arange(16).repeat(4)[None, None].repeat(1, 2, 1)
    uniform[:, 1] = 3
    assert m.codebook_perplexity([uniform, uniform[0]], 16) == pytest.approx([16, 1], abs=1e-4)
    assert m.codebook_perplexity([], 16) == []


# The figures of the peers on the reference page's speech clips (two clips, mean), as the project measured them first.
PEERS = {
    "uniaudio2": (2.32, 0.884, 0.737, 0.263, 1.40, 5.93),
    "higgs": (2.34, 0.913, 0.758, 0.195, 1.03, 5.18),
    "mimi": (2.14, 0.914, 0.778, 0.254, 1.23, 5.33),
    "xcodec": (2.35, 0.900, 0.750, 0.220, 2.46, 5.76),
    "encodec": (1.80, 0.877, 0.695, 0.254, 1.26, 5.65),
    "dac": (1.77, 0.899, 0.716, 0.219, 1.19, 5.38),
}


@pytest.mark.slow
@pytest.mark.skipif(not SEED_DEMO.is_dir(), reason="needs the reference page's clips")
@pytest.mark.parametrize("system", PEERS)
def test_peers_figures_are_reproduced(system):
    rows = peers_scores(system)
    # X-Codec keeps no phase: its delay, and with it PESQ, is uncertain, see below.
    tolerance = (
        (0.06, 0.008, 0.006, 0.008, 0.01, 0.2) if system == "xcodec" else (0.02, 0.002, 0.003, 0.003, 0.01, 0.06)
    )
    for name, value, expected, limit in zip(PEER_METRICS, np.mean(rows, axis=0), PEERS[system], tolerance, strict=True):
        assert value == pytest.approx(expected, abs=limit), name


PEER_METRICS = ("pesq_wb", "stoi", "estoi", "log_mel_l1_7k5", "mr_stft", "mcd_db")


def seed_wave(name):
    wave, rate = soundfile.read(SEED_DEMO / name)
    return soxr.resample(wave, rate, RATE, quality="VHQ") if rate != RATE else wave


def peers_scores(system):
    pytest.importorskip("pesq")
    tasks = [json.loads(line) for line in (SEED_DEMO / "tasks.jsonl").read_text().splitlines()]
    rows = []
    for task in tasks:
        if task["task"] == "codec_reconstruction" and task["domain"] == "speech":
            scores = m.reconstruction_scores(seed_wave(task["gt"]), seed_wave(task["systems"][system]))
            rows.append([scores[name] for name in PEER_METRICS])
    return rows


@pytest.mark.slow
@pytest.mark.skipif(not SEED_DEMO.is_dir(), reason="needs the reference page's clips")
@pytest.mark.parametrize("system", ["xcodec", "uniaudio2"])
def test_what_x_codec_s_figures_hang_on_is_the_delay_alone(system, monkeypatch):
    """Whoever trusts a weaker peak gets the yardstick's figures of X-Codec, and the same ones of the others."""
    monkeypatch.setattr(m, "PEAK_SHARE", 0.3)  # X-Codec's peaks reach .38 and .32, the published codec's .52 and .28
    for name, value, expected, limit in zip(
        PEER_METRICS, np.mean(peers_scores(system), axis=0), PEERS[system],
        (0.006, 0.0015, 0.001, 0.001, 0.004, 0.08), strict=True,
    ):  # fmt: skip
        assert value == pytest.approx(expected, abs=limit), name


@pytest.mark.slow
@pytest.mark.skipif(not SEED_DEMO.is_dir(), reason="needs the reference page's clips")
def test_pesq_of_a_phaseless_codec_jumps_with_the_delay():
    """Two milliseconds more or less move the PESQ of one clip by .3, and nothing says which delay is right."""
    pytest.importorskip("pesq")
    folder = "reconstruction/speech"
    original, coded = (seed_wave(f"{folder}/{system}/p225_003.flac") for system in ("gt", "xcodec"))
    found = []
    for late in (16, 48, 64):  # samples at 24 kHz
        length = min(len(original), len(coded) - late)
        pair = original[:length], coded[late : late + length]
        found.append((m.pesq_wb(*pair), m.stoi(*pair)))
    assert np.ptp([pesq for pesq, _ in found]) > 0.2 and np.ptp([stoi for _, stoi in found]) < 0.005
