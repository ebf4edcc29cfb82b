"""The driver of the factory: a plan cut in units, each unit one shard, rendered in parallel and resumably.

A unit becomes ``shards/NAME.wav`` and ``shards/NAME.json`` (its examples and the fingerprint of what was asked
for). A unit whose two files are there with the same fingerprint is not made again. The manifest is written anew
after every few units, so that a partial corpus can be used; units are ordered so that it is balanced.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example, example_from_json, write_manifest
from uniaudio2.data.sources import SOUND_SETS, SPEECH_SETS, find_data_root, read_set
from uniaudio2.data.synth.engines import Wave, phonemes
from uniaudio2.data.synth.sound import MixtureTask, SoundTask, plan_mixtures, plan_sounds, render_mixture, render_sound
from uniaudio2.data.synth.speech import CLIPS_PER_UNIT, SpeechHours, SpeechTask, plan_speech, render_speech
from uniaudio2.errors import UserError
from uniaudio2.files import replacing, write_text

_Item = TypeVar("_Item")

GAP_S = 0.05
"""Silence between two clips of a shard, seconds."""

FORMAT = 1
"""Raised whenever a rendering changes, so that old shards are made again."""


@dataclass(frozen=True)
class SynthPreset:
    """What a corpus holds.

    Attributes:
        speech: Hours of speech by group.
        sound_minutes: Minutes of procedural sounds.
        sound_seed: Added to the corpus's seed for sounds and mixtures.
        mixture_minutes: Minutes of two-event mixtures.
        mixture_licensed: Share of their events that are real recordings.
        mixture_varied: Change speed and colour of those recordings.
        real_sets: Sets of real recordings, copied into shards with their own splits.
        real_limit: Most clips of one split of one set; None for all.
    """

    speech: SpeechHours = field(default_factory=SpeechHours)
    sound_minutes: float = 40.0
    mixture_minutes: float = 20.0
    real_sets: tuple[str, ...] = SPEECH_SETS + SOUND_SETS
    real_limit: int | None = None
    sound_seed: int = 0  # other sounds and mixtures than those of a preset with another number
    mixture_licensed: float = 0.5
    mixture_varied: bool = False


def _speech_alone(hours: SpeechHours) -> SynthPreset:
    """Speech beside another corpus."""
    return SynthPreset(hours, sound_minutes=0.0, mixture_minutes=0.0, real_sets=())


def _mixtures_alone(minutes: float, *, licensed: float, seed: int, varied: bool = False) -> SynthPreset:
    """Mixtures beside another corpus, with the real sounds that they are made of."""
    silent = SpeechHours(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, dev=False)
    return SynthPreset(
        silent,
        sound_minutes=0.0,
        mixture_minutes=minutes,
        mixture_licensed=licensed,
        mixture_varied=varied,
        real_sets=("esc10",),
        sound_seed=seed,
    )


PRESETS = {
    "nano": SynthPreset(),
    # More voices and sentences beside ``nano``, without its real recordings and its dev part.
    "nano_more": SynthPreset(
        SpeechHours(2.5, 2.0, 1.5, 1.5, 0.2, 8.0, 0.0, 0.0, 0.0, 0.0, 1000, dev=False, first_sentence=12000),
        sound_minutes=40.0,
        sound_seed=1,
        mixture_minutes=0.0,
        real_sets=(),
    ),
    # Five further recorded voices, and further sentences by the voices of ``nano``.
    "nano_voices": _speech_alone(
        SpeechHours(
            1.0, 1.0, 0.5, 0.5, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0, dev=False, first_sentence=30000, rhvoice=1.5, pico=1.8
        )
    ),
    # Mandarin and Cantonese beside ``nano``: other sentences.
    "nano_chinese": _speech_alone(SpeechHours(0, 0, 0, 0, 0, 0, 1.5, 2.0, 1.2, 1.8, 0, dev=False, first_sentence=2300)),
    "nano_chinese_more": _speech_alone(
        SpeechHours(0, 0, 0, 0, 0, 0, 0.8, 2.2, 0.8, 2.2, 0, dev=False, first_sentence=9000)
    ),
    "nano_chinese_wide": _speech_alone(
        SpeechHours(0, 0, 0, 0, 0, 0, 3.0, 7.0, 1.0, 3.0, 0, dev=False, first_sentence=15000)
    ),
    # The rest of the sentence lists.
    "nano_chinese_rest": _speech_alone(
        SpeechHours(0, 0, 0, 0, 0, 0, 3.0, 9.0, 0.0, 0.0, 0, dev=False, first_sentence=24000)
    ),
    "nano_english_rest": _speech_alone(
        SpeechHours(
            2.0, 1.0, 0.5, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0, dev=False, first_sentence=44700, rhvoice=0.7, pico=0.7
        )
    ),
    # Two real sounds at once, and the real sounds themselves.
    "nano_mixtures": _mixtures_alone(120.0, licensed=0.9, seed=2),
    "nano_mixtures_more": _mixtures_alone(150.0, licensed=1.0, seed=3),
    "nano_mixtures_wide": _mixtures_alone(240.0, licensed=1.0, seed=4),
    "nano_mixtures_varied": _mixtures_alone(240.0, licensed=1.0, seed=5, varied=True),
    "pilot": SynthPreset(
        SpeechHours(0.06, 0.02, 0.015, 0.01, 0.003, 0.06, 0.02, 0.02, 0.015, 0.015, 60, 20, 6), 2.5, 1.0, real_limit=12
    ),
    "tiny": SynthPreset(
        SpeechHours(0.0, 0.0, 0.0, 0.0, 0.0, 0.006, 0.001, 0.001, 0.001, 0.001, 0, 0, 1), 0.8, 0.1, (), None
    ),
}
"""Named sizes: the package's default model is trained on ``nano``; ``tiny`` needs espeak-ng alone."""


