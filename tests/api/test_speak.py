"""From text to audio, on random weights: lengths, attempts, reproducibility, every option."""

import numpy as np
import pytest
import torch

from tests.api.support import noise, tune
from uniaudio2.api.request import Ask, Limits
from uniaudio2.api.speak import best_heard, louder
from uniaudio2.audio import SAMPLE_RATE, AudioError
from uniaudio2.engine import derive_seed
from uniaudio2.errors import UserError
from uniaudio2.lm.loss import text_nats


def test_speech_is_reproducible_and_seeded(model):
    first, again, other = (model.speak("hello", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.audio, again.audio)
    assert first.audio.shape != other.audio.shape or not torch.equal(first.audio, other.audio)
    assert first.audio.shape[0] == 1
    assert first.seed == 1
    assert torch.equal(first.audio, model.speak("hello", seed=np.int64(1)).audio)


def test_length_follows_the_text(model):
    short, long = model.speak("hi"), model.speak("this is a sentence of some sixty characters, more or less so")
    assert 0 < short.duration_s <= 2.2 * 2 / 15 + 1.0 + 0.25
    assert 0.4 * 60 / 15 - 0.25 <= long.duration_s <= 2.2 * 60 / 15 + 1.25


def test_sentences_streamed_are_sentences_spoken(model):
    text = "One two. Three four. Five."
    spoken = model.speak(text, batch_size=1, seed=5, best_of=2)
    streamed = list(model.stream(text, seed=5, best_of=2))
    assert len(streamed) == len(spoken.sentences) == len(spoken.codes) == 3
    assert torch.equal(torch.cat(streamed, -1), spoken.audio)


def test_batched_sentences_equal_single_ones(model):
    text = "One two. Three four five. Six."
    assert torch.equal(model.speak(text, batch_size=1).audio, model.speak(text, batch_size=8).audio)


def test_no_sentence_draws_what_another_draws_at_another_seed(model):
    seeds = {
        derive_seed(seed, sentence, attempt) for seed in range(30) for sentence in range(30) for attempt in range(4)
    }
    assert len(seeds) == 30 * 30 * 4 and derive_seed(7, 0) == 7
    said = [model.speak("Hello. Hello.", best_of=1, seed=seed) for seed in (0, 1)]
    assert not torch.equal(said[0].codes[1].reasoning, said[1].codes[0].reasoning)
    assert torch.equal(said[0].codes[0].reasoning, model.speak("Hello.", best_of=1, seed=0).codes[0].reasoning)


def test_the_attempt_is_kept_in_which_the_text_is_heard_best(model, monkeypatch):
    tried = []

    def heard(lm, builder, clips, words, language):
        tried.append(len(clips))
        return [torch.tensor([100.0 * (number != 1)]) for number in range(len(clips))]  # the second is understood

    monkeypatch.setattr("uniaudio2.api.speak.heard_nats", heard)
    alone = [model.speak("Hello.", best_of=1, seed=derive_seed(2, 0, attempt)) for attempt in range(3)]
    assert not tried
    result = model.speak("Hello.", best_of=3, seed=2)
    assert tried == [3]
    assert torch.equal(result.codes[0].reconstruction, alone[1].codes[0].reconstruction)
    assert not torch.equal(result.codes[0].reconstruction, alone[0].codes[0].reconstruction)
    with pytest.raises(ValueError, match="best_of must be at least 1"):
        model.speak("hello", best_of=0)


def test_attempts_are_the_models_own_number_and_do_not_depend_on_the_batch(model, monkeypatch):
    tune(monkeypatch, model, speech_attempts=3)
    text = "Hello there. How are you? I am well."
    together, chosen, single = (model.speak(text, seed=4, **how) for how in ({}, {"best_of": 3}, {"batch_size": 1}))
    assert torch.equal(together.audio, chosen.audio)
    assert all(
        torch.equal(a.reconstruction, b.reconstruction) for a, b in zip(together.codes, single.codes, strict=True)
    )
    streamed = torch.cat(list(model.stream(text, seed=4, best_of=3)), dim=-1)
    assert torch.allclose(streamed, single.audio, atol=1e-4)


def test_greedy_speech_is_attempted_once(model, monkeypatch):
    tune(monkeypatch, model, speech_attempts=3)
    monkeypatch.setattr("uniaudio2.api.speak.heard_nats", lambda *_: pytest.fail("there is nothing to choose from"))
    model.speak("Hello.", temperature=0)


def test_surprise_is_of_every_token_of_a_text(model):
    builder = model.sequences
    codes = model.encode(noise(1.0))
    texts = ["hello", "a longer text"]
    examples = [builder.example("asr", {"audio": codes, "transcription": text}) for text in texts]
    batch = builder.collate(examples)
    each = text_nats(model.lm, batch.tokens, batch.mask, batch.loss_mask)
    for example, found in zip(examples, each, strict=True):
        one = builder.collate([example])
        logits = model.lm.forward_text(one.tokens[:, :-1], one.mask[:, :-1]).log_softmax(-1)
        wanted = one.loss_mask[0, 1:, -1]
        said = logits[0, wanted].gather(1, one.tokens[0, 1:, -1][wanted][:, None])
        assert torch.allclose(found, -said.detach()[:, 0], atol=1e-4)


def test_voice_prompt_is_used(model):
    plain = model.speak("hello there", seed=3)
    voices = [model.speak("hello there", seed=3, voice=noise(4.0, seed)) for seed in (1, 2)]
    results = [plain, *voices]
    for one, two in ((0, 1), (0, 2), (1, 2)):
        first, second = results[one].audio, results[two].audio
        assert first.shape != second.shape or not torch.equal(first, second)
    with pytest.raises(AudioError, match="voice prompt is silent"):
        model.speak("hello", voice=torch.zeros(1, 48000))


OPTIONS = [{"temperature": 0.2}, {"top_k": 1}, {"top_p": 0.1}, {"guidance": 5.0}, {"steps": 7}, {"language": "yue"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_of_speech_changes_something(model, options):
    base, changed = model.speak("good morning", seed=4), model.speak("good morning", seed=4, **options)
    assert base.audio.shape != changed.audio.shape or not torch.equal(base.audio, changed.audio)


def test_sounds_have_the_asked_length(model):
    assert model.generate_sound("a dog barking", duration_s=2.0).duration_s == pytest.approx(2.0, abs=0.25)
    assert model.generate_sound("rain", seed=1).duration_s <= 10.25
    with pytest.raises(ValueError, match="at least 0.2"):
        model.generate_sound("rain", duration_s=0)


@pytest.mark.parametrize("duration_s", [0.2, 0.5, 1.0, 1.23])
def test_sounds_are_as_long_as_asked_to_the_sample(model, duration_s):
    made = model.generate_sound("rain", duration_s=duration_s, seed=1)
    assert made.audio.shape[-1] == round(duration_s * SAMPLE_RATE)
    assert made.codes[0].duration_s == pytest.approx(duration_s, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration_s": 1000}, "more than this model makes at once: give at most"),
        ({"duration_s": float("inf")}, "duration_s must be a finite number"),
        ({"duration_s": float("nan")}, "duration_s must be a finite number"),
        ({"duration_s": 0.1}, "duration_s must be at least 0.2"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"guidance": 0.5}, "guidance must be at least 1"),
        ({"guidance": float("inf")}, "guidance must be a finite number"),
    ],
)
def test_sounds_that_cannot_be_made_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        model.generate_sound("rain", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"best_of": -1}, "best_of must be at least 1"),
        ({"best_of": 1000}, "best_of must be at most 64"),
        ({"temperature": 1000.0}, "temperature must be at most 100"),
        ({"seed": "1"}, "seed must be a whole number"),
    ],
)
def test_speech_is_refused_at_once(model, options, message):
    with pytest.raises(UserError, match=message):
        model.speak("hello", **options)
    if "batch_size" not in options:
        with pytest.raises(UserError, match=message):
            model.stream("hello", **options)  # not only when it is iterated


