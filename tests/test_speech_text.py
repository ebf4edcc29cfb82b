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
