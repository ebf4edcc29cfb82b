"""What makes a training run this run: every setting that changes its numbers, and a fingerprint of its data.

A checkpoint holds both, so that another corpus, mixture or learning rate does not pass for the same run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uniaudio2.config import to_plain

FREE = frozenset(
    {
        *("train.out_dir", "train.steps", "train.budget_minutes", "train.resume", "train.timeout_minutes"),
        *("train.log_every", "train.eval_every", "train.save_every", "train.keep_checkpoints"),
        *("train.device", "train.threads", "train.prefetch", "train.workers", "train.prefetch_batches"),
        *("train.tensorboard", "train.wandb", "clips.corpus", "data.codes", "data.texts", "data.dev_clips"),
    }
)
"""Fields that may change between the parts of a run: where, how fast, how long. Data is known by its fingerprint."""


def flat_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config dataclass as ``{"train.lr": 0.001, …}``; only dataclasses are opened, mappings are values."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        flat |= flat_config(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: to_plain(value)}
    return flat


def fingerprint(places: Iterable[str | Path], patterns: Sequence[str]) -> str:
    """A short digest of files, independent of where they lie.

    Args:
        places: Files, or folders in which ``patterns`` name the files that count.
        patterns: Such as ``manifest.jsonl``.
    """
    digest = hashlib.sha256()
    for place in (Path(str(place).strip()) for place in places):
        files = [path for pattern in patterns for path in sorted(place.glob(pattern))] if place.is_dir() else [place]
        for file in files:
            digest.update(f"{file.name}\0".encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two runs, as ``name=before, now VALUE``; names that only one knows are left out."""
    shared = sorted((before.keys() & now.keys()) - FREE)
    return [f"{name}={before[name]}, now {now[name]}" for name in shared if before[name] != now[name]]