def test_an_unknown_sampling_argument_is_named(model):
    with pytest.raises(TypeError, match="unknown sampling argument 'top_q'"):
        model.speak("hello", top_q=0.5)


def test_times_of_sentences_are_those_in_the_audio(model):
    spoken = model.speak("One two. Three four. Five.", seed=5)
    starts, ends = zip(*spoken.times_s, strict=True)
    assert starts[0] == 0 and ends[-1] == pytest.approx(spoken.duration_s)
    assert all(start < end for start, end in spoken.times_s)
    for end, start, sentence in zip(ends, starts[1:], spoken.sentences, strict=False):
        assert start - end == pytest.approx(sentence.pause_after_s)
        assert not spoken.audio[0, round(end * SAMPLE_RATE) + 1 : round(start * SAMPLE_RATE) - 1].any()
    segments = spoken.to_dict()["segments"]
    assert [part["text"] for part in segments] == [sentence.text for sentence in spoken.sentences]


def test_louder_speech_is_the_same_speech_and_never_clips(model, monkeypatch):
    tune(monkeypatch, model, speech_gain_db=0.0)
    calls = (
        lambda: model.speak("One two. Three.", seed=3).audio,
        lambda: torch.cat(list(model.stream("One two. Three.", seed=3)), -1),
    )
    plain = [call() for call in calls]
    tune(monkeypatch, model, speech_gain_db=6.0)
    for call, before in zip(calls, plain, strict=True):
        loud, small = call(), before.abs() * 10 ** (6 / 20) < 0.9
        torch.testing.assert_close(loud[small], before[small] * 10 ** (6 / 20))
    assert float(louder(100 * torch.randn(1, 500), 12.0).abs().max()) <= 1.0


