"""Text normalisation: what is written becomes what is said, then lower case without punctuation; edit distance.

Knows nothing of tokenizers. Languages are ``en``, ``zh`` (Mandarin) and ``yue`` (Cantonese).
"""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from uniaudio2.errors import UserError
from uniaudio2.text_english import read_out, separate_signs

LANGUAGES = ("en", "zh", "yue")
_LANGUAGE_NAMES = {
    "eng": "en", "english": "en", "en-us": "en", "en-gb": "en",
    "cmn": "zh", "mandarin": "zh", "chinese": "zh", "zh-cn": "zh", "zh-tw": "zh", "zh-hans": "zh", "zh-hant": "zh",
    "cantonese": "yue", "zh-hk": "yue", "zh-yue": "yue", "yue-hk": "yue",
}  # fmt: skip

_NEEDS_READING = re.compile(
    r"[0-9$€£¥%&@#+=<>°℃²³½¼¾№~^]|\b(?:mr|mrs|ms|dr|st|prof|etc|vs|jr|sr|inc|ltd|no|e\.g|i\.e)\.|\w\.[a-z]{2}", re.I
)
_LEFT_OVER = re.compile(r"[0-9]")
_NOT_SPOKEN = re.compile(r"[^\w'\s]|_")
_LONE_APOSTROPHE = re.compile(r"(?<!\w)'+|'+(?!\w)")
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SPACE_IN_HAN = re.compile(rf"(?<=[{_HAN}])\s+(?=[{_HAN}])")
_ZH_SIGNS = {"&": "和", "@": "艾特", "+": "加", "=": "等于", "%": "百分之", "#": "井号", "<": "小于", ">": "大于",
            "$": "美元", "€": "欧元", "£": "英镑", "¥": "元"}  # fmt: skip
_ZH_DIGITS = "零一二三四五六七八九"
_ZH_RULES = (  # what the library leaves out or reads amiss
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(\d+) +(\d+)/2(?!\d)"), r"\1又二分之\2"),
    (re.compile(r"(\d+) +(\d+)/(\d+)"), r"\1又\3分之\2"),
    (re.compile(r"m\^2\b"), "平方米"),
    (re.compile(r"m\^3\b"), "立方米"),
    (re.compile(r"(\d+(?:\.\d+)?)‰"), r"千分之\1"),
    (re.compile(r"\s*÷\s*"), "除以"),
    (re.compile(r"(?<=比分)\s*(\d+)\s*[-:]\s*(\d+)|(?<=以)\s*(\d+)\s*[-:]\s*(\d+)"), r"\1\3比\2\4"),
    (re.compile(r"(?<=\d)\s*[—–~]+\s*(?=\d)"), "到"),
    (re.compile(r"HK\$\s?(\d[\d.]*)"), r"\1元港币"),
    (re.compile(r"NT\$\s?(\d[\d.]*)"), r"\1元新台币"),
    (re.compile(r"(\d+\.\d*?)0+(?=\s*(?:元|块|美元|港元))|(?<=[$€£¥])(\d+\.\d*?)0+(?!\d)"), r"\1\2"),
    (re.compile(r"(\d+)\.(?=\s*(?:元|块|美元|港元))"), r"\1"),
    (re.compile(r"\bNo\.\s?(?=\d)", re.I), "第"),
    (re.compile(r"(?<=[A-Za-z] )(\d+)s\b"), r"\1 S"),
    (re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])"), "点"),
)
# Written Cantonese is in traditional characters, the library's words in simplified ones.
_TRADITIONAL = str.maketrans("两点负亿万减摄时页", "兩點負億萬減攝時頁")


class TextError(UserError):
    """Text or a language that cannot be normalised."""


def check_language(language: str) -> str:
    """The code of a language given as a code or a name.

    Raises:
        TextError: If the language is none of English, Mandarin, Cantonese.
    """
    name = language.strip().lower().replace("_", "-")
    code = _LANGUAGE_NAMES.get(name, name)
    if code in LANGUAGES:
        return code
    near = difflib.get_close_matches(name, [*LANGUAGES, *_LANGUAGE_NAMES], n=1)
    hint = f"; did you mean {_LANGUAGE_NAMES.get(near[0], near[0])}?" if near else ""
    raise TextError(f"unknown language {language!r}: known are en (English), zh (Mandarin), yue (Cantonese){hint}")


def normalise_text(text: str, language: str = "en") -> str:
    """Spoken form of a text: numbers, symbols and abbreviations read out, lower case, no punctuation.

    Apostrophes inside words stay. Emoji and other signs without a reading go. The result may be empty.

    Args:
        text: Any text.
        language: ``en``, ``zh`` or ``yue``.

    Raises:
        TextError: If the language is unknown, or if the text has digits, symbols or abbreviations and the library
            that reads them out (num2words, wetext) is not installed.
    """
    language = check_language(language)
    text = unicodedata.normalize("NFKC", separate_signs(text)).replace("\u2019", "'").replace("\u2018", "'")
    if _NEEDS_READING.search(text):
        try:
            text = read_out(text) if language == "en" else _read_out_chinese(text, language)
        except ModuleNotFoundError as error:
            raise TextError(
                f"the text has digits, symbols or abbreviations, which the package {error.name!r} reads out; "
                f"install it (pip install {error.name}) or write them as words"
            ) from error
    text = unicodedata.normalize("NFKC", text).lower()
    text = _NOT_SPOKEN.sub(" ", text)
    text = _LONE_APOSTROPHE.sub(" ", text)
    text = " ".join(text.split())
    return _SPACE_IN_HAN.sub("", text)


def edit_distance(wanted: Iterable[object], got: Iterable[object]) -> int:
    """Least number of insertions, deletions and replacements that turn one sequence into the other.

    Args:
        wanted: A text (compared by characters), or a list of words, phonemes or ids.
        got: The same.
    """
    others = list(got)
    row = list(range(len(others) + 1))
    for number, item in enumerate(wanted, 1):
        diagonal, row[0] = row[0], number
        for index, other in enumerate(others, 1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (item != other))
    return row[-1]


def _read_out_chinese(text: str, language: str) -> str:
    """Numbers, dates, money and abbreviations as words; what the library leaves is read sign by sign."""
    for pattern, written in _ZH_RULES:
        text = pattern.sub(written, text)
    # A sign that the library has no rule for can make its whole answer empty (an assertion inside): then sign by sign.
    with contextlib.suppress(AssertionError, IndexError, KeyError):
        text = _reader().normalize(text) or text
    for sign, word in _ZH_SIGNS.items():
        text = text.replace(sign, word)
    text = _LEFT_OVER.sub(lambda match: _ZH_DIGITS[int(match.group())], text)
    return text.translate(_TRADITIONAL) if language == "yue" else text


@cache
def _reader() -> Any:
    """The Chinese text normaliser; loading it takes a moment, so it is kept."""
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn")
