"""Evaluations of generated audio: speech judged by recognisers and voices, sounds judged by a classifier."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, resample
from uniaudio2.data.manifest import Example
from uniaudio2.eval.audio_metrics import median_f0_hz, timbre
from uniaudio2.eval.classifier import NearestClip, SoundClassifier
from uniaudio2.eval.context import Clip, Context, EvaluationError
from uniaudio2.eval.listener import Listener
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import accuracy, mean, score_texts

Result = tuple[list[Figure], list[dict[str, Any]]]

SENTENCES = {"en": 100, "zh": 50, "yue": 50}
"""Sentences spoken for each language."""


def tts(context: Context) -> Result:
    """Unseen sentences: our own recogniser and an independent one, beside both on the voice that was learned from.

    The learned-from (source) voice is flite's slt in English and espeak-ng's in Mandarin and Cantonese; its rows are
    left out where the program is not installed.
    """
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
    systems: list[tuple[str, Callable[[int, str], Tensor | None]]] = [
        ("spoken by the model", lambda i, text: context.subject.speak(text, language=language, voice=None,
                                                                      seed=context.seed + i)),
    ]  # fmt: skip
    source = source_voice(sentences, language)
    if source is not None:
        systems.append(("source voice", lambda i, _text: source[i]))
    else:
        context.notes.append(f"{language}: the source voice's synthesiser is not installed, so its rows are missing.")
    figures: list[Figure] = []
    items: list[dict[str, Any]] = [
        {"id": f"{language}-{i:03d}", "language": language, "text": text} for i, text in enumerate(sentences)
    ]
    for system, make in systems:
        waves: list[Tensor] = []
        for index, text in context.track(list(enumerate(sentences)), f"{language}: {system}"):
            wave = make(index, text)
            waves.append(
                context.written(torch.zeros(1, 240) if wave is None else wave, f"tts_{language}_{system}_{index:03d}")
            )
        found: list[str] = []
        for wave in context.track(waves, f"{language}: own recogniser"):
            found += context.subject.transcribe([wave], language=language, seed=context.seed)
        scores = score_texts(sentences, found, language=language, normaliser=context.normaliser, seed=context.seed)
        group = f"{language}, {system}"
        ours = system == "spoken by the model"
        figures.append(Figure.of("CER by own recogniser", scores.cer, unit="%", group=group,
                                 target=("<= 12 %" if language == "en" else "<= 30 %") if ours else ""))  # fmt: skip
        if language == "en":
            figures.append(Figure.of("WER by own recogniser", scores.wer, unit="%", group=group))
        seconds = [wave.shape[-1] / SAMPLE_RATE for wave in waves]
        figures.append(
            Figure("seconds per sentence, mean", statistics.mean(seconds), count=len(seconds), unit="s", group=group)
        )
        for row, text, length in zip(items, found, seconds, strict=True):
            row[f"{system}: found"], row[f"{system}: seconds"] = text, round(length, 3)
        if listener is not None:
            heard = context.track(list(zip(waves, sentences, strict=True)), "independent listener")
            right = [listener.right(wave, text, pool) for wave, text in heard]
            figures.insert(0 if ours else len(figures), Figure.of(
                "right by an independent listener (one of ten)", accuracy(right), unit="%", group=group,
                target=">= 40 %; >= 85 % of the source voice's; chance 10 %" if ours else ""))  # fmt: skip
            for row, ok in zip(items, right, strict=True):
                row[f"{system}: listener"] = ok
    return figures, items


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
    clips. The same question for real clips of those voices (each against the others' means) is the ceiling.
    """
    clips = [clip for clip in context.held_out_speech("en") if clip.example.duration >= 1.2]
    voices: dict[str, list[Clip]] = {}
    for clip in clips:
        voices.setdefault(str(clip.example.speaker), []).append(clip)
    voices = {name: own for name, own in sorted(voices.items()) if len(own) >= 3}
    if len(voices) < 2:
        raise EvaluationError("voice prompts need at least two left-out voices with three clips each")
    reference = {name: [np.append(timbre(c.load()), 0) for c in own[1:9]] for name, own in voices.items()}
    spread = np.concatenate([np.stack(rows) for rows in reference.values()]).std(axis=0) + 1e-3
    judge = _VoiceJudge(reference, spread)
    sentences = context.head(context.held_out_sentences("en"), sentences_each)
    right, semitones, items = [], [], []
    for number, (name, own) in enumerate(voices.items()):
        prompt = own[0].load()
        wanted = median_f0_hz(prompt)
        for index, text in context.track(list(enumerate(sentences)), f"voice {name}"):
            wave = context.subject.speak(text, language="en", voice=prompt, seed=context.seed + 1000 * number + index)
            wave = context.written(wave, f"voice_{name}_{index:03d}")
            heard = judge.nearest(np.append(timbre(wave), 0))
            f0 = median_f0_hz(wave)
            right.append(heard == name)
            semitones.append(abs(12 * math.log2(f0 / wanted)) if f0 > 0 and wanted > 0 else math.nan)
            items.append({"prompt": name, "text": text, "nearest": heard, "f0_hz": f0, "prompt_f0_hz": wanted})
    ceiling = [
        _VoiceJudge({**reference, name: [row for row in rows if row is not own]}, spread).nearest(own) == name
        for name, rows in reference.items()
        for own in rows
    ]
    finite = [value for value in semitones if math.isfinite(value)]
    within = accuracy([math.isfinite(value) and value <= 2 for value in semitones])
    figures = [
        Figure.of("nearest voice is the prompt's", accuracy(right), unit="%", target=">= 70 %"),
        Figure("chance", 1 / len(voices), unit="%"),
        Figure.of("nearest voice, real clips (ceiling)", accuracy(ceiling), unit="%"),
        Figure.of("median F0 within 2 semitones", within, unit="%"),
        Figure("median F0 difference, median", statistics.median(finite) if finite else math.nan, count=len(finite),
               unit="semitones", target="<= 2"),
    ]  # fmt: skip
    return figures, items


