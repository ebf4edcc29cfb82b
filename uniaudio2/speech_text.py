"""What a text needs before it is spoken: its language, its sentences, and how long they take to say.

Plain text rules, no model: everything here can be checked before weights are loaded.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise

from uniaudio2.text import TextError, check_language

CHARACTERS_PER_SECOND = {"en": 15.0, "zh": 4.0, "yue": 4.0}  # measured on the synthesisers that nano learned from
MAX_SENTENCE_S = 7.0  # longer sentences are divided at commas, then at spaces
MAX_TEXT_CHARACTERS = 100_000
SENTENCE_PAUSE_S = 0.25
CLAUSE_PAUSE_S = 0.1

# Characters that written Cantonese has and written Mandarin does not, or nearly never.
_CANTONESE = frozenset("嘅唔佢咗喺啲冇嚟哋咁噉嘢嗰㗎攞揾搵睇啱諗囉喎嗌咩嘥嘞啩噃唞")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        "mr mrs ms dr st prof sr jr rev gen col capt lt sgt hon messrs mme mlle vs etc eg ie no vol fig inc ltd co "
        "dept est approx jan feb mar apr jun jul aug sep sept oct nov dec mt ft",
    )
)
# Words that begin a phrase, and words that do not end one: where a sentence without commas may be cut.
_BEGINS = frozenset(
    re.findall(r"\w+", "and but or so because when while if who which where that as than then until after before")
)
_CLINGS = _BEGINS | frozenset(
    re.findall(
        r"\w+",
        "a an the my your his her its our their this these those no of to in on at by for from with into over under "
        "about is are was were be been am has have had do does did will would can could should may might must not very "
        "i he she it we they you",
    )
)
_SENTENCE_END = re.compile(r"([.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？…；]+[”’」』）]*|\n+)")
_CLAUSE_END = re.compile(r"([,;:—–]+(?=\s)|[，、：；,]+)")


@dataclass(frozen=True)
class Sentence:
    """A piece of text that is spoken in one go."""

    text: str
    language: str  # en, zh or yue
    expected_s: float  # how long it takes to say, about
    pause_after_s: float  # silence before the next piece


def is_han(character: str) -> bool:
    """Whether a character is a Chinese one."""
    code = ord(character)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x3134F or code == 0x3007


def detect_language(text: str) -> str:
    """Tell English, Mandarin and Cantonese apart by their characters.

    Chinese characters mean ``zh``, or ``yue`` when some are used in written Cantonese only; else ``en``.

    Raises:
        TextError: If most letters belong to another script.
    """
    letters = [character for character in text if character.isalpha()]
    han = sum(is_han(character) for character in letters)
    foreign = [
        c for c in letters if not is_han(c) and not unicodedata.name(c, "LATIN").startswith(("LATIN", "FULLWIDTH"))
    ]
    if len(foreign) * 2 > len(letters):
        script = unicodedata.name(foreign[0], "unknown").split()[0].capitalize()
        raise TextError(
            f"the text is in {script} letters, which this model cannot speak: "
            "give English, Mandarin or Cantonese, or say which with --language"
        )
    if not han:
        return "en"
    return "yue" if any(character in _CANTONESE for character in letters) else "zh"


def speakable(text: str) -> str:
    """The text without control characters, emoji and other symbols that nobody reads aloud."""
    kept = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        symbol = category in ("So", "Sk", "Cs", "Co", "Cn", "Cf") or character in "\ufe0f\u200d"
        control = category == "Cc" and character != "\n"
        kept.append(" " if symbol or control else character)
    return re.sub(r"[^\S\n]+", " ", "".join(kept)).strip()


def has_words(text: str) -> bool:
    """Whether anything in the text can be read aloud."""
    return any(character.isalnum() for character in text)


def speaking_time_s(text: str) -> float:
    """About how long a text takes to say: 15 characters a second, 4 of them if Chinese."""
    han = sum(is_han(character) for character in text)
    other = len(text.strip()) - han
    return han / CHARACTERS_PER_SECOND["zh"] + other / CHARACTERS_PER_SECOND["en"]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def check_text(text: str, *, purpose: str) -> str:
    """Clean a text and check that there is something in it.

    Raises:
        TextError: If it is empty, has no words, or is far too long.
    """
    if not text.strip():
        raise TextError(f"the text {purpose} is empty: give at least one word")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise TextError(
            f"the text {purpose} has {len(text)} characters, at most {MAX_TEXT_CHARACTERS} are taken: give it in parts"
        )
    cleaned = speakable(text)
    if not has_words(cleaned):
        raise TextError(f"the text {purpose} has no words in it, only {_shown(text)}: give at least one word")
    return cleaned


def check_description(text: str) -> str:
    """Clean the description of a sound; see `check_text`."""
    return check_text(text, purpose="that describes the sound").replace("\n", " ")


def _pieces(text: str, end: re.Pattern[str]) -> list[str]:
    """Cut after every match of ``end``."""
    cuts = [0]
    for match in end.finditer(text):
        before = re.search(r"([A-Za-z]+)$", text[max(0, match.start() - 20) : match.start()])
        word = before.group(1).lower() if before else ""
        if match.group().startswith(".") and (word in _ABBREVIATIONS or (len(word) == 1 and word != "i")):
            continue
        cuts.append(match.end())
    if cuts[-1] != len(text):
        cuts.append(len(text))
    return [piece for piece in (text[start:stop].strip() for start, stop in pairwise(cuts)) if piece]


def _halve(text: str) -> list[str]:
    """Cut a piece without usable punctuation near its middle, at a space if there is one."""
    middle = len(text) // 2
    spaces = [position for position, character in enumerate(text) if character == " "]
    near = [position for position in spaces if abs(position - middle) <= len(text) // 3]
    cut = min(near, key=lambda position: abs(position - middle)) if near else middle
    return [piece for piece in (text[:cut].strip(), text[cut:].strip()) if piece]


def _shorten(text: str, max_s: float) -> list[str]:
    """Divide a sentence that is too long to say in one go, at clauses first; clauses are joined up to ``max_s``."""
    if speaking_time_s(text) <= max_s:
        return [text]
    clauses = _pieces(text, _CLAUSE_END)
    if len(clauses) == 1:
        first, *rest = _halve(text)
        return [first] if not rest else [part for half in (first, *rest) for part in _shorten(half, max_s)]
    joined: list[str] = []
    for clause in clauses:
        glue = "" if joined and is_han(clause[0]) else " "
        if joined and speaking_time_s(joined[-1] + glue + clause) <= max_s:
            joined[-1] += glue + clause
        else:
            joined += _shorten(clause, max_s)
    return joined


def _first_phrase(text: str, most_words: float) -> tuple[str, float]:
    """The beginning of a sentence, of at most so many words, and the pause behind it; "" where it cannot be cut.

    Choice: up to the last comma or the like, else up to the last word that begins a phrase, else up to the last word
    that may end one; not beside a number, an abbreviation or inside a name. Two Chinese characters count as a word,
    and a Chinese clause stays whole, since its words show no ends.
    """
    clauses = [text[: match.end()] for match in _CLAUSE_END.finditer(text) if has_words(text[match.end() :])]
    fitting = [clause.strip() for clause in clauses if has_words(clause) and _count_words(clause) <= most_words]
    if fitting:
        return fitting[-1], CLAUSE_PAUSE_S
    words = [(match.group(), match.end()) for match in re.finditer(r"\S+", text)]
    ends: dict[bool, int] = {}  # of the first phrase, by whether the next word begins one
    for (before, end), (after, _) in list(pairwise(words))[1:-1]:
        plain = all(re.fullmatch(r"[^\W\d_]+(['’-][^\W\d_]+)*", word) for word in (before, after))
        name = before[0].isupper() and after[0].isupper()
        han = any(is_han(character) for character in before + after)
        if plain and not name and not han and before.lower() not in _CLINGS and _count_words(text[:end]) <= most_words:
            ends[after.lower() in _BEGINS] = end
    return text[: ends.get(True, ends.get(False, 0))], 0.0


def _count_words(text: str) -> float:
    """Words of a text; two Chinese characters are one."""
    others = "".join(" " if is_han(character) else character for character in text)
    return sum(map(is_han, text)) / 2 + sum(map(has_words, others.split()))


def language_runs(sentence: str) -> list[str]:
    """A sentence divided where it changes between Chinese and other letters; names and letters inside Chinese stay.

    Choice: other letters are a run of their own from two words or eight letters on; "用Python写A4纸" stays whole.
    """
    runs: list[str] = []
    for match in re.finditer(r"[A-Za-z][A-Za-z'’\s,.\-]*[A-Za-z][.,!?]?", sentence):
        words = re.findall(r"[A-Za-z'’-]+", match.group())
        if len(words) > 1 or len(words[0]) >= 8:
            runs.append(match.group())
    if not runs or not any(is_han(character) for character in sentence):
        return [sentence]
    parts = re.split("(" + "|".join(re.escape(run) for run in dict.fromkeys(runs)) + ")", sentence)
    return [part.strip() for part in parts if part.strip()]


def plan_speech(
    text: str,
    language: str | None = None,
    *,
    max_sentence_s: float = MAX_SENTENCE_S,
    first_words: int | None = None,
) -> list[Sentence]:
    """Divide a text in sentences to speak one after the other.

    Args:
        text: Any length up to 100 000 characters; emoji and control characters are left out.
        language: Code or name; None detects it, for each sentence of a mixed text.
        max_sentence_s: Longest piece, in seconds of speech.
        first_words: Most words of the first piece, which is heard the sooner the shorter it is; None, or a sentence
            that can be cut nowhere near: the whole sentence.

    Returns:
        At least one sentence; each has at least one word.

    Raises:
        TextError: If the text has nothing to say, or the language is unknown or not one of the three.
    """
    code = check_language(language) if language is not None else None
    cleaned = check_text(text, purpose="to speak")
    if code is None:
        detect_language(cleaned)
    planned: list[Sentence] = []
    whole = "yue" if code is None and any(character in _CANTONESE for character in cleaned) else None
    sentences = _pieces(cleaned, _SENTENCE_END)
    if code is None:  # Choice: a voice knows one language, so a mixed sentence is said in turns
        sentences = [run for sentence in sentences for run in language_runs(sentence)]
    for sentence in sentences:
        if not has_words(sentence):
            continue
        spoken = code or detect_language(sentence)
        # Choice: one Cantonese sentence makes all Chinese ones Cantonese, because many have no telling word.
        spoken = whole if code is None and spoken == "zh" and whole else spoken
        parts = [part for part in _shorten(sentence, max_sentence_s) if has_words(part)]
        for index, part in enumerate(parts):
            pause = SENTENCE_PAUSE_S if index == len(parts) - 1 else CLAUSE_PAUSE_S
            planned.append(Sentence(part, spoken, speaking_time_s(part), pause))
    if first_words is not None and _count_words(planned[0].text) > first_words:
        whole_first = planned[0]
        phrase, pause = _first_phrase(whole_first.text, first_words)
        if phrase:
            rest = whole_first.text[len(phrase) :].strip()
            planned[:1] = [
                replace(whole_first, text=phrase, expected_s=speaking_time_s(phrase), pause_after_s=pause),
                replace(whole_first, text=rest, expected_s=speaking_time_s(rest)),
            ]
    return planned
