"""flite in process through the system's C libraries."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import numpy as np

from uniaudio2.data.synth.voices import SILENCE, Spoken, SynthesiserMissing, Voice, VoiceGroup


class _FliteWave(ctypes.Structure):
    """``cst_wave`` of flite 2."""

    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


@functools.cache
def _flite() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for part in ("usenglish", "cmulex"):
            ctypes.CDLL(f"libflite_{part}.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SynthesiserMissing("flite is missing: `apt install flite` (its C library is used)") from error
    library.flite_text_to_wave.restype = ctypes.POINTER(_FliteWave)
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.delete_wave.argtypes = [ctypes.POINTER(_FliteWave)]
    library.flite_init()
    return library


@functools.cache
def _flite_voice(name: str) -> int:
    _flite()
    try:
        library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
    except OSError as error:
        raise SynthesiserMissing(f"flite voice {name!r} is missing: `apt install flite`") from error
    register = getattr(library, f"register_cmu_us_{name}")
    register.restype = ctypes.c_void_p
    register.argtypes = [ctypes.c_char_p]
    return register(None)


def _speak(text: str, voice: int) -> Spoken:
    library = _flite()
    pointer = library.flite_text_to_wave(text.encode("ascii"), voice)
    if not pointer:
        return SILENCE
    wave = pointer.contents
    samples = np.ctypeslib.as_array(wave.samples, (max(wave.num_samples, 1),))[: wave.num_samples]
    result, rate = samples.astype(np.float32) / 32768.0, wave.sample_rate
    library.delete_wave(pointer)
    return result, rate


class _Engine:
    name = "flite"
    licence = "BSD-style (CMU flite and ARCTIC voices)"
    rates = None

    def groups(self) -> dict[str, VoiceGroup]:
        # Choice: kal speaks at 8 kHz and is left out.
        return {f"flite_{name}": VoiceGroup("en", (Voice(self.name, name),)) for name in ("slt", "rms", "kal16")}

    def held_out(self, language: str) -> tuple[Voice, ...]:
        return (Voice(self.name, "awb"),) if language == "en" else ()

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        known = _flite_voice(voice.name)
        return [_speak(text, known) for text in texts]


ENGINES = (_Engine(),)
