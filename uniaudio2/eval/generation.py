"""Evaluations of generated audio: speech judged by recognisers and voices, sounds judged by a classifier."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, resample
from uniaudio2.data.manifest import Example
from uniaudio2.data.recogniser import REMEDY, has_whisper, hear, whisper_name
from uniaudio2.data.sources import CAPTIONS
from uniaudio2.eval.audio_metrics import median_f0_hz, timbre
from uniaudio2.eval.classifier import NearestClip, SoundClassifier
from uniaudio2.eval.context import Clip, Context, EvaluationError, recording_of
from uniaudio2.eval.listener import Listener
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import Cluster, Rate, accuracy, mean, score_texts, simplified

Result = tuple[list[Figure], list[dict[str, Any]]]

SENTENCES = {"en": 100, "zh": 50, "yue": 50}
"""Sentences spoken for each language."""

OURS = "spoken by the model"
OWN = "the model's own recogniser"
LISTENER = "pocketsphinx, choice of one in ten sentences"


def tts(context: Context) -> Result:
    """Unseen sentences: our own recogniser and independent ones, beside them the voice that was learned from.

    The learned-from (source) voice is hibari's in English, Kokoro's in Mandarin and espeak-ng's in Cantonese; its rows
    are left out where the program is not installed. Whisper judges where it is at hand (`uniaudio2.data.recogniser`).
    """
    if not has_whisper():
        context.notes.append(f"No figure by Whisper. {REMEDY}")
    figures: list[Figure] = []
    items: list[dict[str, Any]] = []
    for language in context.languages:
        more, rows = _tts_language(context, language)
        figures += more
        items += rows
    return figures, items


def _tts_language(context: Context, language: str) -> Result:
    listener = Listener() if language == "en" else None
    pool = context.held_out_sentences(language)
    if listener is not None:
        # Very short sentences give the listener nothing to hold on to; words it does not know cannot be asked for.
        pool = [sentence for sentence in pool if 4 <= len(sentence.split()) <= 14 and listener.knows(sentence)]
    sentences = context.head(pool, SENTENCES[language])
    if not sentences:
        raise EvaluationError(f"no unseen {language!r} sentences to speak")
    systems = {OURS: _speaker(context, sentences, language)}
    source = source_voice(sentences, language)
    if source is not None:
        systems["source voice"] = source.__getitem__
    else:
        context.notes.append(f"{language}: the source voice's synthesiser is not installed, so its rows are missing.")
    heard = None if listener is None else lambda wave, text: listener.right(wave, text, pool)
    return _readings(context, sentences, language, systems, heard)


def tts_data(context: Context, data: str) -> Result:
    """The sentences of a manifest or set of recordings, spoken by the model, beside the recordings themselves."""
    clips = context.sample([clip for clip in context.set_or_manifest(data) if clip.example.text])
    if not clips:
        raise EvaluationError(f"{data}: no clip with text to speak")
    result: Result = ([], [])
    for language in context.languages:
        own = [clip for clip in clips if (clip.example.language or "en") == language]
        sentences = [str(clip.example.text) for clip in own]
        systems = {OURS: _speaker(context, sentences, language), "recordings": lambda i, own=own: own[i].load()}
        if own:
            figures, items = _readings(context, sentences, language, systems, None)
            result[0].extend(figures)
            result[1].extend(items)
    return result


def _speaker(context: Context, sentences: Sequence[str], language: str) -> Callable[[int], Tensor]:
    return lambda i: context.subject.speak(sentences[i], language=language, voice=None, seed=context.seed + i)


def _readings(
    context: Context,
    sentences: Sequence[str],
    language: str,
    systems: Mapping[str, Callable[[int], Tensor]],
    heard: Callable[[Tensor, str], bool] | None,
) -> Result:
    """The same sentences by several systems.

    Args:
        context: What is needed.
        sentences: What is read.
        language: Theirs.
        systems: What gives the waveform of a sentence's number, by the system's name.
        heard: Whether an independent listener hears the sentence; None where there is none for the language.
    """
    figures: list[Figure] = []
    items: list[dict[str, Any]] = [
        {"id": f"{language}-{i:03d}", "language": language, "text": text} for i, text in enumerate(sentences)
    ]
    for system, make in systems.items():
        group, ours = f"{language}, {system}", system == OURS
        waves = [
            context.written(make(index), f"tts_{language}_{system}_{index:03d}")
            for index in context.track(range(len(sentences)), f"{language}: {system}")
        ]
        found: list[str] = []
        for wave in context.track(waves, f"{language}: own recogniser"):
            found += context.subject.transcribe([wave], language=language, seed=context.seed)
        scores = score_texts(sentences, found, language=language, normaliser=context.normaliser, seed=context.seed)
        rates = {"CER": scores.cer, **({"WER": scores.wer} if language == "en" else {})}
        for name, rate in rates.items():
            target = ("<= 12 %" if language == "en" else "<= 30 %") if ours and name == "CER" else ""
            figures.append(
                Figure.of(f"{name} by own recogniser", rate, unit="%", group=group, target=target, judge=OWN)
            )
        figures += _by_whisper(context, sentences, language, waves, group, items, system)
        seconds = [wave.shape[-1] / SAMPLE_RATE for wave in waves]
        length = Figure("seconds per sentence, mean", statistics.mean(seconds), count=len(seconds), unit="s",
                        group=group)  # fmt: skip
        figures.append(length)
        for row, text, duration in zip(items, found, seconds, strict=True):
            row[f"{system}: found"], row[f"{system}: seconds"] = text, round(duration, 3)
        if heard is None:
            continue
        pairs = context.track(list(zip(waves, sentences, strict=True)), "independent listener")
        right = [heard(wave, text) for wave, text in pairs]
        figures.insert(0 if ours else len(figures), Figure.of(
            "right by an independent listener (one of ten)", accuracy(right), unit="%", group=group, judge=LISTENER,
            target=">= 40 %; >= 85 % of the source voice's; chance 10 %" if ours else ""))  # fmt: skip
        for row, ok in zip(items, right, strict=True):
            row[f"{system}: listener"] = ok
    return figures, items


def _by_whisper(
    context: Context,
    sentences: Sequence[str],
    language: str,
    waves: Sequence[Tensor],
    group: str,
    items: Sequence[dict[str, Any]],
    system: str,
) -> list[Figure]:
    """Errors of what Whisper hears in the waves, where it is at hand; Chinese in simplified script."""
    if language == "yue" or not has_whisper():  # Whisper base writes Cantonese as Mandarin
        return []
    found = [simplified(hear(wave, language), language) for wave in context.track(waves, f"{language}: Whisper")]
    wanted = [simplified(text, language) for text in sentences]
    scores = score_texts(wanted, found, language=language, normaliser="whisper", seed=context.seed)
    for row, text in zip(items, found, strict=True):
        row[f"{system}: Whisper"] = text
    name, rate = ("WER", scores.wer) if language == "en" else ("CER", scores.cer)
    target = ("<= 10 %" if language == "en" else "<= 15 %") if system == OURS else ""
    return [Figure.of(f"{name} by Whisper", rate, unit="%", group=group, target=target, judge=whisper_name())]


def source_voice(sentences: Sequence[str], language: str) -> list[Tensor] | None:
    """The sentences by the voice that the model's own voice was learned from, at 24 kHz; None without synthesiser."""
    from uniaudio2.data.synth.speech import HOUSE_VOICES
    from uniaudio2.data.synth.voices import SynthesiserMissing, synthesise

    try:
        spoken = synthesise(list(sentences), HOUSE_VOICES[language])
    except SynthesiserMissing:
        return None
    waves = []
    for samples, rate in spoken:
        wave = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
        waves.append(resample(wave, rate, SAMPLE_RATE) if wave.numel() and rate != SAMPLE_RATE else wave)
    return [wave if wave.numel() else torch.zeros(1, 240) for wave in waves]