def test_another_speed_is_the_same_speech_in_another_time(model):
    text = "Hello there. How are you?"
    usual, quick = (model.speak(text, seed=3, batch_size=1, speed=speed) for speed in (1.0, 1.6))
    assert all(torch.equal(a.reasoning, b.reasoning) for a, b in zip(usual.codes, quick.codes, strict=True))
    assert quick.duration_s == pytest.approx(usual.duration_s / 1.6, abs=0.001)
    for (start, end), (first, last) in zip(usual.times_s, quick.times_s, strict=True):
        assert (first, last) == pytest.approx((start / 1.6, end / 1.6), abs=0.001)
    streamed = torch.cat(list(model.stream(text, seed=3, best_of=1, speed=1.6)), dim=-1)
    assert streamed.shape[1] == pytest.approx(usual.audio.shape[1] / 1.6, abs=1200)
    for speed in (0.24, 4.01, float("nan")):
        with pytest.raises(ValueError, match="speed must be"):
            model.speak("hello", speed=speed)


def test_a_sound_that_was_not_learned_is_said_to_be_unknown(model, monkeypatch, caplog):
    tune(monkeypatch, model, sounds=("dog", "bark", "rain"))
    model.generate_sound("Dogs barking", duration_s=0.3)
    assert not caplog.records
    model.generate_sound("a trumpet", duration_s=0.3)
    assert "'a trumpet': model tiny learned no such sound, only: dog, bark, rain" in caplog.text
    caplog.clear()
    tune(monkeypatch, model, sounds=None)
    model.generate_sound("a trumpet", duration_s=0.3)
    assert not caplog.records


def test_of_attempts_heard_alike_the_one_of_usual_length_is_kept(model, monkeypatch):
    ask = Ask("tts", {"transcription": "fifteen letters"}, "en", Limits())  # about a second
    waves = [noise(seconds) for seconds in (0.5, 1.1, 2.0)]
    for nats, kept in (([1.0, 1.0, 1.0], 1), ([0.0, 3.0, 3.0], 0), ([3.0, 3.0, 1.0], 2)):
        monkeypatch.setattr("uniaudio2.api.speak.heard_nats", lambda *_, nats=nats: torch.tensor(nats)[:, None])
        assert best_heard(model, waves, ask) == kept