@dataclass(frozen=True)
class Unit:
    """One shard to make: exactly one of the task lists is filled."""

    name: str
    seed: int
    speech: tuple[SpeechTask, ...] = ()
    sounds: tuple[SoundTask, ...] = ()
    mixtures: tuple[MixtureTask, ...] = ()
    licensed: tuple[Example, ...] = ()  # what the mixtures' indices point into
    real: tuple[Example, ...] = ()

    def fingerprint(self) -> str:
        """Digest of everything that decides the shard's content."""
        parts = repr((FORMAT, self.seed, self.speech, self.sounds, self.mixtures, self.licensed, self.real))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def plan_units(preset: SynthPreset, *, data_root: Path, seed: int = 0) -> list[Unit]:
    """Cut a preset in units, ordered so that any beginning of the list is a balanced small corpus.

    Args:
        preset: What to make.
        data_root: Folder with the sentence lists and the real sets.
        seed: Seed of every choice.
    """
    groups: dict[str, list[Unit]] = {}
    for name, tasks in plan_speech(data_root / "text", preset.speech, seed).items():
        # Units of slow engines are smaller, so that no worker is left alone with one at the end.
        size = 60 if name in ("festival_hts", "rhvoice") else CLIPS_PER_UNIT
        groups[name] = [Unit(f"{name}-{i:03d}", seed, speech=part) for i, part in enumerate(_cut(tasks, size))]
    licensed: list[Example] = []
    for name in preset.real_sets:
        for split in ("train", "dev"):
            examples = read_set(data_root, name, split=split)
            random.Random(f"{seed}-{name}-{split}").shuffle(examples)
            examples = examples[: preset.real_limit]
            if name in SOUND_SETS and split == "train":
                licensed.extend(examples)
            if examples:
                key = f"real_{name}_{split}"
                groups[key] = [Unit(f"{key}-{i:03d}", seed, real=part) for i, part in enumerate(_cut(examples, 240))]
    groups["sound"] = [
        Unit(f"sound-{i:03d}", seed, sounds=part)
        for i, part in enumerate(_cut(plan_sounds(preset.sound_minutes, seed + preset.sound_seed), 100))
    ]
    mixtures = plan_mixtures(
        preset.mixture_minutes,
        licensed,
        seed + preset.sound_seed,
        licensed_share=preset.mixture_licensed,
        varied=preset.mixture_varied,
    )
    groups["mix"] = [
        Unit(f"mix-{i:03d}", seed, mixtures=part, licensed=tuple(licensed))
        for i, part in enumerate(_cut(mixtures, 100))
    ]
    placed = [((i + 0.5) / len(units), unit) for units in groups.values() for i, unit in enumerate(units)]
    return [unit for _, unit in sorted(placed, key=lambda item: (item[0], item[1].name))]


