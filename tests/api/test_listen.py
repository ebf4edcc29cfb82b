"""From audio to text, on random weights: divisions, search, silence, languages."""

import pytest
import torch

from tests.api.support import noise, tune
from uniaudio2.api.request import Heard, generate
from uniaudio2.api.results import join_texts
from uniaudio2.audio import SAMPLE_RATE, chunks_at_pauses
from uniaudio2.engine import beam_search
from uniaudio2.errors import UserError
from uniaudio2.speech_text import is_han


def test_transcripts_of_one_and_of_many(model):
    clips = [noise(seconds, 3) for seconds in (0.5, 1.0)]
    single = [model.transcribe(clip, top_k=1) for clip in clips]
    together = model.transcribe(clips, top_k=1)
    assert [result.text for result in single] == [result.text for result in together]
    assert isinstance(single[0].text, str)
    assert together[1].duration_s == pytest.approx(1.0)


def test_long_audio_has_segments_in_order(model):
    result = model.transcribe(noise(3.0), max_chunk_s=1.0)
    times = [(part.start_s, part.end_s) for part in result.segments]
    assert times == sorted(times)
    assert all(end - start <= 1.0 + 1e-6 for start, end in times)
    assert result.text == join_texts([part.text for part in result.segments])


def test_silence_has_no_words(model):
    for level in (0.0, 0.3):
        quiet = torch.full((1, SAMPLE_RATE), level)
        assert model.transcribe(quiet).text == ""
        assert model.transcribe(quiet).segments == ()
        assert model.caption(quiet).text == "silence"


def test_language_changes_the_question(model, monkeypatch):
    asked = []

    def note(core, asks, *args, **options):
        asked.append(asks[0])
        return generate(core, asks, *args, **options)

    monkeypatch.setattr("uniaudio2.api.listen.generate", note)
    for language in (None, "en", "zh", "yue"):
        model.transcribe(noise(0.4), language=language)
    assert [(ask.task.name, ask.language) for ask in asked] == [
        ("asr", None),
        ("asr", "en"),
        ("asr", "zh"),
        ("yue_asr", "yue"),
    ]
    with pytest.raises(ValueError, match="unknown language"):
        model.transcribe(noise(0.4), language="fr")


def test_a_transcript_is_searched_for_as_the_model_or_the_user_says(model, monkeypatch):
    searched = []

    def search(engine, requests, *, renderings, beams):
        searched.append((len(requests), [len(each) for each in renderings], beams))
        return beam_search(engine, requests, renderings=renderings, beams=beams)

    monkeypatch.setattr("uniaudio2.api.request.beam_search", search)
    clips = [noise(0.5, seed=1), noise(0.9, seed=2)]
    model.transcribe(clips)
    assert searched == []
    tune(monkeypatch, model, beams=2, shifts=3)
    chosen = [str(one) for one in model.transcribe(clips, seed=1)]
    assert searched == [(2, [2, 2], 2)]
    assert [str(model.transcribe(clip, beams=2, shifts=3)) for clip in clips] == chosen  # whatever the batch
    model.transcribe(clips[0], shifts=1, beams=4)
    assert searched[-1] == (1, [0], 4)
    count = len(searched)
    model.transcribe(clips[0], temperature=0.5)  # drawn, not searched for
    model.transcribe(clips[0], beams=1, shifts=1)
    assert len(searched) == count


def test_a_search_that_makes_no_sense(model):
    with pytest.raises(ValueError, match="beams must be at least 1"):
        model.transcribe(noise(1.0), beams=0)
    with pytest.raises(ValueError, match="shifts must be at least 1"):
        model.transcribe(noise(1.0), shifts=0)
    with pytest.raises(ValueError, match="shifts must be at most 16"):
        model.transcribe(noise(1.0), shifts=17)
    with pytest.raises(ValueError, match="leave out temperature"):
        model.transcribe(noise(1.0), beams=2, temperature=0.5)
    model.transcribe(noise(1.0), beams=2, top_k=1)  # nothing is drawn here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"max_chunk_s": 0}, "max_chunk_s must be at least 0.4, got 0"),
        ({"max_chunk_s": 0.015}, "max_chunk_s must be at least 0.4"),
        ({"max_chunk_s": float("nan")}, "max_chunk_s must be a finite number"),
        ({"max_chunk_s": float("inf")}, "max_chunk_s must be a finite number"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"sample_rate": 0}, "sample_rate must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_named(model, options, message):
    for method in (model.transcribe, model.caption):
        with pytest.raises(UserError, match=message):
            method(noise(0.5), **options)


