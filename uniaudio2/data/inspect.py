"""Look at a corpus and listen to it: a sheet of log-mel pictures and a few WAV files for every class.

For checking labels by eye and ear after a corpus was made. Needs matplotlib.
"""

from __future__ import annotations

import html
import random
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from uniaudio2.audio import SAMPLE_RATE, write_audio
from uniaudio2.codec.mel import mel_filters
from uniaudio2.data.corpus import Corpus
from uniaudio2.data.manifest import Example

_COLUMNS = 4
_NUM_MELS = 64
_WINDOW = 1024
_HOP = 256


def class_of(example: Example) -> str:
    """The folder that an example is shown in: engine and language of speech, label of a sound, set of a recording."""
    if example.kind == "speech":
        parts = ("speech", example.engine or example.source or "recorded", example.language or "", example.split)
    elif example.engine == "mixture":
        parts = ("mixture", example.split)
    else:
        parts = (example.kind, example.engine or example.source or "recorded", example.label or "", example.split)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(part for part in parts if part))


def inspect(corpus: str | Path, out: str | Path, *, pictures: int = 12, clips: int = 3, seed: int = 0) -> list[Path]:
    """Write one folder per class with ``sheet.png`` and WAV files, and an ``index.html`` over all of them.

    Args:
        corpus: Corpus folder or manifest.
        out: Folder to write to; made if needed.
        pictures: Log-mel pictures on each sheet.
        clips: WAV files in each folder.
        seed: Seed of the choice of clips.

    Returns:
        The sheets that were written.

    Raises:
        ManifestError: If the manifest is missing or wrong.
    """
    data = Corpus(corpus)
    classes: dict[str, list[int]] = {}
    for index, example in enumerate(data.examples):
        classes.setdefault(class_of(example), []).append(index)
    target = Path(out)
    sheets: list[Path] = []
    rows: list[str] = []
    for name, indices in sorted(classes.items()):
        chosen = random.Random(f"{seed}-{name}").sample(indices, min(pictures, len(indices)))
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        _sheet(data, chosen, folder / "sheet.png")
        sheets.append(folder / "sheet.png")
        rows.append(f'<h2>{html.escape(name)} ({len(indices)} clips)</h2><img src="{name}/sheet.png" loading="lazy">')
        shown = " | ".join(f"{_title(data.examples[i])} ({data.examples[i].duration:.1f} s)" for i in chosen)
        rows.append(f"<p>Left to right, row by row: {html.escape(shown)}</p>")
        for index in chosen[:clips]:
            example = data.examples[index]
            file = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', example.id)}.wav"
            write_audio(folder / file, torch.from_numpy(data.wave(index))[None])
            rows.append(
                f'<p><audio controls preload="none" src="{name}/{file}"></audio> {html.escape(_title(example))}</p>'
            )
    page = f"<!doctype html><meta charset='utf-8'><title>Corpus</title>{''.join(rows)}"
    (target / "index.html").write_text(page, encoding="utf-8")
    return sheets


def _title(example: Example) -> str:
    return example.text or example.caption or example.label or example.id


def _sheet(data: Corpus, indices: list[int], path: Path) -> None:
    """One picture with a log-mel panel for each clip, four in a row, all of the same size."""
    from matplotlib.image import imsave

    rows = -(-len(indices) // _COLUMNS)
    height, width = _NUM_MELS * 2, 300
    picture = np.full((rows * (height + 6), _COLUMNS * (width + 6)), 1.0, np.float32)
    for place, index in enumerate(indices):
        mel = log_mel(data.wave(index))
        # Nearest neighbour in both directions: a picture to look at, not to measure.
        columns = np.linspace(0, mel.shape[1] - 1, width).round().astype(int)
        panel = np.repeat(mel[::-1, columns], 2, axis=0)
        top, left = place // _COLUMNS * (height + 6), place % _COLUMNS * (width + 6)
        picture[top : top + height, left : left + width] = panel
    imsave(path, picture, cmap="magma", vmin=-5, vmax=1)


def log_mel(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log10 mel power spectrogram for pictures, (64, frames)."""
    padded = np.pad(wave, (_WINDOW // 2, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1).T) ** 2 / _WINDOW
    filters = mel_filters(_NUM_MELS, _WINDOW, SAMPLE_RATE, norm="height", device="cpu").numpy()
    return np.log10(filters @ power + 1e-5).astype(np.float32)
