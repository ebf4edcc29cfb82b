"""Evaluations of rows about music and songs, with judges that know nothing of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import read_manifest
from uniaudio2.data.recogniser import hear, whisper_name
from uniaudio2.data.synth.music import INSTRUMENTS, TEMPOS
from uniaudio2.data.synth.songs import TUNES, melody
from uniaudio2.data.synth.vocoder import world
from uniaudio2.eval.answers import word_errors
from uniaudio2.eval.audio_metrics import log_mel, log_mel_distance
from uniaudio2.eval.classifier import SoundClassifier
from uniaudio2.eval.context import Clip, Context, EvaluationError
from uniaudio2.eval.held_out import answers, commonest, held_out
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import accuracy, mean, ratio, simple

Result = tuple[list[Figure], list[dict[str, Any]]]

TRUTH = "the pieces themselves"
WORDS = {
    "slow": ("slow", "calm"), "medium": ("medium", "moderate"), "fast": ("fast", "quick"),
    "major": ("happy", "cheerful", "major"), "minor": ("sad", "gloomy", "minor"),
    **{name: (name,) for name in INSTRUMENTS},
}  # fmt: skip
"""Words that name a property of a piece in a caption."""

INSTRUMENT_JUDGE = "convolutional classifier trained on the training pieces alone"
TEMPO_JUDGE = "ridge regression on the autocorrelation of onsets, trained on the training pieces"


def named(caption: str, options: Sequence[str]) -> str:
    """Which of some properties a caption names; empty where none or several."""
    words = set(simple(caption).split())
    found = [option for option in options if words & set(WORDS[option])]
    return found[0] if len(found) == 1 else ""


def music_caption(context: Context, data: str) -> Result:
    """Captions of music: instrument, tempo and mode named, beside always naming the commonest."""
    clips = held_out(context, "music_caption", data)
    captions = [str(one.get("caption", "")) for one in answers(context, "music_caption", clips)]
    figures: list[Figure] = []
    items = [
        {"id": clip.example.id, "wanted": clip.example.texts["music_caption"], "found": text}
        for clip, text in zip(clips, captions, strict=True)
    ]
    properties = {"instrument": list(INSTRUMENTS), "tempo": list(TEMPOS), "mode": ["major", "minor"]}
    for place, (name, options) in enumerate(properties.items()):
        wanted = [clip.example.labels[place] for clip in clips]
        right = [named(text, options) == want for text, want in zip(captions, wanted, strict=True)]
        figures += [
            Figure.of(f"{name} named", accuracy(right), unit="%", target="30 points above the commonest"),
            Figure(f"commonest {name}", commonest(wanted), unit="%", count=len(wanted)),
        ]
    return figures, items


def ttm(context: Context, data: str) -> Result:
    """Music for captions: is the instrument heard by a classifier, and the tempo by its onsets?"""
    clips = held_out(context, "ttm", data)
    pieces = [one for one in read_manifest(data, split="train") if "music_caption" in one.texts]
    if len(pieces) < 2 * len(INSTRUMENTS):
        raise EvaluationError(f"{data}: the judges of ttm learn from its training pieces, which are missing")
    judge = SoundClassifier.trained(pieces, seed=0)
    band = tempo_judge([one.labels[1] for one in pieces], [onset_periods(one.audio()) for one in pieces])
    made = [one.get("audio") for one in answers(context, "ttm", clips)]
    items: list[dict[str, Any]] = [{"id": c.example.id, "caption": c.example.texts["music_caption"]} for c in clips]
    figures: list[Figure] = []
    for group, waves in (("", made), (TRUTH, [clip.load() for clip in clips])):
        heard = [_heard(wave, judge, band) for wave in waves]
        for place, (name, told) in enumerate((("instrument", INSTRUMENT_JUDGE), ("tempo", TEMPO_JUDGE))):
            right = [one[place] == clip.example.labels[place] for one, clip in zip(heard, clips, strict=True)]
            target = "" if group else ">= 70 %"
            figures.append(
                Figure.of(f"{name} recovered", accuracy(right), unit="%", group=group, judge=told, target=target)
            )
        for row, one in zip(items, heard, strict=True):
            row[f"heard {group}".strip()] = " ".join(one)
    for place, name in enumerate(("instrument", "tempo")):
        figures.append(Figure(f"commonest {name}", commonest([c.example.labels[place] for c in clips]), unit="%",
                              count=len(clips)))  # fmt: skip
    return figures, items


def _heard(wave: Tensor | None, judge: SoundClassifier, band: Callable[[np.ndarray], str]) -> tuple[str, str]:
    if wave is None or not wave.any():
        return "", ""
    return judge.classify([wave])[0], band(onset_periods(wave))


def onset_periods(audio: Tensor) -> np.ndarray:
    """How strongly the onsets of a piece (1, N) repeat at 64 tempos from 40 to 400 beats a minute: (64,), at most 1.

    The autocorrelation of onset strength, which is the rise of the log-mel spectrogram over all bands.
    """
    onsets = np.maximum(np.diff(log_mel(audio), axis=1), 0).mean(0)
    onsets = np.convolve(onsets, np.full(5, 0.2), "same")
    onsets = onsets - onsets.mean()
    rate = SAMPLE_RATE / 256
    lags = np.arange(min(round(1.6 * rate), onsets.size))
    strength = [np.dot(onsets[: onsets.size - lag], onsets[lag:]) for lag in lags]
    return np.interp(60 * rate / np.geomspace(40, 400, 64), lags, np.array(strength) / (onsets @ onsets + 1e-9))


def tempo_judge(bands: Sequence[str], periods: Sequence[np.ndarray]) -> Callable[[np.ndarray], str]:
    """What tells the band of a tempo from `onset_periods`: ridge regression on the pieces given.

    Choice: the strongest period alone confuses a tempo with its half and double; all periods together do not.
    """
    order = list(TEMPOS)
    rows = np.stack(periods)
    centre = rows.mean(0)

    def inputs(rows: np.ndarray) -> np.ndarray:
        """Without the mean, with a constant."""
        return np.c_[rows - centre, np.ones(len(rows))]

    a, wanted = inputs(rows), np.eye(len(order))[[order.index(band) for band in bands]]
    weights = np.linalg.solve(a.T @ a + np.eye(a.shape[1]), a.T @ wanted)
    return lambda own: order[int((inputs(own[None]) @ weights).argmax())]


def lyrics(context: Context, data: str) -> Result:
    """Words of songs as the model writes them, beside Whisper's: errors of words, in Chinese of characters."""
    clips = held_out(context, "lyric_recognition", data)
    found = [str(one.get("lyric", "")) for one in answers(context, "lyric_recognition", clips)]
    heard = [hear(clip.load(), clip.example.language or "en") for clip in context.track(clips, "Whisper")]
    figures = [
        *_lyric_rates(context, clips, found, "", "<= 35 %"),
        *_lyric_rates(context, clips, heard, whisper_name(), ""),
    ]
    items = [
        {"id": clip.example.id, "wanted": clip.example.texts["lyric"], "found": a, "Whisper": b}
        for clip, a, b in zip(clips, found, heard, strict=True)
    ]
    return figures, items


