"""What an output is worth: figures of a clip, by judges that are at hand. What cannot be judged has no figures."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uniaudio2.audio import read_audio
from uniaudio2.data.recogniser import has_whisper, hear, whisper_name
from uniaudio2.errors import MissingPackageError
from uniaudio2.eval import audio_metrics
from uniaudio2.eval.diarization import diarization_error, read_turns
from uniaudio2.eval.judges import Metric, text_errors
from uniaudio2.eval.text_metrics import classes_named, simplified

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.page.items import Item

WER = Metric("word_errors", "WER", "%", "lower", "words")
CER = Metric("char_errors", "CER", "%", "lower", "chars")
RIGHT = Metric("right", "right", "%", "higher")
STOI = Metric("stoi", "STOI", "", "higher")
MEL = Metric("log_mel_l1", "log-mel distance", "", "lower")
DER = Metric("error_s", "DER", "%", "lower", "speech_s")
WORK = Metric("work_s", "seconds of decoding", "", "lower")
PITCH = Metric("pitch_off", "pitch off by, semitones", "", "lower")
METRICS = (WER, CER, RIGHT, STOI, MEL, DER, PITCH, WORK)
"""Every figure of a page, in the order in which they are shown."""


@dataclass(frozen=True)
class Verdict:
    """What was found about an output."""

    figures: Mapping[str, float] = field(default_factory=dict)
    right: bool | None = None  # None where there is no right or wrong
    heard: str = ""  # what the judge heard in it


@dataclass(frozen=True)
class Output:
    """An output that is to be judged.

    Attributes:
        item: It belongs to.
        name: Of the output.
        text: Where it is text.
        file: Where it is a sound, read as it was written.
        truth: The right sound, as a file.
    """

    item: Item
    name: str
    text: str = ""
    file: Path | None = None
    truth: Path | None = None

    @property
    def language(self) -> str:
        """Of its words."""
        return self.item.language or "en"


class Ears:
    """Who listens to what was made.

    Args:
        own: The model itself, for a page that says so; None is Whisper, where it is at hand.
        sampling: Of the model.
    """

    def __init__(self, own: Callable[[], UniAudio2] | None = None, sampling: Mapping[str, Any] | None = None) -> None:
        self._own, self._sampling = own, dict(sampling or {})
        self.name = "own" if own is not None else whisper_name() if has_whisper() else ""

    def words(self, file: Path, language: str) -> str | None:
        """What is said; None where nobody can tell (Whisper hears Cantonese as Mandarin)."""
        if self._own is not None:
            return self._own().transcribe(read_audio(file), language=language, **self._sampling).text
        return hear(read_audio(file), language) if self.name and language in ("en", "zh") else None

    def sound(self, file: Path) -> str | None:
        """What is heard; None where nobody can tell."""
        return None if self._own is None else self._own().caption(read_audio(file), **self._sampling).text


Judge = Callable[[Output, Ears], Verdict]


def words_of(text: str) -> str:
    """Lower case, letters and digits only, to compare two texts."""
    return " ".join(re.sub(r"[^\w' ]+", " ", text.lower()).split())


_STOP_WORDS = frozenset(
    {"a", "an", "the", "is", "it", "of", "in", "on", "and", "or", "some", "sound", "someone", "something", "noise"}
)


def same_meaning(expected: str, got: str) -> bool:
    """Whether two captions name the same classes of sound, no more and no fewer.

    Where the expected caption names no class that is known, a telling word in common decides (``piano`` in "a piano").
    """

    def stems(text: str) -> set[str]:
        """Words without endings, and without those that tell nothing."""
        words = (word for word in words_of(text).split() if word not in _STOP_WORDS)
        return {re.sub(r"(ing|ling|s|es|ed)$", "", word) for word in words}

    classes = classes_named(expected)
    return classes == classes_named(got) if classes else bool(stems(expected) & stems(got))


def _errors(expected: str, got: str, language: str) -> Verdict:
    """Two texts: whether they are the same, and errors of words (in Chinese of characters) where jiwer is installed."""
    same = [words_of(simplified(text, language)).replace(" ", "") for text in (expected, got)]
    try:
        found = text_errors(expected, got, language, "simple")
    except MissingPackageError:
        return Verdict(right=same[0] == same[1])
    keys = ("word_errors", "words") if language == "en" else ("char_errors", "chars")
    return Verdict({key: float(found[key]) for key in keys}, same[0] == same[1])


def no_judge(output: Output, ears: Ears) -> Verdict:
    """Nobody judges it."""
    return Verdict()


def words(output: Output, ears: Ears) -> Verdict:
    """A text that should be the right one, word by word."""
    truth = output.item.truth.get(output.name)
    return _errors(truth, output.text, output.language) if isinstance(truth, str) else Verdict()


def answer(output: Output, ears: Ears) -> Verdict:
    """A text that should be the right one as a whole."""
    truth = output.item.truth.get(output.name)
    return _yes_no(words_of(truth) == words_of(output.text)) if isinstance(truth, str) else Verdict()


def meaning(output: Output, ears: Ears) -> Verdict:
    """A caption that should name the same sounds."""
    truth = output.item.truth.get(output.name)
    return _yes_no(same_meaning(truth, output.text)) if isinstance(truth, str) else Verdict()


def _yes_no(right: bool) -> Verdict:
    return Verdict({"right": float(right)}, right)


def spoken(output: Output, ears: Ears) -> Verdict:
    """Speech that should say a text, as the ears hear it."""
    text = output.item.says.get(output.name)
    if not text or output.file is None:
        return Verdict()
    heard = ears.words(output.file, output.language)
    if heard is None:
        return Verdict()
    found = _errors(text, heard, output.language)
    return Verdict(found.figures, found.right, heard)


def sounding(output: Output, ears: Ears) -> Verdict:
    """A sound that should be what a text describes."""
    heard = ears.sound(output.file) if output.file is not None else None
    if heard is None:
        return Verdict()
    right = same_meaning(str(output.item.given["caption"]), heard)
    return Verdict({"right": float(right)}, right, heard)


def coded(output: Output, ears: Ears) -> Verdict:
    """A sound that should be the same as the one that was coded."""
    figures = _near(output.file, output.truth)
    if not output.item.speech:
        figures.pop("stoi", None)
    return Verdict(figures)


def cleaned(output: Output, ears: Ears) -> Verdict:
    """Speech that should be near to the right one; its words too."""
    found = spoken(output, ears)
    return Verdict({**_near(output.file, output.truth), **found.figures}, found.right, found.heard)


def parted(output: Output, ears: Ears) -> Verdict:
    """A part of music that should be near to the right one."""
    return Verdict({name: value for name, value in _near(output.file, output.truth).items() if name != "stoi"})


def converted(output: Output, ears: Ears) -> Verdict:
    """Speech that should have the pitch of the right one; its words too."""
    found = spoken(output, ears)
    figures: dict[str, float] = {}
    if output.file is not None and output.truth is not None:
        own, wanted = (audio_metrics.median_f0_hz(read_audio(each)) for each in (output.file, output.truth))
        figures = {"pitch_off": abs(12 * float(np.log2(own / wanted)))} if own > 0 and wanted > 0 else {}
    return Verdict({**figures, **found.figures}, found.right, found.heard)


def turns(output: Output, ears: Ears) -> Verdict:
    """Who speaks when: seconds in error, and seconds of speech."""
    truth = output.item.truth.get(output.name)
    if not isinstance(truth, str):
        return Verdict()
    try:
        error, speech = diarization_error(read_turns(truth), read_turns(output.text))
    except ModuleNotFoundError:
        return Verdict()
    return Verdict({"error_s": error, "speech_s": speech})


def _near(estimate: Path | None, truth: Path | None) -> dict[str, float]:
    """STOI and log-mel distance after alignment, at one level; a figure that is undefined or needs a package is out."""
    if estimate is None or truth is None:
        return {}
    pair = audio_metrics.align(read_audio(truth), read_audio(estimate))
    if min(pair.reference.size, np.count_nonzero(pair.estimate)) < 2400:
        return {}
    figures = {"log_mel_l1": audio_metrics.log_mel_distance(pair.reference, pair.levelled)}
    with contextlib.suppress(MissingPackageError):
        figures["stoi"] = audio_metrics.stoi(pair.reference, pair.levelled)
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def pooled(verdicts: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, int]]:
    """Figures of several clips as one, and on how many each rests: rates are summed, others are means."""
    found: dict[str, tuple[float, int]] = {}
    for metric in METRICS:
        own = [each for each in verdicts if metric.key in each]
        below = sum(each[metric.per] if metric.per else 1.0 for each in own)
        if below > 0:
            found[metric.key] = (sum(each[metric.key] for each in own) / below, len(own))
    return found
