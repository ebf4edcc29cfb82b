"""Further judges of generated audio, each where its package or weights are at hand; one that is not is named.

A judge is never replaced by another one: what cannot be had leaves its columns out, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.recogniser import REMEDY, has_whisper, hear, whisper_name
from uniaudio2.errors import MissingPackageError, UserError
from uniaudio2.eval.context import Clip
from uniaudio2.eval.text_metrics import count_errors, get_normaliser, simplified

Score = Callable[[Tensor, Clip], dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """One column of a table.

    Attributes:
        key: Name of the figure of a clip.
        title: At the head of the column.
        unit: ``"%"`` shows a share of one.
        better: ``"higher"`` or ``"lower"``; empty where neither is.
        per: Name of what it is divided by, summed over clips; empty for a mean over clips.
    """

    key: str
    title: str
    unit: str = ""
    better: str = "lower"
    per: str = ""


@dataclass(frozen=True)
class Judge:
    """A judge that is at hand.

    Attributes:
        title: What it is, with its version, for the report.
        score: A waveform (1, N) at 24 kHz and the clip that it belongs to, to figures.
        metrics: Its columns.
    """

    title: str
    score: Score
    metrics: tuple[Metric, ...]


def find_judges(names: Sequence[str], normaliser: str = "whisper") -> tuple[dict[str, Judge], list[str]]:
    """The judges of those names that are at hand, and a line for each that is not.

    Raises:
        UserError: If a name is unknown.
    """
    found: dict[str, Judge] = {}
    notes: list[str] = []
    for name in names:
        if name not in JUDGES:
            raise UserError(f"unknown judge {name!r}; there are {', '.join(JUDGES)}")
        try:
            found[name] = JUDGES[name](normaliser)
        except MissingPackageError as error:
            notes.append(f"No figures by {name}: {error}")
    return found, notes


def text_errors(expected: str, found: str, language: str, normaliser: str) -> dict[str, Any]:
    """Both texts, and the edit errors between them after normalisation (see `count_errors`).

    Raises:
        UserError: If nothing is left of what was expected.
    """
    normalise = get_normaliser(normaliser)
    reference, hypothesis = (normalise(simplified(text, language), language) for text in (expected, found))
    if not reference:
        raise UserError(f"nothing is left of the text {expected!r} after normalisation")
    return {"expected": expected, "found": found, **vars(count_errors(reference, hypothesis))}


WORDS = (
    Metric("word_errors", "WER", "%", "lower", "words"),
    Metric("char_errors", "CER", "%", "lower", "chars"),
)


def _whisper(normaliser: str) -> Judge:
    """Words of what was spoken, against the text that should have been."""
    if not has_whisper():
        raise MissingPackageError(REMEDY)

    def score(wave: Tensor, clip: Clip) -> dict[str, Any]:
        language = clip.example.language or "en"
        if not clip.example.text or language not in ("en", "zh"):  # it hears Cantonese as Mandarin
            return {}
        return text_errors(clip.example.text, hear(wave, language), language, normaliser)

    return Judge(whisper_name(), score, WORDS)


def _dnsmos(_normaliser: str) -> Judge:
    """DNSMOS (P.835 and P.808), by the package that carries its models."""
    try:
        import speechmos
        from speechmos import dnsmos
    except ImportError as error:
        raise MissingPackageError("pip install 'uniaudio2[judges]' (package speechmos)") from error

    def score(wave: Tensor, clip: Clip) -> dict[str, Any]:
        if clip.example.kind != "speech":
            return {}
        low = soxr.resample(wave[0].double().numpy(), SAMPLE_RATE, 16_000)
        # It refuses samples beyond full scale, and its models were trained on clips of 9 s: it repeats shorter ones.
        found = dnsmos.run(np.clip(low, -1.0, 1.0), sr=16_000)
        return {f"dnsmos_{key.removesuffix('_mos')}": float(found[key]) for key in ("ovrl_mos", "sig_mos", "bak_mos")}

    columns = [("ovrl", "DNSMOS"), ("sig", "DNSMOS signal"), ("bak", "DNSMOS background")]
    metrics = tuple(Metric(f"dnsmos_{key}", title, "", "higher") for key, title in columns)
    return Judge(f"DNSMOS by speechmos {getattr(speechmos, '__version__', '')}".strip(), score, metrics)


JUDGES: dict[str, Callable[[str], Judge]] = {"whisper": _whisper, "dnsmos": _dnsmos}
"""Judges by name; each raises MissingPackageError, with the remedy, where it is not at hand."""
