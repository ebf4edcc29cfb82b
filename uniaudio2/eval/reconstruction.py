"""Evaluation of the codec: recordings in, codes, recordings out; beside its autoencoder alone and beside peers."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
import soxr
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codes import AudioCodes
from uniaudio2.data.recogniser import has_whisper, hear, whisper_name
from uniaudio2.eval.audio_metrics import (
    SOUND_METRICS,
    SPEECH_METRICS,
    codebook_perplexity,
    reconstruction_scores,
)
from uniaudio2.eval.classifier import SoundClassifier
from uniaudio2.eval.context import Clip, Context, EvaluationError
from uniaudio2.eval.report import Figure
from uniaudio2.eval.subject import HasAutoencoder, HasSteps, HasStreams
from uniaudio2.eval.text_metrics import accuracy, mean, score_texts, simplified

Result = tuple[list[Figure], list[dict[str, Any]]]

SHORT_S = 1.5
"""Shorter clips are scored in chains of `CHAIN_S`, since STOI and PESQ need that much; each is coded by itself."""

CHAIN_S = 4.0

STEPS = (1, 2, 4, 10)
STEP_GROUPS = ("synthetic speech, unseen voices", "read English, LJ", "read English, other voices", "sounds")
"""Groups of `gather` that are decoded in few and many steps."""

UNITS = {"mcd_db": "dB", "f0_semitones": "semitones", "log_mel_l1": "decades", "log_mel_l1_7k5": "decades"}


@dataclass(frozen=True)
class Recording:
    """One clip to be coded.

    Attributes:
        id: Its name.
        group: Part of the data it belongs to.
        kind: ``"speech"``, ``"sound"`` or ``"music"``.
        audio: Original, (1, N) at 24 kHz.
        cluster: Speaker, or recording that a sound was cut from; clips of one speaker may be chained.
        peers: Reconstructions by other systems, by name.
        language: What is spoken, where it is known.
        label: Class of a sound, where it is known.
    """

    id: str
    group: str
    kind: str
    audio: Tensor
    cluster: str = ""
    peers: dict[str, Tensor] | None = None
    language: str | None = None
    label: str | None = None


def codec(context: Context) -> Result:
    """All of the codec's figures, on speech, sounds and music."""
    return _coded(context, gather(context))


def codec_data(context: Context, data: str) -> Result:
    """The codec's figures on a manifest or set of recordings, speech, sounds and music apart."""
    clips = context.sample(context.set_or_manifest(data))
    if not clips:
        raise EvaluationError(f"{data}: no clips to code")
    return _coded(context, [_recording(clip, clip.example.kind, clip.example.kind) for clip in clips])


def _recording(clip: Clip, group: str, kind: str) -> Recording:
    own = clip.example
    label = own.label if own.source == "esc10" else None
    return Recording(own.id, group, kind, clip.load(), str(clip.cluster or ""), language=own.language, label=label)


def codec_steps(context: Context) -> Result:
    """The same codes by 1, 2, 4 and 10 steps of the decoder: speech, sounds (also as made ones are decoded), time.

    Raises:
        EvaluationError: If the model's decoder takes no steps.
    """
    subject = context.subject
    if not isinstance(subject, HasSteps):
        raise EvaluationError("this system does not tell how many steps its decoder takes")
    recordings = gather(context, STEP_GROUPS)
    codes = [subject.encode([one.audio])[0] for one in context.track(recordings, "coding")]
    decoded: dict[str, dict[str, Tensor]] = {}
    figures: list[Figure] = []
    judge = _sound_judge(context)
    if codes:
        subject.decode_in(STEPS[-1], codes[0], seed=context.seed)  # the first decoding is slower
    for steps in STEPS:
        name, taken, seconds = f"{steps} step" + "s" * (steps > 1), 0.0, 0.0
        for one, own in zip(context.track(recordings, f"decoding in {name}"), codes, strict=True):
            began = time.perf_counter()
            wave = subject.decode_in(steps, own, seed=context.seed)
            taken, seconds = taken + time.perf_counter() - began, seconds + wave.shape[-1] / SAMPLE_RATE
            decoded.setdefault(name, {})[one.id] = context.written(wave, f"{steps}_{one.id}")
        if seconds:
            figures.append(Figure("milliseconds for a second of audio", 1000 * taken / seconds, unit="ms", group=name))
        labels = [(one.label, own) for one, own in zip(recordings, codes, strict=True) if one.label]
        if judge is not None and labels:
            made = [subject.decode_in(steps, own, seed=context.seed, kind="sound") for _, own in labels]
            right = [judge.classify([wave])[0] == label for (label, _), wave in zip(labels, made, strict=True)]
            title = "sounds, decoded as made ones are, named by a classifier"
            figures.append(Figure.of(title, accuracy(right), unit="%", group=name))
    found, items = _scored(context, recordings, decoded)
    return found + figures, items


