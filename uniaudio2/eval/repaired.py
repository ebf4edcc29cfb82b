"""Evaluations of speech that is disturbed: impaired, before a sound, in noise, of two at once.

Whisper judges words, STOI intelligibility after alignment, SI-SDR the waveform (which a codec does not keep). Every
figure of the model stands beside that of what it was given and of what was to be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from uniaudio2.data.manifest import read_manifest
from uniaudio2.data.recogniser import has_whisper, hear, whisper_name
from uniaudio2.eval.audio_metrics import align, stoi
from uniaudio2.eval.classifier import SoundClassifier
from uniaudio2.eval.context import Clip, Context
from uniaudio2.eval.held_out import OURS, TRUTH, answers, held_out, waves, words
from uniaudio2.eval.musical import si_sdr
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import accuracy, count_errors, get_normaliser, mean, score_texts

Result = tuple[list[Figure], list[dict[str, Any]]]

GIVEN, CODED = "what was given", "what was given, through the codec"
SCENE_JUDGE = "classifier trained on the training scenes alone"
ENOUGH_TO_LEARN = 50
"""Training clips that a classifier of sounds needs."""


def impaired(context: Context, data: str) -> Result:
    """Transcripts of speech that is hard to articulate, by severity, beside those of the clear clips."""
    clips = held_out(context, "d_asr", data)
    wanted = [str(clip.example.text) for clip in clips]
    found = [str(one.get("transcription", "")) for one in answers(context, "d_asr", clips)]
    clear = [i for i, clip in enumerate(clips) if "plain" in clip.example.audios]
    plain = context.subject.transcribe(
        [clips[i].example.audio(name="plain") for i in clear], language="en", seed=context.seed
    )
    items: list[dict[str, Any]] = [
        {"id": c.example.id, "severity": c.example.label, "text": a, "found": b}
        for c, a, b in zip(clips, wanted, found, strict=True)
    ]
    normaliser = context.normaliser
    own = score_texts(wanted, found, normaliser=normaliser, seed=context.seed).wer
    best = score_texts([wanted[i] for i in clear], plain, normaliser=normaliser, seed=context.seed).wer
    figures = [Figure.of("WER", own, unit="%"), Figure.of("WER of the clear clips, by asr", best, unit="%")]
    if clear and best.value > 0:
        times = own.value / best.value
        figures.append(Figure("WER beside that of the clear", times, count=len(clear), unit="times", target="<= 1.5"))
    for severity in dict.fromkeys(str(clip.example.label) for clip in clips):
        some = [i for i, clip in enumerate(clips) if clip.example.label == severity]
        rate = score_texts([wanted[i] for i in some], [found[i] for i in some], normaliser=normaliser).wer
        figures.append(Figure.of("WER", rate, unit="%", group=severity))
    systems = {"impaired clips": [clip.example.audio(name="dysarthric") for clip in clips]}
    return figures + words(context, clips, systems, "", items), items


def with_sound(context: Context, data: str) -> Result:
    """Words before a described sound: what Whisper hears, and the sound that a classifier of such scenes names."""
    clips = held_out(context, "speech_with_sound", data)
    made = waves(answers(context, "speech_with_sound", clips), "audio")
    systems = {OURS: made, TRUTH: [clip.example.audio(name="scene") for clip in clips]}
    items: list[dict[str, Any]] = [
        {"id": c.example.id, "sound": c.example.label, "caption": c.example.caption, "text": c.example.text}
        for c in clips
    ]
    figures = words(context, clips, systems, "<= 25 %", items)
    train = [each for each in read_manifest(data) if each.split == "train" and "scene" in each.audios and each.label]
    if len(train) < ENOUGH_TO_LEARN:
        context.notes.append("No figure of sounds: the manifest has too few training scenes for a classifier.")
        return figures, items
    judge = SoundClassifier.trained(train, seed=context.seed)
    for system, own in systems.items():
        named = [judge.classify([wave])[0] for wave in context.track(own, f"{system}: sounds")]
        for name, row in zip(named, items, strict=True):
            row[f"{system}: sound"] = name
        right = accuracy([name == clip.example.label for name, clip in zip(named, clips, strict=True)])
        target = ">= 70 %" if system == OURS else ""
        figures.append(Figure.of("sound named", right, unit="%", group=system, target=target, judge=SCENE_JUDGE))
    return [*figures, Figure("sound named: chance", 1 / len(judge.labels), unit="%")], items


def denoised(context: Context, data: str) -> Result:
    """Noisy speech made clean: better than what was given?"""
    clips = held_out(context, "speech_denoise", data)
    made = waves(answers(context, "speech_denoise", clips), "target")
    return _better(context, clips, made, given="noisy", wanted="clean", text="text")


def separated(context: Context, data: str) -> Result:
    """Two speakers apart: each better than the mixture, and in the order in which they start?"""
    clips = held_out(context, "speech_ss", data)
    answered = answers(context, "speech_ss", clips)
    figures: list[Figure] = []
    items: list[dict[str, Any]] = []
    ordered: list[bool] = []
    for name, other in (("first", "second"), ("second", "first")):
        made = waves(answered, name)
        some, rows = _better(context, clips, made, given="mixture", wanted=name, text=f"said_{name}")
        figures += some
        items += [{"output": name, **row} for row in rows]
        for clip, wave in zip(clips, made, strict=True):
            ordered.append(_stoi(clip.example.audio(name=name), wave) > _stoi(clip.example.audio(name=other), wave))
    figures.append(Figure.of("nearer to the right speaker (chance 50 %)", accuracy(ordered), unit="%", judge="STOI"))
    return figures, items


def _stoi(reference: Tensor, estimate: Tensor) -> float:
    """STOI after alignment; 0 where it is undefined."""
    pair = align(reference, estimate)
    value = stoi(pair.reference, pair.estimate) if pair.reference.size > 2400 else 0.0
    return value if value == value else 0.0


def _better(
    context: Context, clips: Sequence[Clip], made: Sequence[Tensor], *, given: str, wanted: str, text: str
) -> Result:
    """STOI, SI-SDR and words of what was made, beside those of what was given, of the codec alone, and of the truth."""
    normalise = get_normaliser("whisper")
    audio = {name: [clip.example.audio(name=name) for clip in clips] for name in (given, wanted)}
    coded = {
        name: [context.subject.decode(codes, seed=context.seed) for codes in context.subject.encode(audio[name])]
        for name in (given, wanted)
    }
    systems = {OURS: made, GIVEN: audio[given], CODED: coded[given], f"{TRUTH}, through the codec": coded[wanted]}
    items: list[dict[str, Any]] = [{"id": clip.example.id, "about": clip.example.label} for clip in clips]
    scores: dict[str, list[float]] = {}
    figures: list[Figure] = []
    for system, own in systems.items():
        pairs = list(zip(audio[wanted], own, strict=True))
        scores[system] = [_stoi(a, b) for a, b in context.track(pairs, f"{system}: STOI")]
        for row, value in zip(items, scores[system], strict=True):
            row[f"{system}: STOI"] = round(value, 3)
        figures.append(Figure.of("STOI", mean(scores[system]), group=f"{wanted}, {system}"))
        ratios = mean([si_sdr(a, b) for a, b in pairs])
        figures.append(Figure.of("SI-SDR", ratios, unit="dB", group=f"{wanted}, {system}"))
    # Choice: a thousandth is what rounding to 16 bits can do.
    # What the model makes has gone through the codec; so has, for a fair question, what was given.
    for place, (other, name) in enumerate(((GIVEN, "given"), (CODED, "given, both through the codec"))):
        better = accuracy([a > b + 1e-3 for a, b in zip(scores[OURS], scores[other], strict=True)])
        target = ">= 80 %" if other == GIVEN else ""
        figures.insert(place, Figure.of(f"STOI better than {name}", better, unit="%", group=wanted, target=target))
    if not has_whisper():
        return figures, items
    # The words of a recording without a transcript are those that Whisper hears in the clean clip.
    said = [clip.example.text if text == "text" else clip.example.texts.get(text) for clip in clips]
    said = [known or hear(clean, "en") for known, clean in zip(said, audio[wanted], strict=True)]
    errors: dict[str, list[float]] = {}
    for system, own in {**systems, TRUTH: audio[wanted]}.items():
        found = [hear(wave, "en") for wave in context.track(list(own), f"{system}: Whisper")]
        pairs = [(normalise(a, "en"), normalise(b, "en")) for a, b in zip(said, found, strict=True)]
        errors[system] = [count_errors(a, b).word_errors if a else 0 for a, b in pairs]
        for row, words_found in zip(items, found, strict=True):
            row[f"{system}: heard"] = words_found
        rate = score_texts(said, found, normaliser="whisper", seed=context.seed).wer
        figures.append(Figure.of("WER by Whisper", rate, unit="%", group=f"{wanted}, {system}", judge=whisper_name()))
    hard = [(a, b) for a, b in zip(errors[OURS], errors[GIVEN], strict=True) if b]
    fewer = accuracy([a < b for a, b in hard]) if hard else accuracy([True])
    figures.insert(1, Figure.of("fewer wrong words than given, where it had any", fewer, unit="%", group=wanted,
                                target=">= 80 %", judge=whisper_name()))  # fmt: skip
    return figures, items
