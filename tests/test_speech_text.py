import pytest

from uniaudio2.speech_text import (
    check_description,
    detect_language,
    plan_speech,
    speaking_time_s,
)
from uniaudio2.text import TextError, check_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Good morning.", "en"),
        ("今天天气很好。", "zh"),
        ("今天天氣很好。", "zh"),
        ("我哋今日去邊度食飯呀？", "yue"),
        ("你喺邊度", "yue"),
        ("我用 Python 写代码", "zh"),
        ("12:30", "en"),
        ("café", "en"),
    ],
)
def test_language_is_detected(text, language):
    assert detect_language(text) == language


def test_other_scripts_are_refused_by_name():
    with pytest.raises(TextError, match=r"Cyrillic letters.*English, Mandarin or Cantonese"):
        plan_speech("Доброе утро")
    with pytest.raises(TextError, match="Hiragana"):
        plan_speech("おはようございます")


def test_language_names_and_nearest():
    assert [check_language(name) for name in ("EN", "mandarin", "zh_HK", "cmn")] == ["en", "zh", "yue", "zh"]
    with pytest.raises(TextError, match=r"unknown language 'cantonse'.*did you mean yue\?"):
        check_language("cantonse")


def test_sentences_keep_abbreviations_and_numbers():
    texts = [part.text for part in plan_speech("Dr. Smith paid 3.50 dollars! Did J. R. Jones? Yes.")]
    assert texts == ["Dr. Smith paid 3.50 dollars!", "Did J. R. Jones?", "Yes."]
    assert [part.text for part in plan_speech("你好！今天好吗？好。")] == ["你好！", "今天好吗？", "好。"]


def test_mixed_text_and_one_cantonese_sentence():
    assert [part.language for part in plan_speech("Hello there. 你好。")] == ["en", "zh"]
    assert [part.language for part in plan_speech("你好。我哋走啦。")] == ["yue", "yue"]
    assert [part.language for part in plan_speech("你好。", "yue")] == ["yue"]


@pytest.mark.parametrize("text", ["word " * 2000, "字" * 3000, "a, b; c " * 700, "x" * 10_000, "One. " * 2000])
def test_long_text_is_divided_without_losing_words(text):
    parts = plan_speech(text)
    assert all(part.expected_s <= 7.0 for part in parts)
    assert "".join("".join(part.text.split()) for part in parts) == "".join(text.split())


def test_speaking_time():
    assert speaking_time_s("a" * 30) == pytest.approx(2.0)
    assert speaking_time_s("字" * 8) == pytest.approx(2.0)


@pytest.mark.parametrize("text", ["", "  \n", "😀", "?!…", "\u200b"])
def test_nothing_to_say(text):
    with pytest.raises(TextError, match="give at least one word"):
        plan_speech(text)
    with pytest.raises(TextError, match="give at least one word"):
        check_description(text)


def test_emoji_are_left_out_and_far_too_long_is_refused():
    assert plan_speech("Nice 😀 day")[0].text == "Nice day"
    with pytest.raises(TextError, match="at most 100000"):
        plan_speech("a " * 60_000)


FIRST = {
    "The door is open and the old man walks into the garden.": [
        "The door is open",
        "and the old man walks into the garden.",
    ],
    "Well, I think so, but not now.": ["Well, I think so,", "but not now."],
    "He walked into the garden slowly. Yes.": ["He walked", "into the garden slowly.", "Yes."],
    "你好，今天天气很好，我们出去走走吧。": ["你好，今天天气很好，", "我们出去走走吧。"],
    "我们今天出去走走好不好呢？": ["我们今天出去走走好不好呢？"],  # no place that shows
    "I paid 3.50 dollars for the old book.": ["I paid 3.50 dollars", "for the old book."],
    "We met J. R. Jones and his wife.": ["We met J. R. Jones and his wife."],
    "It was John Smith Jones who called.": ["It was John Smith Jones who called."],
    "One two three four.": ["One two three four."],
}


@pytest.mark.parametrize("text", FIRST)
def test_the_first_words_are_cut_off_where_a_phrase_ends(text):
    assert [part.text for part in plan_speech(text, first_words=4)] == FIRST[text]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 9, 40])
@pytest.mark.parametrize("text", [*FIRST, "word " * 90, "字，" * 300, "a, b; c " * 70, "你好 world，今天 is good。"])
def test_few_first_words_lose_none(text, most):
    whole, parts = plan_speech(text), plan_speech(text, first_words=most)
    said, wanted = ("".join("".join(part.text.split()) for part in each) for each in (parts, whole))
    assert said == wanted
    assert parts[-(len(whole) - 1) :] == whole[1:] or len(whole) == 1
    if len(parts) > len(whole):
        first = parts[0].text
        assert 0 < len(first.split()) <= most or 0 < len(first) <= 3 * most
        assert parts[0].expected_s < whole[0].expected_s and parts[1].pause_after_s == whole[0].pause_after_s
    else:
        assert parts == whole
