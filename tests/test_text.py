"""Text normalisation: numbers and signs become words, punctuation goes, errors name the remedy."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from uniaudio2 import text as text_module
from uniaudio2.text import TextError, check_language, edit_distance, normalise_text


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello, World!", "en", "hello world"),
        ("Don\u2019t 'quote' it.", "en", "don't quote it"),
        ("hello 😀 world_wide", "en", "hello world wide"),
        ("", "en", ""),
        ("！？…", "zh", ""),
        ("今天，天气 很好。", "zh", "今天天气很好"),
        ("我 love 你", "zh", "我 love 你"),
        ("ＡＢＣ", "en", "abc"),
    ],
)
def test_without_numbers(text: str, language: str, expected: str) -> None:
    assert normalise_text(text, language) == expected


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("I paid $3.50 to Dr. Smith", "en", "i paid three dollars and fifty cents to doctor smith"),
        ("rock & roll", "en", "rock and roll"),
        ("15% of 20", "en", "fifteen percent of twenty"),
        ("A+B=C #1", "en", "a plus b equals c number one"),
        ("我在2019年花了3.5元", "zh", "我在二零一九年花了三点五元"),
        ("呢度有25個人", "yue", "呢度有二十五個人"),
    ],
)
def test_numbers_and_signs_are_read_out(text: str, language: str, expected: str) -> None:
    pytest.importorskip("wetext")
    assert normalise_text(text, language) == expected


def test_normalising_twice_changes_nothing() -> None:
    pytest.importorskip("wetext")
    for text, language in (("It's 5pm & 100% OK!", "en"), ("共3個", "yue")):
        once = normalise_text(text, language)
        assert normalise_text(once, language) == once


def test_languages() -> None:
    assert check_language("CMN") == "zh"
    with pytest.raises(TextError, match="unknown language 'fr'.*en.*zh.*yue"):
        normalise_text("bonjour", "fr")


def test_missing_library_is_an_error_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name in ("wetext", "num2words"):
            raise ModuleNotFoundError(name, name=name)
        return real(name, *args, **options)

    text_module._reader.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    assert normalise_text("no numbers here") == "no numbers here"
    with pytest.raises(TextError, match="pip install num2words"):
        normalise_text("room 12")
    with pytest.raises(TextError, match="pip install wetext"):
        normalise_text("共3個", "yue")
    text_module._reader.cache_clear()


def test_edit_distance_of_texts_and_of_lists() -> None:
    pairs: list[tuple[Any, Any, int]] = [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3)]
    pairs += [("天气", "天氣", 1), ([], [1, 2], 2), (["t", "iː"], ["iː"], 1), (["the", "cat"], ["a", "cat"], 1)]
    for wanted, got, distance in pairs:
        assert edit_distance(wanted, got) == edit_distance(got, wanted) == distance
