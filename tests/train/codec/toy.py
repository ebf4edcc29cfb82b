"""A corpus of tones and noises, and small configs of every stage on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from uniaudio2.train.codec import CODEC_STAGES, CodecStageConfig
from uniaudio2.train.codec.clips import ClipConfig
from uniaudio2.train.config import TrainConfig


def make_corpus(folder: Path) -> Path:
    """Twenty tones and twenty noises with labels, in one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, pieces, lines, position = np.random.default_rng(0), [], [], 0
    for i in range(40):
        size = int(rng.integers(9600, 24000))
        tone = i % 2 == 0
        wave = 0.3 * np.sin(np.arange(size) * (0.05 + 0.001 * i)) if tone else 0.1 * rng.standard_normal(size)
        pieces.append(wave)
        item: dict[str, Any] = {"id": f"c{i}", "path": "a.wav", "start": position / 24000, "duration": size / 24000}
        item |= {"split": "dev" if i >= 32 else "train"}
        if tone:
            item |= {"kind": "speech", "text": "la la", "phonemes": "l a l a", "language": "en", "engine": "tone"}
        else:
            item |= {"kind": "sound", "label": "noise", "caption": "a noise", "source": "esc10"}
        lines.append(json.dumps(item))
        position += size
    soundfile.write(folder / "a.wav", np.concatenate(pieces), 24000, subtype="PCM_16")
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def config(stage: str, corpus: Path, out: Path, *, train: Any = None, **more: Any) -> CodecStageConfig:
    settings: dict[str, Any] = {"steps": 2, "lr": 1e-3, "log_every": 1, "eval_every": 0, "prefetch": "none"}
    settings |= {"out_dir": str(out / stage), "tensorboard": False, **(train or {})}
    clips = ClipConfig(
        corpus=str(corpus), batch_seconds=4, crop_s=None if stage in ("speech_expert", "reasoning") else 0.8
    )
    return CODEC_STAGES[stage][0](train=TrainConfig(**settings), clips=clips, codec="tiny", **more)


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)