# --------------------------------------------------------------------------------------------------- voice prompts


def tts_voices(context: Context, sentences_each: int = 15) -> Result:
    """Voice prompts of voices left out of training: is the nearest voice the prompt's, and is its pitch kept?

    Nearest by a timbre vector (see `audio_metrics.timbre`), each dimension scaled by its spread over the reference
    clips. The same question for real clips of those voices (each against the others' means) is the ceiling. Intervals
    draw voices, since the question is what another voice would give.
    """
    voices = _prompt_voices(context)
    judge = _VoiceJudge({name: [np.append(timbre(c.load()), 0) for c in own[1:9]] for name, own in voices.items()})
    sentences = context.head(context.held_out_sentences("en"), sentences_each)
    items: list[dict[str, Any]] = []
    for number, (name, own) in enumerate(voices.items()):
        prompt = own[0].load()
        wanted = median_f0_hz(prompt)
        for index, text in context.track(list(enumerate(sentences)), f"voice {name}"):
            wave = context.subject.speak(text, language="en", voice=prompt, seed=context.seed + 1000 * number + index)
            wave = context.written(wave, f"voice_{name}_{index:03d}")
            f0 = median_f0_hz(wave)
            off = abs(12 * math.log2(f0 / wanted)) if f0 > 0 and wanted > 0 else math.nan
            heard = judge.nearest(np.append(timbre(wave), 0))
            items.append({"prompt": name, "text": text, "nearest": heard, "f0_hz": f0, "prompt_f0_hz": wanted,
                          "semitones": off})  # fmt: skip
    prompts = [str(row["prompt"]) for row in items]
    finite = [row["semitones"] for row in items if math.isfinite(row["semitones"])]
    right = accuracy([row["nearest"] == row["prompt"] for row in items], clusters=prompts)
    within = accuracy([row["semitones"] <= 2 for row in items], clusters=prompts)  # NaN is not within
    real = [(name, judge.without(own).nearest(own) == name) for name, rows in judge.reference.items() for own in rows]
    ceiling = accuracy([ok for _, ok in real], clusters=[name for name, _ in real])
    figures = [
        Figure.of("nearest voice is the prompt's", right, unit="%", target=">= 70 %"),
        Figure("chance", 1 / len(voices), unit="%"),
        Figure.of("nearest voice, real clips (ceiling)", ceiling, unit="%"),
        Figure.of("median F0 within 2 semitones", within, unit="%"),
        Figure("median F0 difference, median", statistics.median(finite) if finite else math.nan, count=len(finite),
               unit="semitones", target="<= 2"),
    ]  # fmt: skip
    return figures, items


