"""Text to ids and back, special tokens, BPE dropout, files."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

import uniaudio2
from uniaudio2.tokenizer import OWN_TEXT_TOKENS, TextTokenizer, TextTokens, TokenizerError

SHIPPED = Path(uniaudio2.__file__).parent / "weights" / "nano" / "tokenizer.json"


@cache
def small() -> TextTokenizer:
    return TextTokenizer.train(["hello world", "hello there world", "你好世界", "hold the line"] * 4, 300)


@pytest.mark.parametrize("text", ["hello world", "don't", "你好 world", "", "naïve 😀", "a\nb", "日本語"])
def test_round_trip(text: str) -> None:
    ids = small().encode(text)
    assert ids[0] == OWN_TEXT_TOKENS.bos and ids[-1] == OWN_TEXT_TOKENS.eos
    assert small().decode(ids) == text
    assert small().encode(text, special=False) == ids[1:-1]


def test_a_word_has_the_same_ids_at_the_start_and_inside() -> None:
    hello = small().encode("hello", special=False)
    assert small().encode("world hello", special=False)[-len(hello) :] == hello


def test_text_cannot_inject_special_tokens() -> None:
    ids = small().encode("<eos> hi <caption>", special=False)
    assert not set(ids) & OWN_TEXT_TOKENS.ids()
    assert small().decode(ids) == "<eos> hi <caption>"


def test_dropout_is_seeded_changes_pieces_and_keeps_the_text() -> None:
    text = "hello world hold the line"
    plain = small().encode(text)
    dropped = small().encode(text, dropout=0.5, rng=random.Random(3))
    assert dropped == small().encode(text, dropout=0.5, rng=random.Random(3))
    assert len(dropped) > len(plain) and small().decode(dropped) == text
    assert small().encode(text, dropout=1e-9, rng=random.Random(0)) == plain
    with pytest.raises(ValueError, match="rng"):
        small().encode(text, dropout=0.5)


def test_special_table() -> None:
    published = TextTokens()
    assert published.tag("transcription") == (128011, 128012)
    assert published.tag("answer") == (128017, 128005)
    assert len(OWN_TEXT_TOKENS.ids()) == len(OWN_TEXT_TOKENS.names()) == 13
    with pytest.raises(ValueError, match="unknown tag"):
        published.tag("song")


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokenizer.json"
    small().save(path)
    assert TextTokenizer.load(path).encode("hello there") == small().encode("hello there")
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.json"]


def test_bad_files_and_ids(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        TextTokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"is not a tokenizer\.json"):
        TextTokenizer.load(tmp_path / "tokenizer.json")
    small().save(tmp_path / "own.json")
    with pytest.raises(TokenizerError, match="special token is 128020"):
        TextTokenizer.load(tmp_path / "own.json", TextTokens())
    with pytest.raises(TokenizerError, match="outside"):
        small().decode([9999])
    with pytest.raises(TokenizerError, match="vocab_size must be at least"):
        TextTokenizer.train(["a"], 100)


def test_the_shipped_tokenizer_covers_three_languages() -> None:
    shipped = TextTokenizer.load(SHIPPED)
    assert shipped.vocab_size == 2048
    for text in ("the quick brown fox", "今天天气很好", "今日天氣好好㗎"):
        assert shipped.decode(shipped.encode(text)) == text
    assert len(shipped.encode("the weather is good today", special=False)) < 12


def test_a_character_that_is_cut_off_at_the_end_is_left_out() -> None:
    tokenizer = TextTokenizer.load(SHIPPED)
    text = "\u9f98"  # rare: one token for each byte
    ids = tokenizer.encode(text, special=False)
    assert len(ids) > 1 and tokenizer.decode(ids) == text
    assert tokenizer.decode([*tokenizer.encode("good", special=False), *ids[:-1]]) == "good"
    assert tokenizer.decode([*ids[:-1], *tokenizer.encode("good", special=False)]).endswith("good")


def test_scripts_of_languages() -> None:
    for tokenizer, text in ((small(), "hello there"), (TextTokenizer.load(SHIPPED), "turn on the light it's 5 pm")):
        english, chinese = (set(tokenizer.outside_script(language)) for language in ("en", "zh"))
        latin, han = (set(tokenizer.encode(each, special=False)) for each in (text, "你好世界，我唔知喺邊度。"))
        assert not latin & english and not han & chinese
        assert latin & chinese and han & english
        for word in tokenizer.encode(text.replace("5", ""), special=False):
            assert word in chinese or not tokenizer.decode([word]).isalpha()
        assert not (english | chinese) & tokenizer.tokens.ids()
        assert set(tokenizer.outside_script("yue")) == chinese
        free = set(tokenizer.encode(" 0123456789 ,.?!", special=False))
        assert not free & (english | chinese)
