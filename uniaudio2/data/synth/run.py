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
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.example import Recording
from uniaudio2.data.manifest import Example, example_from_json, write_manifest
from uniaudio2.data.sources import data_root_if_any
from uniaudio2.data.synth.presets import PRESETS
from uniaudio2.data.synth.renderer import Group, Material, Renderer
from uniaudio2.data.synth.voices import Wave
from uniaudio2.errors import UserError
from uniaudio2.files import replacing, write_text

GAP_S = 0.05
"""Silence between two clips of a shard, seconds."""

FORMAT = 2
"""Raised whenever a rendering changes, so that old shards are made again."""


@dataclass(frozen=True)
class Unit:
    """One shard to make: tasks of one kind, and the part of the preset that renders them."""

    name: str
    seed: int
    renderer: type[Renderer]
    tasks: tuple[Any, ...]

    def fingerprint(self) -> str:
        """Digest of everything that decides the shard's content."""
        parts = repr((FORMAT, self.seed, self.renderer.__name__, self.tasks))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def plan_units(preset: Sequence[Renderer], material: Material, *, seed: int = 0) -> list[Unit]:
    """Cut a preset in units, ordered so that any beginning of the list is a balanced small corpus.

    Args:
        preset: What to make.
        material: Where sentences, recordings and voices come from; notes what is missing.
        seed: Seed of every choice.
    """
    placed: list[tuple[float, str, Unit]] = []
    for part in preset:
        for name, group in part.plan(material, seed).items():
            pieces = _cut(group)
            for i, tasks in enumerate(pieces):
                unit = Unit(f"{name}-{i:03d}", seed, type(part), tasks)
                placed.append(((i + 0.5) / len(pieces), unit.name, unit))
    return [unit for _, _, unit in sorted(placed, key=lambda item: item[:2])]


def _cut(group: Group) -> list[tuple[Any, ...]]:
    size = group.clips_per_unit
    return [tuple(group.tasks[start : start + size]) for start in range(0, len(group.tasks), size)]


def render_unit(unit: Unit, out_dir: Path) -> int:
    """Make one shard and its list of examples; both are renamed into place, the list last.

    Returns:
        Number of clips in the shard.
    """
    shards = out_dir / "shards"
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), np.float32)
    pieces: list[Wave] = []
    lines: list[dict[str, object]] = []
    position = 0
    for example, made in unit.renderer.render(unit.tasks, unit.seed):
        places: dict[str, Recording] = {}
        for name, wave in (made if isinstance(made, Mapping) else {"audio": made}).items():
            places[name] = Recording(f"shards/{unit.name}.wav", wave.size / SAMPLE_RATE, position / SAMPLE_RATE)
            pieces += [wave, gap]
            position += wave.size + gap.size
        lines.append(_placed(example, places).to_json())
    if not pieces:
        pieces = [gap]
    samples = np.round(np.clip(np.concatenate(pieces), -1.0, 1.0) * 32767).astype(np.int16)
    with replacing(shards / f"{unit.name}.wav") as file:
        soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    text = json.dumps({"fingerprint": unit.fingerprint(), "examples": lines}, ensure_ascii=False)
    write_text(shards / f"{unit.name}.json", text)
    return len(lines)


def _placed(example: Example, places: dict[str, Recording]) -> Example:
    """An example with the places of its audios; one named ``audio`` is its recording."""
    if own := places.pop("audio", None):
        return dataclasses.replace(example, path=own.path, duration=own.duration, start=own.start, audios=places)
    return dataclasses.replace(example, path="", duration=0.0, start=0.0, audios=places)


def synthesise(
    out_dir: str | Path,
    *,
    preset: str = "nano",
    seed: int = 0,
    workers: int = 2,
    resume: bool = True,
    data_root: str | Path | None = None,
    available: bool = False,
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
        data_root: Folder with ``text`` and the real sets; see `uniaudio2.data.sources.data_root_if_any`.
        available: Make what can be made here: leave out voices and recordings that are missing, and use built-in
            sentences for missing lists. Otherwise anything missing is an error before the first clip.
        progress: Called as ``progress(units done, units in all, clips of this unit)``.

    Returns:
        Path of the manifest.

    Raises:
        UserError: If the preset is unknown, the given data folder is not there, or, unless ``available``, sentences,
            recordings or a synthesiser are missing; the message names all of them and where they are had.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    if workers < 0:
        raise UserError(f"workers must be >= 0, not {workers}")
    out = Path(out_dir)
    material = Material(data_root_if_any(data_root))
    units = plan_units(PRESETS[preset], material, seed=seed)
    material.check(available=available)
    (out / "shards").mkdir(parents=True, exist_ok=True)
    todo = [unit for unit in units if not (resume and _is_done(unit, out))]
    done = len(units) - len(todo)
    for clips in _render_all(todo, out, workers):
        done += 1
        if done % 10 == 0:
            _write_corpus_manifest(units, out)
        if progress:
            progress(done, len(units), clips)
    return _write_corpus_manifest(units, out)


def _render_all(units: Sequence[Unit], out: Path, workers: int) -> Iterator[int]:
    """Make shards, in this process or in others; yields the number of clips of each as it is finished."""
    if workers == 0:
        yield from (render_unit(unit, out) for unit in units)
        return
    # Choice: spawn, because the speech libraries keep global state that must not be forked.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        futures = [pool.submit(render_unit, unit, out) for unit in units]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """In a worker: end when the parent is gone, which may have been killed without a chance to say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
