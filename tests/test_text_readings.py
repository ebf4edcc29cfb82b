"""What numbers, signs and abbreviations become, written by hand: English, Mandarin, Cantonese."""

from __future__ import annotations

import pytest

from uniaudio2.speech_text import language_runs, plan_speech
from uniaudio2.text import normalise_text

ENGLISH = {
    "1,234": "one thousand two hundred thirty four",
    "1,000,000,000": "one billion",
    "2000 people": "two thousand people",
    "1001": "one thousand one",
    "0": "zero",
    "007": "zero zero seven",
    "3.14": "three point one four",
    "0.5": "zero point five",
    "1.2.3": "one point two point three",
    "v2.0": "v two point zero",
    "1990s": "nineteen nineties",
    "the '90s": "the nineties",
    "in 1905": "in nineteen oh five",
    "1984": "nineteen eighty four",
    "1900": "nineteen hundred",
    "2005": "two thousand five",
    "in 2019": "in twenty nineteen",
    "iPhone 15s": "iphone fifteen s",
    "15 s": "fifteen seconds",
    "1,500 m": "one thousand five hundred meters",
    "100 m²": "one hundred square meters",
    "1 kg": "one kilogram",
    "5kg": "five kilograms",
    "60 km/h": "sixty kilometers per hour",
    "16 GB": "sixteen gigabytes",
    "15 min": "fifteen minutes",
    "180°C": "one hundred eighty degrees celsius",
    "25℃": "twenty five degrees celsius",
    "-3.5 °F": "minus three point five degrees fahrenheit",
    "9°": "nine degrees",
    "2½ cups": "two and a half cups",
    "3/4": "three quarters",
    "2 1/2": "two and a half",
    "24/7": "twenty four seven",
    "$3.50": "three dollars and fifty cents",
    "$1": "one dollar",
    "$0.99": "ninety nine cents",
    "$.50": "fifty cents",
    "$3.5 million": "three point five million dollars",
    "£20": "twenty pounds",
    "£1.01": "one pound and one penny",
    "20€": "twenty euros",
    "₹500": "five hundred rupees",
    "50¢": "fifty cents",
    "15%": "fifteen percent",
    "5‰": "five per mille",
    "5 - 3": "five minus three",
    "pages 3-5": "pages three to five",
    "10~20": "ten to twenty",
    "-5 degrees": "minus five degrees",
    "3×4=12": "three times four equals twelve",
    "8÷2": "eight divided by two",
    "10^6": "ten to the power of six",
    "x²": "x squared",
    "±5": "plus or minus five",
    "2:1": "two to one",
    "5:30pm": "five thirty pm",
    "10:05": "ten oh five",
    "10:00": "ten o'clock",
    "7 a.m.": "seven am",
    "2024-05-03": "may third twenty twenty four",
    "May 3, 2024": "may third twenty twenty four",
    "3 May": "third of may",
    "22nd": "twenty second",
    "Call 911 at 5pm": "call nine one one at five pm",
    "(415) 555-1234": "four one five five five five one two three four",
    "MP3": "mp three",
    "COVID-19": "covid nineteen",
    "Dr. Smith": "doctor smith",
    "St. John lives on Main St.": "saint john lives on main street",
    "No. 5": "number five",
    "#1": "number one",
    "e.g. this": "for example this",
    "rock & roll": "rock and roll",
    "example.com": "example dot com",
    "https://x.org/y": "x dot org slash y",
    "a@b.com": "a at b dot com",
}
MANDARIN = {
    "1,234": "一千二百三十四",
    "2,000,000": "两百万",
    "1990年代": "一九九零年代",
    "iPhone 15s": "iphone 十五 s",
    "1,500米": "一千五百米",
    "180°C": "一百八十摄氏度",
    "25℃": "二十五摄氏度",
    "2½杯": "二又二分之一杯",
    "3/4": "四分之三",
    "$3.50": "三点五美元",
    "¥25.80": "二十五点八元",
    "HK$12.5": "十二点五元港币",
    "50%": "百分之五十",
    "5‰": "千分之五",
    "3×4=12": "三乘四等于十二",
    "8÷2": "八除以二",
    "比分3-2": "比分三比二",
    "10—20": "十到二十",
    "下午3:30": "下午三点三十分",
    "2019-05-03": "二零一九年五月三日",
    "13800138000": "幺三八零零幺三八零零零",
    "第1名": "第一名",
    "-5度": "负五度",
    "60km/h": "每小时六十公里",
    "100m²": "一百平方米",
    "2.5亿": "二点五亿",
    "007": "零零七",
    "No.1": "第一",
    "a@b.com": "a艾特b点com",
}
CANTONESE = {
    "25℃": "二十五攝氏度",
    "2,000,000": "兩百萬",
    "呢度有25個人": "呢度有二十五個人",
    "下晝3:30": "下晝三點三十分",
    "$3.50": "三點五美元",
}
CASES = [
    (table, *case) for table, cases in (("en", ENGLISH), ("zh", MANDARIN), ("yue", CANTONESE)) for case in cases.items()
]


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize(("language", "text", "expected"), CASES, ids=lambda value: value)
def test_reading(language: str, text: str, expected: str) -> None:
    assert normalise_text(text, language) == expected
    assert normalise_text(expected, language) == expected, "what is read out stays as it is"


@pytest.mark.parametrize(
    "text", ["1" * 500, "$", "1:60", "13/13/2020", "2024-13-45", "1/0", "May 99", "1,23,456", "5'", "0/5"]
)
@pytest.mark.parametrize("language", ["en", "zh", "yue"])
def test_odd_numbers_are_read_somehow(text: str, language: str) -> None:
    said = normalise_text(text, language)
    assert said and not any(character.isdigit() and character.isascii() for character in said)


def test_what_the_library_answers_with_nothing_is_read_all_the_same() -> None:
    text = "One is fine. Visit example.com, then wait 5 minutes. Three is fine."
    said = [normalise_text(sentence.text, sentence.language) for sentence in plan_speech(text)]
    assert said == ["one is fine", "visit example dot com then wait five minutes", "three is fine"]


def test_mixed_sentences_are_said_in_turns() -> None:
    planned = plan_speech("Hello there 世界，今天 very good。")
    assert [(part.language, part.text) for part in planned] == [
        ("en", "Hello there"), ("zh", "世界，今天"), ("en", "very good"),
    ]  # fmt: skip
    assert language_runs("我用Python写A4纸") == ["我用Python写A4纸"]
    assert language_runs("All in English.") == ["All in English."]
    assert [part.language for part in plan_speech("我 love 你", "zh")] == ["zh"]