def _lyric_rates(
    context: Context, clips: Sequence[Clip], found: Sequence[str], group: str, target: str
) -> list[Figure]:
    figures: list[Figure] = []
    for language, name in (("en", "WER"), ("zh", "CER")):
        pairs = [
            word_errors(clip.example.texts["lyric"], text, language)
            for clip, text in zip(clips, found, strict=True)
            if clip.example.language == language
        ]
        if pairs:
            rate = ratio(*zip(*pairs, strict=True), seed=context.seed)
            figures.append(Figure.of(name, rate, unit="%", group=f"{language}, {group}".strip(", "), target=target))
    return figures


def songs(context: Context, data: str) -> Result:
    """Songs from lyrics: words by Whisper; pitch by WORLD against the nearest of the tunes; the songs' own beside."""
    clips = held_out(context, "lts", data)
    made = [one.get("audio") for one in answers(context, "lts", clips)]
    items: list[dict[str, Any]] = [{"id": c.example.id, "lyric": c.example.texts["lyric"]} for c in clips]
    figures: list[Figure] = []
    for group, waves in (("", made), ("the songs themselves", [clip.load() for clip in clips])):
        heard = [
            hear(wave, clip.example.language or "en") if wave is not None else ""
            for wave, clip in zip(context.track(waves, "Whisper"), clips, strict=True)
        ]
        figures += _lyric_rates(context, clips, heard, group, "" if group else "<= 50 %")
        errors = [
            pitch_error(wave, len(c.example.labels)) if wave is not None else math.nan
            for wave, c in zip(waves, clips, strict=True)
        ]
        finite = [error for error in errors if math.isfinite(error)]
        middle = float(np.median(finite)) if finite else math.nan
        figures.append(
            Figure("pitch error, median", middle, unit="semitones", count=len(finite), group=group,
                   judge="WORLD (pyworld)", target="" if group else "<= 1")
        )  # fmt: skip
        for row, text, error in zip(items, heard, errors, strict=True):
            row[f"heard {group}".strip()], row[f"semitones {group}".strip()] = text, round(error, 2)
    held = [tune_distance(np.zeros(n), np.arange(n), n) for n in (len(clip.example.labels) for clip in clips)]
    figures.append(Figure("pitch error, median", float(np.median(held)), unit="semitones", count=len(held),
                          group="one note held"))  # fmt: skip
    return figures, items


