"""Times of words: known ones are found, whatever else there is to hear."""

from collections.abc import Callable

import pytest
import torch

from tests.api.support import noise
from uniaudio2 import UniAudio2
from uniaudio2.api.words import split_words, time_words
from uniaudio2.audio import SAMPLE_RATE

Tone = Callable[..., torch.Tensor]


def spoken(tone: Tone, spans: list[tuple[float, float]], length_s: float) -> torch.Tensor:
    """Tones where words are, faint noise elsewhere."""
    audio = 0.003 * noise(length_s)
    for number, (start, end) in enumerate(spans):
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        audio[:, first:last] += tone(end - start, 150.0 + 40 * number)[:, : last - first]
    return audio


def test_words_between_pauses_are_found(tone: Tone) -> None:
    spans = [(0.1, 0.3), (0.4, 1.1), (1.15, 1.35), (2.2, 2.9)]
    words = time_words(spoken(tone, spans, 3.0), "a wonderful day tomorrow", 10.0)
    assert [word.text for word in words] == ["a", "wonderful", "day", "tomorrow"]
    for word, (start, end) in zip(words, spans, strict=True):
        assert (word.start_s, word.end_s) == pytest.approx((10.0 + start, 10.0 + end), abs=0.05)


def test_words_without_pauses_share_the_time_by_their_letters(tone: Tone) -> None:
    one, long = time_words(tone(1.2, 200.0), "one thousands", 0.0)
    assert one.end_s == pytest.approx(long.start_s, abs=0.03)
    assert 0.25 < one.end_s < 0.55 and long.end_s == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 30.0])
@pytest.mark.parametrize("text", ["", "one", "你好 world 今天", "a b c d e f g h i j k l m n o p q r s t u v w x y z"])
def test_times_are_in_order_and_inside(seconds: float, text: str) -> None:
    words = time_words(noise(seconds), text, 5.0)
    assert [word.text for word in words] == split_words(text)
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times) and all(5.0 <= time <= 5.0 + seconds + 0.1 for time in times)
    assert time_words(noise(0.0), text, 5.0) == ()


def test_split() -> None:
    assert split_words("用 python 写代码") == ["用", "python", "写", "代", "码"]


def test_a_result_has_words_where_they_are_asked_for(model: UniAudio2) -> None:
    clip = noise(2.0)
    plain, timed = (model.transcribe(clip, word_timestamps=asked) for asked in (False, True))
    assert plain.words == () and "words" not in plain.segments[0].to_dict()
    assert timed.text == plain.text
    assert [word.text for word in timed.words] == split_words(timed.text)
    assert timed.to_dict()["segments"][0]["words"][0].keys() == {"start_s", "end_s", "text"}
    assert all(0 <= word.start_s <= word.end_s <= 2.0 for word in timed.words)