def _sound_judge(context: Context) -> SoundClassifier | None:
    """A classifier trained on the training sounds alone; None where there are none."""
    train = [clip.example for clip in context.real("esc10", "train")]
    return SoundClassifier.trained(train, seed=0) if train else None


def _coded(context: Context, recordings: Sequence[Recording]) -> Result:
    subject = context.subject
    decoded: dict[str, dict[str, Tensor]] = {}
    codes: list[AudioCodes] = []
    for index, one in enumerate(context.track(recordings, "coding")):
        own = subject.encode([one.audio])[0]
        codes.append(own)
        wave = context.written(subject.decode(own, seed=context.seed), f"codec_{index:03d}_{one.id}")
        systems = {"codec": wave, **(one.peers or {})}
        if isinstance(subject, HasAutoencoder):
            systems["autoencoder alone"] = context.written(
                subject.autoencode(one.audio), f"oracle_{index:03d}_{one.id}"
            )
        for system, estimate in systems.items():
            decoded.setdefault(system, {})[one.id] = estimate
    figures, items = _scored(context, recordings, decoded)
    return figures + _code_figures(context, codes), items


def _scored(context: Context, recordings: Sequence[Recording], decoded: Mapping[str, Mapping[str, Tensor]]) -> Result:
    """Figures of every system's waves."""
    items: list[dict[str, Any]] = []
    for system, waves in decoded.items():
        rows = _chained([one for one in recordings if one.id in waves], waves)
        for one, estimate in context.track(rows, f"scoring {system}"):
            scores = reconstruction_scores(one.audio, estimate, kind=one.kind)
            row = {"group": one.group, "system": system, "id": one.id, "kind": one.kind, "cluster": one.cluster}
            items.append({**row, **scores})
    return _figures(items, context) + _words_changed(context, recordings, decoded), items


def gather(context: Context, groups: Sequence[str] | None = None) -> list[Recording]:
    """The recordings to be coded, group by group; sets that are missing are an error, except the peers' clips."""
    read = functools.cache(lambda: context.real("read_english"))

    def voice(own: bool) -> list[Clip]:
        """LJ's clips, or the others'."""
        return context.sample([clip for clip in read() if (clip.example.speaker or "").endswith("lj") == own])

    sources: list[tuple[str, str, Callable[[], list[Clip]]]] = [
        ("synthetic speech, unseen voices", "speech", lambda: context.head(context.held_out_speech("en"), 60)),
        ("read English, LJ", "speech", lambda: voice(True)),
        ("read English, other voices", "speech", lambda: voice(False)),
        ("keywords", "speech", lambda: context.sample(context.real("keywords"), 40)),
        ("digits (8 kHz)", "speech", lambda: context.sample(context.real("fsdd"), 60)),
        ("sounds", "sound", lambda: context.sample(context.real("esc10"), 40)),
        ("music", "music", lambda: context.sample(context.real("librosa_clips") + context.real("sonic_pi"), 30)),
    ]
    chosen = [one for one in sources if groups is None or one[0] in groups]
    recordings = [_recording(clip, group, kind) for group, kind, clips in chosen for clip in clips()]
    return recordings if groups is not None else recordings + reference_page(context.root / "seed_demo", context)


def reference_page(folder: Path, context: Context | None = None) -> list[Recording]:
    """The reference page's clips with the peers' reconstructions; none if the folder is not there."""
    file = folder / "tasks.jsonl"
    if not file.is_file():
        if context is not None:
            context.notes.append("The reference page's clips are not at hand: no rows of the peers.")
        return []
    recordings = []
    for line in file.read_text(encoding="utf-8").splitlines():
        task = json.loads(line) if line.strip() else {}
        if task.get("task") == "codec_reconstruction":
            peers = {
                f"peer: {'ReasoningCodec, published' if name == 'uniaudio2' else name}": read_unlimited(folder / path)
                for name, path in task["systems"].items()
            }
            group = f"reference page, {task['domain']}"
            recordings.append(
                Recording(task["id"], group, task["domain"], read_unlimited(folder / task["gt"]), peers=peers)
            )
    return recordings


def read_unlimited(path: Path) -> Tensor:
    """A file as it is, (1, N) at 24 kHz: some peers' samples exceed full scale, and `read_audio` would scale them."""
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    wave = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        wave = soxr.resample(wave, rate, SAMPLE_RATE, quality="VHQ")
    return torch.from_numpy(wave.astype("float32"))[None]


