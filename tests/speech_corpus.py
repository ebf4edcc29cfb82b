"""A small corpus of speech tasks whose voices are buzzes: quick, and without any synthesiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.synth import backgrounds, dysarthria, overlap, presets, run, styles
from uniaudio2.data.synth.renderer import Material

SMALL = (
    dysarthria.Dysarthria(2, 2),
    backgrounds.SpokenScenes(2, 2),
    backgrounds.Noisy(2, 2),
    overlap.Overlaps(3, 3),
)


def vowels(hz: float, seconds: float = 1.6) -> np.ndarray:
    """Syllables of a lively buzz with two resonances."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    f0 = hz * 2 ** (0.25 * np.sin(2 * np.pi * 1.3 * t))
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    wave = sum(np.cos(k * phase) / k * (1 + 2 * np.exp(-(((k * hz - 700) / 300) ** 2))) for k in range(1, 24))
    gate = np.clip(1.3 + 1.5 * np.sin(2 * np.pi * 3 * t), 0.03, 1)
    return (0.05 * wave * gate).astype(np.float32)


def make_corpus(out: Path, *, dev_styles: int, resume: bool = True) -> Path:
    """Make the corpus in a folder, with the first ``dev_styles`` styles in dev."""
    patch = pytest.MonkeyPatch()
    own = styles.Styles((("en", 1),), (("en", dev_styles),), (("train", 1), ("dev", 2)))
    patch.setitem(presets.PRESETS, "small", (own, *SMALL))

    def speak(said: list, seed: int) -> list[np.ndarray]:
        return [vowels(100 + 10 * (len(sentence.text) % 12), 1.2) for sentence, _ in said]

    for module in (styles, dysarthria, backgrounds, overlap):
        patch.setattr(module, "speak_all", speak)
    for module in (styles, dysarthria, backgrounds):
        patch.setattr(module, "phones_of", lambda *_: "a b")
    patch.setattr(Material, "speaks", lambda *_: True)
    try:
        return run.synthesise(out, preset="small", workers=0, resume=resume, data_root=out, available=True).parent
    finally:
        patch.undo()