def _prompt_voices(context: Context) -> dict[str, list[Clip]]:
    """Clips of left-out voices that are long enough for a prompt, by voice; three at least of each."""
    voices: dict[str, list[Clip]] = {}
    for clip in context.held_out_speech("en"):
        if clip.example.duration >= 1.2:
            voices.setdefault(str(clip.example.speaker), []).append(clip)
    voices = {name: own for name, own in sorted(voices.items()) if len(own) >= 3}
    if len(voices) < 2:
        raise EvaluationError("voice prompts need at least two left-out voices with three clips each")
    return voices


class _VoiceJudge:
    def __init__(self, reference: dict[str, list[np.ndarray]], spread: np.ndarray | None = None) -> None:
        self.reference = reference
        self._means = {name: np.mean(rows, axis=0) for name, rows in reference.items() if rows}
        rows = [row for own in reference.values() for row in own]
        self._spread = np.stack(rows).std(axis=0) + 1e-3 if spread is None else spread

    def without(self, clip: np.ndarray) -> _VoiceJudge:
        """The same judge without one of its reference clips."""
        rest = {name: [row for row in rows if row is not clip] for name, rows in self.reference.items()}
        return _VoiceJudge(rest, self._spread)

    def nearest(self, vector: np.ndarray) -> str:
        """Name of the voice whose mean is nearest."""
        return min(self._means, key=lambda name: float(np.linalg.norm((self._means[name] - vector) / self._spread)))


# ---------------------------------------------------------------------------------------------------------- sounds

SEEDS = 5