class _VoiceJudge:
    def __init__(self, reference: dict[str, list[np.ndarray]], spread: np.ndarray) -> None:
        self._means = {name: np.mean(rows, axis=0) for name, rows in reference.items() if rows}
        self._spread = spread

    def nearest(self, vector: np.ndarray) -> str:
        """Name of the voice whose mean is nearest."""
        return min(self._means, key=lambda name: float(np.linalg.norm((self._means[name] - vector) / self._spread)))


# ---------------------------------------------------------------------------------------------------------- sounds

SEEDS = 5


def tta(context: Context) -> Result:
    """Ten classes, five seeds, two phrasings each, named by a classifier trained on real clips only.

    Beside it: the classifier on real dev clips and on dev clips that went through the codec (decoded as made sounds
    are), and the nearest training clip, so that copies are noticed.
    """
    from uniaudio2.data.sources import CAPTIONS

    train = [clip.example for clip in context.real("esc10", "train")]
    dev = [clip.example for clip in context.real("esc10")]
    judge = _classifier(context, train)
    labels = judge.labels
    prompts = [(label, phrase) for label in labels for phrase in (CAPTIONS[label][0], CAPTIONS[label][2])]
    jobs = [(label, phrase, seed) for seed in range(SEEDS) for label, phrase in prompts]
    jobs = context.sample(jobs)
    nearest = NearestClip(train)
    # Choice: a near-copy lies closer to a training clip than 95 % of unseen recordings do; 5 % of those "are" copies.
    unseen = [nearest.find(example.audio())[1] for example in context.track(dev, "distances of unseen clips")]
    threshold = float(np.quantile(unseen, 0.05))
    items: list[dict[str, Any]] = []
    for number, (label, phrase, seed) in enumerate(context.track(jobs, "generating sounds")):
        wave = context.subject.generate_sound(phrase, seed=context.seed + seed)
        wave = context.written(wave, f"tta_{number:03d}_{label}")
        closest, distance = nearest.find(wave)
        items.append(
            {
                "label": label,
                "prompt": phrase,
                "seed": context.seed + seed,
                "named": judge.classify([wave])[0],
                "seconds": wave.shape[-1] / SAMPLE_RATE,
                "nearest": closest,
                "distance": distance,
            }
        )
    right = [row["named"] == row["label"] for row in items]
    through = _through_codec(context)
    copies = accuracy([row["distance"] < threshold for row in items])
    figures = [
        Figure.of("class named by the classifier", accuracy(right), unit="%", target=">= 60 %"),
        Figure("chance", 1 / len(labels), unit="%"),
        Figure.of("classifier on real dev clips", _accuracy_on(judge, dev, Example.audio), unit="%"),
        Figure.of("classifier on dev clips through the codec, as made sounds", _accuracy_on(judge, dev, through),
                  unit="%"),
        Figure.of("near-copies of a training clip", copies, unit="%", target="<= 10 %"),
        Figure.of("distance to the nearest training clip", mean([row["distance"] for row in items]), unit="decades"),
        Figure("distance that counts as a near-copy", threshold, unit="decades"),
        Figure.of("distance of real dev clips to the nearest training clip", mean(unseen), unit="decades"),
        Figure.of("training clips through the codec that count as near-copies (sensitivity)",
                  accuracy([nearest.find(through(one))[1] < threshold for one in train[:: len(train) // 20 or 1]]),
                  unit="%"),
    ]  # fmt: skip
    for label in labels:
        some = [row["named"] == label for row in items if row["label"] == label]
        if some:
            figures.append(Figure.of("class named by the classifier", accuracy(some), unit="%", group=label))
    return figures, items


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


def _accuracy_on(judge: SoundClassifier, examples: Sequence[Example], load: Callable[[Example], Tensor]) -> Any:
    return accuracy([judge.classify([load(example)])[0] == example.label for example in examples])