def pitch_error(audio: Tensor, notes: int) -> float:
    """How far a song's notes are from a tune of so many notes, semitones: the mean over notes, of the nearest tune.

    The tune is laid over the voiced stretch, its last note twice as long; the pitch of a note is its median, by WORLD's
    Harvest, which hears a voice through chords. Key and octave are free. NaN where nothing is voiced.
    """
    pitch, times = world().harvest(audio[0].double().numpy(), SAMPLE_RATE, f0_floor=100.0, f0_ceil=700.0)
    voiced = pitch > 0
    if voiced.sum() < 20:
        return math.nan
    start, end = times[voiced][[0, -1]]
    place = (times[voiced] - start) / (end - start) * (notes + 1)
    return tune_distance(12 * np.log2(pitch[voiced] / 440), np.minimum(place.astype(int), notes - 1), notes)


def tune_distance(track: np.ndarray, number: np.ndarray, notes: int) -> float:
    """Distance of pitches (T,), semitones, of the notes with these numbers (T,) from the nearest tune; at most 6."""

    def folded(offset: np.ndarray) -> np.ndarray:
        """The same pitch class in [-6, 6)."""
        return (offset + 6) % 12 - 6

    best = math.inf
    for tune in range(len(TUNES)):
        off = track - np.array(melody(notes, tune, 0))[number]
        key = min(np.arange(0, 12, 0.25), key=lambda key: float(np.abs(folded(off - key)).mean()))
        each = [abs(float(np.median(folded(off[number == note] - key)))) for note in np.unique(number)]
        best = min(best, float(np.mean(each)))
    return best


def music_separation(context: Context, data: str) -> Result:
    """Voice and accompaniment out of a song: nearer to their stems than the song is?

    SI-SDR, and the distance of log-mel spectrograms, which asks for no phase; beside the stems through the codec.
    """
    clips = held_out(context, "music_ss", data)
    made = answers(context, "music_ss", clips)
    items: list[dict[str, Any]] = []
    figures: list[Figure] = []
    for output, stem in (("first", "vocals"), ("second", "accompaniment")):
        rows = []
        for clip, one in zip(clips, made, strict=True):
            wanted, song = clip.example.audio(name=stem), clip.load()
            coded = context.subject.decode(context.subject.encode([wanted])[0], seed=context.seed, kind="sound")
            rows.append({name: (si_sdr(wanted, wave), log_mel_distance(wanted, wave)) if wave is not None else None
                         for name, wave in (("found", one.get(output)), ("song", song), ("codec", coded))})  # fmt: skip
        items += [{"id": clip.example.id, "stem": stem, **row} for clip, row in zip(clips, rows, strict=True)]
        for name, place, sign in (("SI-SDR", 0, 1), ("log-mel distance", 1, -1)):
            better = [bool(r["found"]) and sign * r["found"][place] > sign * r["song"][place] for r in rows]
            figures.append(
                Figure.of(f"{name} better than the song's", accuracy(better), unit="%", group=stem, target=">= 80 %")
            )
            for kind, title in (("found", stem), ("song", f"{stem}, the song"), ("codec", f"{stem} through the codec")):
                values = [r[kind][place] for r in rows if r[kind]]
                figures.append(Figure.of(name, mean(values), unit="dB" if place == 0 else "decades", group=title))
    return figures, items


def si_sdr(reference: Tensor, estimate: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB over the common length. Source: Le Roux and others (2019)."""
    n = min(reference.shape[-1], estimate.shape[-1])
    a, b = (wave[0, :n].double() - wave[0, :n].double().mean() for wave in (reference, estimate))
    target = a * (a @ b) / (a @ a).clamp(min=1e-12)
    return float(10 * ((target @ target + 1e-12) / ((b - target) @ (b - target) + 1e-12)).log10())
