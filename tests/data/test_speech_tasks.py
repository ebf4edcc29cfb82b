"""Speech for tasks: what WORLD changes, what a style does, plans that hold out, examples that are what they say."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.speech_corpus import make_corpus, vowels
from uniaudio2.data.manifest import read_manifest, validate
from uniaudio2.data.synth import dysarthria, spoken, style_words, styles, world
from uniaudio2.data.synth.renderer import Material
from uniaudio2.data.synth.vocoder import world as pyworld
from uniaudio2.data.synth.voices import SynthesiserMissing
from uniaudio2.eval.style_judge import follows, manner, whose
from uniaudio2.tasks import TASKS, Audio, Text, Voice
from uniaudio2.text import normalise_text

TEXT = "a sentence of some letters"


@pytest.fixture(scope="module", autouse=True)
def _pyworld() -> None:
    try:
        pyworld()
    except SynthesiserMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def parts() -> world.World:
    return world.analyse(vowels(200))


def test_parts_go_together_again_and_change_one_by_one(parts: world.World) -> None:
    assert parts.median_f0 == pytest.approx(200, rel=0.05)
    again = world.analyse(world.synthesise(parts))
    assert again.median_f0 == pytest.approx(parts.median_f0, rel=0.03)
    assert len(again.f0) == pytest.approx(len(parts.f0), abs=3)
    assert world.with_pitch(parts, 1.5).median_f0 == pytest.approx(1.5 * parts.median_f0, rel=0.01)
    flat = world.with_pitch(parts, 1.0, 0.0).f0
    assert np.ptp(flat[flat > 0]) < 1e-6 < np.ptp(parts.f0[parts.f0 > 0])
    assert len(world.with_rate(parts, 2.0).f0) == pytest.approx(len(parts.f0) / 2, abs=2)
    centre = (parts.envelope.mean(0) * np.arange(parts.envelope.shape[1])).sum() / parts.envelope.mean(0).sum()
    higher = world.with_formants(parts, 1.3).envelope.mean(0)
    assert (higher * np.arange(len(higher))).sum() / higher.sum() > 1.1 * centre
    assert (world.whispered(parts).f0 == 0).all()
    with pytest.raises(ValueError, match="shorter than 0.1 s"):
        world.analyse(np.zeros(100, np.float32))


@pytest.mark.parametrize("style", style_words.STYLES)
def test_a_style_moves_what_its_name_says_and_the_judge_hears_it(style: str, parts: world.World) -> None:
    rng = np.random.default_rng(1)
    plain, made = (manner_of(styles.styled(parts, own, rng)) for own in ((), (style,)))
    assert follows(style, made, plain)
    assert not follows(style, plain, plain)
    assert not follows(style, manner_of(np.zeros(24000, np.float32)), plain)


def manner_of(wave: np.ndarray):
    import torch

    return manner(torch.from_numpy(wave)[None], TEXT)


def test_women_men_and_children_are_told_apart_by_pitch() -> None:
    assert [whose(manner_of(vowels(hz))) for hz in (110, 205, 290)] == ["male", "female", "child"]
    assert whose(manner_of(0.01 * np.random.default_rng(0).standard_normal(24000).astype(np.float32))) == ""


def test_words_are_many_and_in_normal_form() -> None:
    rng = random.Random(0)
    for language in ("en", "zh"):
        for who in ("female", "male", "child"):
            for style in (*style_words.STYLES, None):
                asked = (style,) if style else ()
                said = {style_words.caption(who, asked, language, rng) for _ in range(60)}
                assert len(said) > 20
                assert all(text == normalise_text(text, language) for text in said), said
    edits = {style_words.instruction(("high", "fast"), "en", rng) for _ in range(80)}
    assert len(edits) > 15 and all(" and " in text for text in edits)
    assert "{" not in style_words.style(("sad",), "zh", rng)


def test_dysarthric_speech_is_slower_duller_and_seeded() -> None:
    wave = vowels(120)
    mild, severe, again = (dysarthria.dysarthric(wave, level, np.random.default_rng(3)) for level in (0.3, 1.0, 1.0))
    assert wave.size < mild.size < severe.size
    assert np.array_equal(severe, again)
    assert high_share(severe) < 0.7 * high_share(wave)
    with pytest.raises(ValueError, match="shorter"):
        dysarthria.dysarthric(wave[:100], 1.0, np.random.default_rng(0))


def high_share(wave: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[len(power) // 4 :].sum() / power.sum())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    make_corpus(out, dev_styles=1)
    first = (out / "shards" / "styles_train-000.wav").read_bytes()
    make_corpus(out, dev_styles=1, resume=False)
    assert first == (out / "shards" / "styles_train-000.wav").read_bytes()
    return out


def test_a_corpus_is_valid_holds_out_and_feeds_every_row(corpus: Path) -> None:
    assert validate(corpus).problems == []
    examples = read_manifest(corpus)
    by_split = {split: [e for e in examples if e.split == split] for split in ("train", "dev")}
    said = {split: {e.text for e in own if e.text} for split, own in by_split.items()}
    assert said["train"] and not said["train"] & said["dev"]
    speakers = {split: {e.speaker for e in own if e.speaker} for split, own in by_split.items()}
    assert speakers["train"] and not speakers["train"] & speakers["dev"]
    rows = ("instruct_tts", "prompt_instruct_tts", "speech_edit", "voice_conversion", "d_asr", "speech_with_sound",
            "speech_denoise", "speech_ss")  # fmt: skip
    for name in rows:
        row = TASKS[name]
        sources = [row.source(value) for value in row.values]
        for own in by_split.values():
            assert any(all(has(e, source) for source in sources) for e in own), name
    # What one row learns from is no example of a row with other rules.
    for name in ("asr", "tts", "speech_s2s"):
        sources = [TASKS[name].source(value) for value in TASKS[name].values if value != "voice"]
        assert not any(all(has(e, source) for source in sources) for e in examples), name


def has(example, source) -> bool:
    if isinstance(source, Audio):
        return source.name in example.recordings
    if isinstance(source, Voice):
        return source.audio in example.recordings
    assert isinstance(source, Text)
    return bool({"text": example.text, "caption": example.caption, **example.texts}.get(source.name))


def test_mixtures_are_the_sum_of_their_parts_and_the_first_starts_first(corpus: Path) -> None:
    found = [e for e in read_manifest(corpus) if "mixture" in e.recordings]
    assert found
    for example in found:
        mixture, first, second = (example.audio(name=name)[0].numpy() for name in ("mixture", "first", "second"))
        assert mixture.size == first.size == second.size
        assert np.abs(mixture - first - second).max() < 1e-3
        begins = [int(np.flatnonzero(np.abs(wave) > 1e-3)[0]) for wave in (first, second)]
        assert begins[0] < begins[1]


def test_noisy_speech_is_its_clean_speech_and_more(corpus: Path) -> None:
    for example in (e for e in read_manifest(corpus) if "noisy" in e.recordings):
        noisy, clean = (example.audio(name=name)[0].numpy() for name in ("noisy", "clean"))
        assert noisy.size == clean.size
        snr_db = float((example.label or "").split()[0])
        if "room" not in (example.label or ""):
            found = 20 * np.log10(clean.std() / (noisy - clean).std())
            assert found == pytest.approx(snr_db, abs=1.0)
        assert np.corrcoef(noisy, clean)[0, 1] > 0.3


def test_sentences_of_splits_differ_without_lists() -> None:
    material = Material(None)
    train, dev = (spoken.task_sentences(material, "en", split, 0, "x") for split in ("train", "dev"))
    assert not {s.text for s in train} & {s.text for s in dev}
    assert all(18 <= len(s.text) <= 42 for s in (*train, *dev))