def test_the_longest_chunk_that_is_cut_off_is_not_endless():
    with pytest.raises(UserError, match="max_s must be at least"):
        next(chunks_at_pauses([noise(1.0)], 0.015))


def test_results_say_how_sure_they_are(model):
    clip = noise(1.0)
    codes = model.encode(clip)
    for options in ({}, {"beams": 2}, {"temperature": 1.0, "seed": 3}):
        result = model.transcribe(clip, **options)
        batch = model.sequences.collate(
            [model.sequences.example("asr", {"audio": codes, "transcription": result.text})]
        )
        if result.segments and model.tokenizer.encode(result.text) and not options:
            told = result.segments[0].mean_log_probability
            assert told <= 0 and batch.tokens.shape[0] == 1
        assert 0 <= result.no_speech_probability <= 1
        assert {"no_speech_probability"} <= result.to_dict().keys()
    quiet = model.transcribe(torch.zeros(1, SAMPLE_RATE))
    assert (quiet.no_speech_probability, quiet.mean_log_probability) == (1.0, None)


def test_an_empty_text_is_as_likely_as_the_model_says(model):
    clip = noise(1.0)
    builder, lm = model.sequences, model.lm
    prompt = builder.prompt("asr", {"audio": model.encode(clip)})
    logits = lm.forward_text(prompt.tokens[None], prompt.mask[None])[0, -1].log_softmax(-1)
    wanted = float(logits[prompt.phases[0].eos].exp().detach())
    for options in ({"beams": 2}, {"temperature": 1.0}, {}):
        result = model.transcribe(clip, **options)
        assert result.no_speech_probability == pytest.approx(wanted, abs=1e-4)


def test_the_language_is_as_asked_or_as_the_text_tells(model, monkeypatch):
    said = iter(["hello there", "你好世界", "hello 你 there", "我哋聽日去", "", "hello"])
    monkeypatch.setattr(
        "uniaudio2.api.listen.generate", lambda core, asks, sampling: [{"transcription": Heard(next(said), -0.5, 0.1)}]
    )
    languages = [model.transcribe(noise(0.5)).language for _ in range(5)]
    assert languages == ["en", "zh", "en", "yue", None]
    assert model.transcribe(noise(0.5), language="zh").language == "zh"
    assert model.caption(torch.zeros(1, SAMPLE_RATE)).language is None


def test_progress_tells_of_every_piece_in_order(model):
    told = []
    clips = [noise(2.5), noise(0.6, 1)]
    results = model.transcribe(clips, max_chunk_s=1.0, progress=lambda row, piece: told.append((row, piece)))
    assert [str(one) for one in results] == [str(one) for one in model.transcribe(clips, max_chunk_s=1.0)]
    assert [row for row, _ in told] == sorted(row for row, _ in told)
    for row, result in enumerate(results):
        assert tuple(piece for number, piece in told if number == row and piece.text) == result.segments
    assert sum(piece.end_s - piece.start_s for _, piece in told) == pytest.approx(3.1)


def test_a_transcript_in_a_language_is_in_its_script(model):
    clips = [noise(1.0, seed) for seed in range(2)]
    for how in ({"beams": 2, "shifts": 2}, {"temperature": 1.0, "seed": 3}):
        for language, wrong in (("en", is_han), ("zh", str.isascii)):
            texts = [str(one) for one in model.transcribe(clips, language=language, **how)]
            letters = [letter for letter in "".join(texts) if letter.isalpha()]
            assert not any(map(wrong, letters)), texts
            assert "\ufffd" not in "".join(texts)
    free = "".join(str(one) for one in model.transcribe([noise(1.0, seed) for seed in range(4)], temperature=1.0))
    assert any(letter.isascii() and letter.isalpha() for letter in free) and "\ufffd" not in free