def _chained(recordings: Sequence[Recording], waves: Mapping[str, Tensor]) -> list[tuple[Recording, Tensor]]:
    """Pairs to score, a recording and its estimate; short ones of one speaker joined to chains."""
    rows: list[tuple[Recording, Tensor]] = []
    chains: dict[tuple[str, str], list[Recording]] = {}
    for one in recordings:
        if one.kind != "speech" or one.audio.shape[-1] >= SHORT_S * SAMPLE_RATE:
            rows.append((one, waves[one.id]))
        else:
            chains.setdefault((one.group, one.cluster), []).append(one)
    for members in chains.values():
        part: list[Recording] = []
        for one in members:
            part.append(one)
            if sum(other.audio.shape[-1] for other in part) >= CHAIN_S * SAMPLE_RATE:
                rows.append(_chain(part, waves))
                part = []
        if part:
            rows.append(_chain(part, waves))
    return rows


def _chain(part: Sequence[Recording], waves: Mapping[str, Tensor]) -> tuple[Recording, Tensor]:
    estimates = [
        torch.nn.functional.pad(waves[one.id], (0, one.audio.shape[-1]))[:, : one.audio.shape[-1]] for one in part
    ]
    name = part[0].id + (f" and {len(part) - 1} more" if len(part) > 1 else "")
    return replace(part[0], id=name, audio=torch.cat([one.audio for one in part], 1)), torch.cat(estimates, 1)


TARGETS = {
    ("codec", "synthetic speech, unseen voices", "stoi"): ">= 0.85; >= 0.90",
    ("codec", "read English, other voices", "stoi"): ">= 0.78",
    ("autoencoder alone", "synthetic speech, unseen voices", "stoi"): ">= 0.95",
}


def _figures(items: Sequence[dict[str, Any]], context: Context) -> list[Figure]:
    figures = []
    for group in dict.fromkeys(row["group"] for row in items):
        for system in dict.fromkeys(row["system"] for row in items if row["group"] == group):
            rows = [row for row in items if row["group"] == group and row["system"] == system]
            names = SPEECH_METRICS if rows[0]["kind"] == "speech" else SOUND_METRICS
            for name in (*names, "bandwidth_hz"):
                own = [row["cluster"] or None for row in rows]
                rate = mean([row[name] for row in rows], clusters=own, seed=context.seed)
                unit = "Hz" if name == "bandwidth_hz" else UNITS.get(name, "")
                target = TARGETS.get((system, group, name), "")
                figures.append(Figure.of(name, rate, unit=unit, group=f"{group}: {system}", target=target))
    return figures


def _words_changed(
    context: Context, recordings: Sequence[Recording], decoded: Mapping[str, Mapping[str, Tensor]]
) -> list[Figure]:
    """Errors of what Whisper hears in decoded speech against what it hears in the original; none without Whisper."""
    spoken = [one for one in recordings if one.kind == "speech" and one.language in ("en", "zh")]
    if not spoken or not has_whisper():
        return []
    texts = {one.id: hear(one.audio, str(one.language)) for one in context.track(spoken, "Whisper on originals")}
    figures: list[Figure] = []
    for system, waves in decoded.items():
        groups: dict[tuple[str, str], list[Recording]] = {}
        for one in spoken:
            if one.id in waves and texts[one.id].strip():
                groups.setdefault((one.group, str(one.language)), []).append(one)
        for (group, language), own in groups.items():
            heard = [hear(waves[one.id], language) for one in context.track(own, f"Whisper on {system}")]
            pairs = [[simplified(text, language) for text in side] for side in ([texts[one.id] for one in own], heard)]
            scores = score_texts(*pairs, language=language, normaliser="whisper", seed=context.seed)
            name, rate = ("words", scores.wer) if language == "en" else ("characters", scores.cer)
            figures.append(Figure.of(f"{name} changed, by Whisper", rate, unit="%", group=f"{group}: {system}",
                                     judge=whisper_name()))  # fmt: skip
    return figures


def _code_figures(context: Context, codes: Sequence[AudioCodes]) -> list[Figure]:
    """Bit rates, and how much of every codebook is used over all clips scored."""
    subject = context.subject
    if not isinstance(subject, HasStreams) or not codes:
        return []
    figures, total = [], 0.0
    for stream in subject.streams:
        parts, size = [one[stream.name] for one in codes], stream.codebook_size
        total += stream.bit_rate
        figures.append(Figure("bit rate", stream.bit_rate / 1000, unit="kbit/s", group=stream.name))
        frames = sum(part.shape[-1] for part in parts)
        for index, perplexity in enumerate(codebook_perplexity(parts, size)):
            # With few frames no codebook can show more entries than frames.
            figures.append(Figure("codebook perplexity", perplexity, count=frames, unit=f"of {size}",
                                  group=f"{stream.name} {index}"))  # fmt: skip
    figures.insert(0, Figure("bit rate", total / 1000, unit="kbit/s"))
    return [figure for figure in figures if math.isfinite(figure.value)]