def tta(context: Context) -> Result:
    """Ten classes, five seeds, two phrasings each, named by a classifier trained on real clips only.

    Beside it: the classifier on real dev clips and on dev clips that went through the codec (decoded as made sounds
    are), and the nearest training clip, so that copies are noticed. Intervals draw prompts (what another phrasing would
    give) and recordings.
    """
    train = [clip.example for clip in context.real("esc10", "train")]
    dev = [clip.example for clip in context.real("esc10")]
    judge, nearest = _classifier(context, train), NearestClip(train)
    # Choice: a near-copy lies closer to a training clip than 95 % of unseen recordings do; 5 % of those "are" copies.
    unseen = [nearest.find(example.audio())[1] for example in context.track(dev, "distances of unseen clips")]
    threshold = float(np.quantile(unseen, 0.05))
    items = _made_sounds(context, judge, nearest)
    prompts = [str(row["prompt"]) for row in items]
    through = _through_codec(context)
    some = train[:: len(train) // 20 or 1]

    def share(right: Sequence[bool], clusters: Sequence[Cluster]) -> Rate:
        """Accuracy with an interval over clusters."""
        return accuracy(right, clusters=clusters)

    def named(load: Callable[[Example], Tensor]) -> Rate:
        """How often the classifier is right on dev clips."""
        return share([judge.classify([load(one)])[0] == one.label for one in dev], [recording_of(one) for one in dev])

    figures = [
        Figure.of("class named by the classifier", share([r["named"] == r["label"] for r in items], prompts), unit="%",
                  target=">= 60 %"),
        Figure("chance", 1 / len(judge.labels), unit="%"),
        Figure.of("classifier on real dev clips", named(Example.audio), unit="%"),
        Figure.of("classifier on dev clips through the codec, as made sounds", named(through), unit="%"),
        Figure.of("near-copies of a training clip", share([r["distance"] < threshold for r in items], prompts),
                  unit="%", target="<= 10 %"),
        Figure.of("distance to the nearest training clip", mean([r["distance"] for r in items], clusters=prompts),
                  unit="decades"),
        Figure("distance that counts as a near-copy", threshold, unit="decades"),
        Figure.of("distance of real dev clips to the nearest training clip",
                  mean(unseen, clusters=[recording_of(one) for one in dev]), unit="decades"),
        Figure.of("training clips through the codec that count as near-copies (sensitivity)",
                  share([nearest.find(through(one))[1] < threshold for one in some],
                        [recording_of(one) for one in some]), unit="%"),
    ]  # fmt: skip
    for label in judge.labels:
        own = [row["named"] == label for row in items if row["label"] == label]
        if own:
            figures.append(Figure.of("class named by the classifier", accuracy(own), unit="%", group=label))
    return figures, items


def _made_sounds(context: Context, judge: SoundClassifier, nearest: NearestClip) -> list[dict[str, Any]]:
    """Sounds made from prompts: what the classifier calls each, and how near a training clip lies."""
    prompts = [(label, phrase) for label in judge.labels for phrase in (CAPTIONS[label][0], CAPTIONS[label][2])]
    jobs = context.sample([(label, phrase, seed) for seed in range(SEEDS) for label, phrase in prompts])
    items: list[dict[str, Any]] = []
    for number, (label, phrase, seed) in enumerate(context.track(jobs, "generating sounds")):
        wave = context.subject.generate_sound(phrase, seed=context.seed + seed)
        wave = context.written(wave, f"tta_{number:03d}_{label}")
        closest, distance = nearest.find(wave)
        row = {"label": label, "prompt": phrase, "seed": context.seed + seed, "named": judge.classify([wave])[0]}
        items.append({**row, "seconds": wave.shape[-1] / SAMPLE_RATE, "nearest": closest, "distance": distance})
    return items


def _classifier(context: Context, train: Sequence[Example]) -> SoundClassifier:
    steps = iter(context.track(range(100), "training the classifier"))
    done = 0

    def progress(share: float) -> None:
        """Move the bar to a share of its hundred steps."""
        nonlocal done
        while done < int(100 * share):
            next(steps, None)
            done += 1

    return SoundClassifier.trained(train, seed=0, progress=progress)


def _through_codec(context: Context) -> Callable[[Example], Tensor]:
    def run(example: Example) -> Tensor:
        """The example's audio, encoded and decoded, as written to a file."""
        codes = context.subject.encode([example.audio()])[0]
        return context.written(context.subject.decode(codes, seed=context.seed, kind="sound"), f"codec_{example.id}")

    return run