def _cut(items: Sequence[_Item], size: int) -> list[tuple[_Item, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def render_unit(unit: Unit, out_dir: Path) -> int:
    """Make one shard and its list of examples; both are renamed into place, the list last.

    Returns:
        Number of clips in the shard.
    """
    rendered: list[tuple[Example, Wave]] = []
    if unit.speech:
        rendered = render_speech(unit.speech, unit.seed)
    rendered += [render_sound(task, unit.seed) for task in unit.sounds]
    rendered += [render_mixture(task, unit.licensed, unit.seed) for task in unit.mixtures]
    for example in unit.real:
        rendered += _real_clips(example)
    shards = out_dir / "shards"
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), np.float32)
    pieces: list[Wave] = []
    lines: list[dict[str, object]] = []
    position = 0
    for example, wave in rendered:
        placed = dataclasses.replace(
            example,
            path=f"shards/{unit.name}.wav",
            start=position / SAMPLE_RATE,
            duration=wave.size / SAMPLE_RATE,
            root=out_dir,
        )
        lines.append(placed.to_json())
        pieces += [wave, gap]
        position += wave.size + gap.size
    if not pieces:
        pieces = [gap]
    samples = np.round(np.clip(np.concatenate(pieces), -1.0, 1.0) * 32767).astype(np.int16)
    with replacing(shards / f"{unit.name}.wav") as file:
        soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    text = json.dumps({"fingerprint": unit.fingerprint(), "examples": lines}, ensure_ascii=False)
    write_text(shards / f"{unit.name}.json", text)
    return len(lines)


def _real_clips(example: Example) -> list[tuple[Example, Wave]]:
    """A recording at 24 kHz as it is; sounds longer than 7 s in equal pieces of at most 5 s."""
    wave = example.audio().numpy()[0]
    phones = phonemes(example.text, example.language) if example.text and example.language else None
    example = dataclasses.replace(example, phonemes=phones)
    if example.kind == "speech" or wave.size <= 7 * SAMPLE_RATE:
        return [(example, wave)]
    count = -(-wave.size // (5 * SAMPLE_RATE))
    parts = np.array_split(wave, count)
    return [(dataclasses.replace(example, id=f"{example.id}-{index}"), part) for index, part in enumerate(parts)]


def synthesise(
    out_dir: str | Path,
    *,
    preset: str = "nano",
    seed: int = 0,
    workers: int = 2,
    resume: bool = True,
    data_root: str | Path | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Path:
    """Make a corpus: shards, their lists, and one manifest over all of them.

    The corpus is a pure function of preset, seed, data folder and the installed synthesisers, whatever the number
    of workers, and however often it was interrupted.

    Args:
        out_dir: Folder of the corpus; made if needed.
        preset: Name in `PRESETS`.
        seed: Seed of every choice.
        workers: Number of processes; 0 renders in this one.
        resume: Keep finished shards; False makes everything again.
        data_root: Folder with ``text`` and the real sets; see `uniaudio2.data.sources.find_data_root`.
        progress: Called as ``progress(units done, units in all, clips of this unit)``.

    Returns:
        Path of the manifest.

    Raises:
        ValueError: If the preset is unknown, the data folder or a synthesiser is missing.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    if workers < 0:
        raise UserError(f"workers must be >= 0, not {workers}")
    out = Path(out_dir)
    (out / "shards").mkdir(parents=True, exist_ok=True)
    units = plan_units(PRESETS[preset], data_root=find_data_root(data_root), seed=seed)
    todo = [unit for unit in units if not (resume and _is_done(unit, out))]
    done = len(units) - len(todo)
    if workers == 0:
        for unit in todo:
            clips = render_unit(unit, out)
            done += 1
            if progress:
                progress(done, len(units), clips)
    else:
        # Choice: spawn, because the speech libraries keep global state that must not be forked.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = [pool.submit(render_unit, unit, out) for unit in todo]
            try:
                for future in concurrent.futures.as_completed(futures):
                    clips = future.result()
                    done += 1
                    if done % 10 == 0:
                        _write_corpus_manifest(units, out)
                    if progress:
                        progress(done, len(units), clips)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return _write_corpus_manifest(units, out)


def _is_done(unit: Unit, out: Path) -> bool:
    """Whether a unit's two files are there and were made from the same plan."""
    listing = out / "shards" / f"{unit.name}.json"
    if not listing.is_file() or not listing.with_suffix(".wav").is_file():
        return False
    try:
        return json.loads(listing.read_text(encoding="utf-8"))["fingerprint"] == unit.fingerprint()
    except (json.JSONDecodeError, KeyError):
        return False


def _write_corpus_manifest(units: Sequence[Unit], out: Path) -> Path:
    """Write the manifest over all finished units, in the order of the plan."""
    examples: list[Example] = []
    for unit in units:
        if _is_done(unit, out):
            data = json.loads((out / "shards" / f"{unit.name}.json").read_text(encoding="utf-8"))
            examples += [example_from_json(line, out) for line in data["examples"]]
    write_manifest(out / "manifest.jsonl", examples)
    return out / "manifest.jsonl"
