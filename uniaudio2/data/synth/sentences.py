"""Sentence lists as synthesis and training want them: read, normalise, filter, split into train and dev.

Normal form: English in lower-case letters and inner apostrophes, words separated by one space; Chinese in Han
characters alone. Lines with digits, acronyms or abbreviations are left out, since engines read them differently.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uniaudio2.errors import UserError

TEXT_FILES = {
    "en": ("en_common_voice.txt", "en_ljspeech.txt"),
    "zh": ("cmn_hans_common_voice.txt",),
    "yue": ("yue_common_voice.txt", "zh_hk_written_common_voice.txt"),
}
"""Sentence lists by language: CC0 and public-domain ones only; Mandarin in simplified characters only."""

TEXT_SOURCES = {
    "en": "prompts of Mozilla Common Voice (CC0) as en_common_voice.txt, LJ Speech transcripts as en_ljspeech.txt",
    "zh": "Mozilla Common Voice zh-CN prompts (CC0) as cmn_hans_common_voice.txt",
    "yue": "Mozilla Common Voice zh-HK prompts (CC0) as yue_common_voice.txt or zh_hk_written_common_voice.txt",
}
"""Where the lists are had; one sentence a line."""

MAX_CHARS = {"en": 80, "zh": 24, "yue": 24}
"""Longest sentence used, in normalised characters."""

MIN_CHARS = 3

_ABBREVIATION = re.compile(r"\b(mr|mrs|ms|dr|st|jr|sr|vs|etc|no|co|ltd|prof|gen|col|capt|rev|hon|inc|nos)\.", re.I)
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        text: Normal form, the label.
        spoken: What the engine is given: the normal form with its pauses (commas, final mark).
    """

    text: str
    spoken: str


def normalise_english(line: str) -> Sentence | None:
    """Bring an English line to normal form; None if it holds digits, acronyms or foreign letters."""
    line = unicodedata.normalize("NFKC", line).strip()
    line = re.sub(r"[\u2018\u2019\u02bc`]", "'", line)
    line = re.sub(r'["\u201c\u201d()\[\]*]', " ", line)
    line = re.sub(r"\s*(?:--|[\u2013\u2014;:])\s*", ", ", line)
    line = re.sub(r"(?<=\w)-(?=\w)", " ", line)
    line = line.replace("\u2026", " ").replace("-", " ")
    if re.search(r"[^A-Za-z' ,.!?]", line) or _ABBREVIATION.search(line):
        return None
    if any(re.search(r"[A-Z]", word[1:]) for word in line.split()):
        return None
    words = [word.strip("'") for word in re.sub(r"[,.!?]", " ", line.lower()).split()]
    words = [word for word in words if word]
    if not words or any(not re.search(r"[aeiouy]", word) for word in words):
        return None
    pieces = [" ".join(word.strip("'") for word in part.split()) for part in re.split(r"[,.!?]+", line.lower())]
    spoken = ", ".join(piece for piece in pieces if piece) + ("?" if line.endswith("?") else ".")
    return Sentence(" ".join(words), spoken)


def normalise_chinese(line: str) -> Sentence | None:
    """Bring a Chinese line to normal form; None if it holds digits, Latin letters or other scripts."""
    line = unicodedata.normalize("NFKC", line).strip()
    if any(char.isalnum() and not _HAN.match(char) for char in line):
        return None
    text = "".join(_HAN.findall(line))
    if not text:
        return None
    pieces = ["".join(_HAN.findall(part)) for part in re.split(r"[,.!?;:\u3001\u3002\uff0c\uff1b]+", line)]
    return Sentence(text, "，".join(piece for piece in pieces if piece) + "。")


def normalise(line: str, language: str) -> Sentence | None:
    """Normal form of a line in ``language``; None if the line is unsuitable."""
    return normalise_english(line) if language == "en" else normalise_chinese(line)


def has_sentences(folder: Path, language: str) -> bool:
    """Whether a folder has a list of a language."""
    return any((folder / name).is_file() for name in TEXT_FILES[language])


def load_sentences(folder: Path, language: str, *, limit: int | None = None, seed: int = 0) -> list[Sentence]:
    """Read the sentence lists of a language, in a shuffled order that depends on ``seed`` only.

    Args:
        folder: Folder with the lists.
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        limit: Stop after this many sentences.
        seed: Seed of the shuffle.

    Returns:
        Distinct sentences of 3 to `MAX_CHARS` characters.

    Raises:
        ValueError: If none of the lists is in the folder.
    """
    files = [folder / name for name in TEXT_FILES[language] if (folder / name).is_file()]
    if not files:
        raise UserError(f"{folder}: no sentence list for {language!r}; expected {' or '.join(TEXT_FILES[language])}")
    # Choice: for Cantonese the list with Cantonese function words comes first, written Chinese fills up.
    sentences: dict[str, Sentence] = {}
    for file in files:
        lines = sorted(set(file.read_text(encoding="utf-8").splitlines()))
        random.Random(f"{seed}-{file.name}").shuffle(lines)
        for line in lines:
            sentence = normalise(line, language)
            if sentence and MIN_CHARS <= len(sentence.text) <= MAX_CHARS[language]:
                sentences.setdefault(sentence.text, sentence)
    ordered = list(sentences.values())
    if language == "en":
        random.Random(f"{seed}-en").shuffle(ordered)
    return ordered[:limit]


def common_words(sentences: Iterable[Sentence], count: int) -> list[str]:
    """The most frequent words of at least three letters, most frequent first."""
    frequency: dict[str, int] = {}
    for sentence in sentences:
        for word in sentence.text.split():
            if len(word) >= 3 and "'" not in word:
                frequency[word] = frequency.get(word, 0) + 1
    return sorted(frequency, key=lambda word: (-frequency[word], word))[:count]
