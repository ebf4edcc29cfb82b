"""Further judges of generated audio, each where its package or weights are at hand; one that is not is named.

A judge is never replaced by another one: what cannot be had leaves its columns out, and the report says so.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.recogniser import REMEDY, has_whisper, hear, whisper_name
from uniaudio2.errors import MissingPackageError, UserError
from uniaudio2.eval.context import Clip
from uniaudio2.eval.frechet import CHANNELS, Embedding, whisper_frames
from uniaudio2.eval.text_metrics import count_errors, get_normaliser, simplified

Score = Callable[[Tensor, Clip, Tensor | None], dict[str, Any]]


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
        score: A waveform (1, N) at 24 kHz, the clip that it belongs to, and the waveform (1, N) that it should sound
            like where there is one, to figures; None where it judges no single clip.
        metrics: Its columns.
        embed: Of a judge of all clips together: a waveform to frames (T, D), see `uniaudio2.eval.frechet`.
    """

    title: str
    score: Score | None
    metrics: tuple[Metric, ...]
    embed: Embedding | None = None


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
        except UserError as error:
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

    def score(wave: Tensor, clip: Clip, _like: Tensor | None) -> dict[str, Any]:
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

    def score(wave: Tensor, clip: Clip, _like: Tensor | None) -> dict[str, Any]:
        if clip.example.kind != "speech":
            return {}
        low = _at_16khz(wave)
        # It refuses samples beyond full scale, and its models were trained on clips of 9 s: it repeats shorter ones.
        found = dnsmos.run(np.clip(low, -1.0, 1.0), sr=16_000)
        return {f"dnsmos_{key.removesuffix('_mos')}": float(found[key]) for key in ("ovrl_mos", "sig_mos", "bak_mos")}

    columns = [("ovrl", "DNSMOS"), ("sig", "DNSMOS signal"), ("bak", "DNSMOS background")]
    metrics = tuple(Metric(f"dnsmos_{key}", title, "", "higher") for key, title in columns)
    return Judge(f"DNSMOS by speechmos {getattr(speechmos, '__version__', '')}".strip(), score, metrics)


def _at_16khz(wave: Tensor) -> NDArray[np.float64]:
    return soxr.resample(wave[0].double().numpy(), SAMPLE_RATE, 16_000)


def _similarity(_normaliser: str) -> Judge:
    """How alike two voices are: the cosine of their embeddings (GE2E, arXiv:1710.10467), by Resemblyzer's own network.

    On readers who are in no training of ours two clips of one reader have .83 (5 % below .64), of two readers .53
    (5 % above .71). It is not the WavLM network of published similarities (SIM-o), whose figures lie elsewhere.
    """
    try:
        import resemblyzer
    except ImportError as error:
        raise MissingPackageError(
            "pip install 'uniaudio2[judges]', then pip install --no-deps resemblyzer (it asks for packages that need a "
            f"compiler; {error})"
        ) from error
    network = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(wave: Tensor) -> NDArray[np.float32] | None:
        """A voice as a vector of length 1; None where nobody is heard to speak."""
        level = _at_16khz(wave).astype(np.float32)
        spoken = resemblyzer.preprocess_wav(level) if np.any(level) else level[:0]
        return network.embed_utterance(spoken) if len(spoken) else None

    def score(wave: Tensor, clip: Clip, like: Tensor | None) -> dict[str, Any]:
        if clip.example.kind != "speech" or like is None:
            return {}
        own, wanted = embed(wave), embed(like)
        return {"similarity": math.nan if own is None or wanted is None else float(own @ wanted)}

    version = importlib.metadata.version("resemblyzer")
    columns = (Metric("similarity", "speaker similarity", "", "higher"),)
    return Judge(f"speaker similarity by Resemblyzer {version}", score, columns)


def _classifier(_normaliser: str) -> Judge:
    """Whether a classifier that learned from ESC-10's training clips hears the class of a clip."""
    from uniaudio2.data.sources import find_data_root, read_set
    from uniaudio2.eval.classifier import SoundClassifier

    train = read_set(find_data_root(), "esc10", split="train")
    judge = SoundClassifier.trained(train, seed=0)

    def score(wave: Tensor, clip: Clip, _like: Tensor | None) -> dict[str, Any]:
        if clip.example.label not in judge.labels:
            return {}
        return {"class_heard": float(judge.classify([wave])[0] == clip.example.label)}

    title = f"convolutional classifier trained on {len(train)} clips of ESC-10"
    return Judge(title, score, (Metric("class_heard", "class heard", "%", "higher"),))


def _fad(_normaliser: str) -> Judge:
    """Fréchet distance over a layer of Whisper's encoder: no published FAD, whose encoder is VGGish."""
    title = f"Fréchet distance over layer 2 of Whisper base's encoder, {CHANNELS} components; not FAD by VGGish"
    return Judge(title, None, (FAD,), whisper_frames())


FAD = Metric("frechet", "FD, Whisper layer 2")

JUDGES: dict[str, Callable[[str], Judge]] = {
    "whisper": _whisper,
    "dnsmos": _dnsmos,
    "similarity": _similarity,
    "classifier": _classifier,
    "fad": _fad,
}
"""Judges by name; each raises a UserError, with the remedy, where it is not at hand."""
