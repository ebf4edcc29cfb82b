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

LANGUAGES = ("en", "zh", "yue")
_LANGUAGE_NAMES = {
    "eng": "en", "english": "en", "en-us": "en", "en-gb": "en",
    "cmn": "zh", "mandarin": "zh", "chinese": "zh", "zh-cn": "zh", "zh-tw": "zh", "zh-hans": "zh", "zh-hant": "zh",
    "cantonese": "yue", "zh-hk": "yue", "zh-yue": "yue", "yue-hk": "yue",
}  # fmt: skip

_NEEDS_READING = re.compile(
    r"[0-9$€£¥%&@#+=<>°℃²³½¼¾№~^]|\b(?:mr|mrs|ms|dr|st|prof|etc|vs|jr|sr|inc|ltd|no|e\.g|i\.e)\.", re.I
)
_LEFT_OVER = re.compile(r"[0-9]")
_NOT_SPOKEN = re.compile(r"[^\w'\s]|_")
_LONE_APOSTROPHE = re.compile(r"(?<!\w)'+|'+(?!\w)")
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SPACE_IN_HAN = re.compile(rf"(?<=[{_HAN}])\s+(?=[{_HAN}])")
_EN_SYMBOLS = {"&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "%": " percent", "#": " number "}
_ZH_SYMBOLS = {"&": "和", "@": "艾特", "+": "加", "=": "等于", "%": "百分之", "#": "井号"}
_EN_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ZH_DIGITS = "零一二三四五六七八九"


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
            that reads them out (wetext) is not installed.
    """
    language = check_language(language)
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2018", "'")
    if _NEEDS_READING.search(text):
        text = _read_out(text, language)
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


def _read_out(text: str, language: str) -> str:
    """Numbers, dates, money and abbreviations as words; what the library leaves is read sign by sign."""
    library = "en" if language == "en" else "zh"
    # A symbol the library has no rule for can make its whole answer empty (an assertion inside): then sign by sign.
    with contextlib.suppress(AssertionError, IndexError, KeyError):
        text = _reader(library).normalize(text)
    symbols = _EN_SYMBOLS if language == "en" else _ZH_SYMBOLS
    for sign, word in symbols.items():
        text = text.replace(sign, word)
    if _LEFT_OVER.search(text):
        digits = [f" {word} " for word in _EN_DIGITS] if language == "en" else list(_ZH_DIGITS)
        text = _LEFT_OVER.sub(lambda match: digits[int(match.group())], text)
    return text


@cache
def _reader(library: str) -> Any:
    """The text normaliser of one language; loading it takes a moment, so it is kept."""
    try:
        from wetext import Normalizer
    except ImportError as error:
        raise TextError(
            "the text has digits, symbols or abbreviations, which the package 'wetext' reads out; "
            "install it (pip install wetext) or write them as words"
        ) from error
    return Normalizer(lang=library, operator="tn")
