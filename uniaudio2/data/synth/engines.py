"""Speech synthesisers behind one call: text in, waveform out. They run when data is made and are not shipped.

- espeak-ng in process through its C library: the one in the package ``espeakng-loader``, else the system's.
- flite in process through the system's C libraries.
- festival as one program run for a whole list of sentences.
- RHVoice and Pico as one program run a sentence.

Knows nothing about manifests. A missing program is a `SynthesiserMissing` that names the package to install.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import functools
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from uniaudio2.errors import UserError

Wave = NDArray[np.floating]
"""Mono samples (N,) in [-1, 1]."""

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
"""Voices of flite that are used (``kal`` is 8 kHz and left out)."""

FESTIVAL_PACKAGES = {
    "kal_diphone": "festvox-kallpc16k",
    "ked_diphone": "festvox-kdlpc16k",
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
}
"""Voices of festival and the Debian packages that hold them."""

RHVOICE_VOICES = ("alan", "bdl", "clb")
"""Voices of RHVoice that are used: its other English ones are either flite's (slt) or for non-commercial use only."""

PICO_VOICES = ("en-US", "en-GB")
"""English voices of Pico, one woman each."""

_ESPEAK_RATE, _ESPEAK_PITCH, _ESPEAK_RANGE = 1, 3, 4  # espeak_PARAMETER in speak_lib.h
_ESPEAK_SYNCHRONOUS = 2
_ESPEAK_UTF8 = 1
_ESPEAK_IPA = 2
_ESPEAK_SEPARATOR = ord("_") << 8
_SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SynthesiserMissing(UserError):  # noqa: N818 - the name says what is wrong
    """A synthesiser is not installed; the message names the package that holds it."""


@dataclass(frozen=True)
class Voice:
    """One voice of one synthesiser.

    Attributes:
        engine: ``"espeak-ng"``, ``"flite"``, ``"festival"``, ``"rhvoice"`` or ``"pico"``.
        name: The engine's own name, for espeak-ng with the variant (``"en-us+f3"``).
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        pitch: espeak-ng's base pitch, 0-99.
        rate: espeak-ng's speaking rate, words a minute.
    """

    engine: str
    name: str
    language: str = "en"
    pitch: int = 50
    rate: int = 175

    @property
    def speaker(self) -> str:
        """Name of the speaker in manifests; the rate may differ between clips of one speaker, the pitch may not."""
        suffix = f"-p{self.pitch}" if self.engine == "espeak-ng" else ""
        return f"{self.engine}-{self.name}{suffix}"


class _Espeak:
    """The one espeak-ng instance of a process (the library keeps global state)."""

    def __init__(self) -> None:
        try:
            import espeakng_loader

            library, data = espeakng_loader.get_library_path(), str(espeakng_loader.get_data_path())
        except ImportError:
            library, data = ctypes.util.find_library("espeak-ng"), None
        if library is None:
            raise SynthesiserMissing("espeak-ng is missing: `pip install espeakng-loader` or `apt install espeak-ng`")
        self._lib = ctypes.CDLL(str(library))
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._lib.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        self._lib.espeak_Info.restype = ctypes.c_char_p
        self._lib.espeak_Synth.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.sample_rate = self._lib.espeak_Initialize(_ESPEAK_SYNCHRONOUS, 0, data.encode() if data else None, 0)
        if self.sample_rate <= 0:
            raise SynthesiserMissing("espeak-ng finds no voice data: `apt install espeak-ng-data`")
        self.version = self._lib.espeak_Info(None).decode().split()[0]
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _SYNTH_CALLBACK(self._collect)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.int16, copy=True))
        return 0

    def seed(self, seed: int) -> None:
        """Set the library's random numbers (flutter, breath), its own ones where it has them."""
        if hasattr(self._lib, "espeak_ng_SetRandSeed"):
            self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))

    def unload(self) -> None:
        """Give the library back to the system, with all the state it keeps between sentences."""
        self._lib.espeak_Terminate()
        _ctypes.dlclose(self._lib._handle)

    def select(self, name: str) -> None:
        """Choose a voice by name; Debian's 1.51 reads Mandarin right only as ``cmn-latn-pinyin``."""
        if self.version.startswith(("1.50", "1.51")):
            name = re.sub(r"^cmn(?=$|\+)", "cmn-latn-pinyin", name)
        if self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"espeak-ng {self.version} has no voice {name!r}")

    def synthesise(self, text: str, voice: Voice) -> tuple[Wave, int]:
        """Speak a text: samples and their rate in Hz."""
        self.select(voice.name)
        self._lib.espeak_SetParameter(_ESPEAK_RATE, voice.rate, 0)
        self._lib.espeak_SetParameter(_ESPEAK_PITCH, voice.pitch, 0)
        self._lib.espeak_SetParameter(_ESPEAK_RANGE, 50, 0)
        self._chunks.clear()
        data = text.encode() + b"\0"
        self._lib.espeak_Synth(data, len(data), 0, 0, 0, _ESPEAK_UTF8, None, None)
        if not self._chunks:
            return np.zeros(0, np.float32), self.sample_rate
        return np.concatenate(self._chunks).astype(np.float32) / 32768.0, self.sample_rate

    def phonemes(self, text: str, language: str, *, ipa: bool) -> str:
        """Phone names with ``_`` between them, as espeak-ng prints them."""
        self.select({"en": "en-us", "zh": "cmn", "yue": "yue"}[language])
        pointer = ctypes.c_char_p(text.encode())
        clauses: list[str] = []
        while pointer.value:
            mode = _ESPEAK_SEPARATOR | (_ESPEAK_IPA if ipa else 0)
            part = self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), _ESPEAK_UTF8, mode)
            if part:
                clauses.append(part.decode())
        return " ".join(clauses)


@functools.cache
def espeak() -> _Espeak:
    """This process's espeak-ng; raises `SynthesiserMissing` if it is not installed."""
    return _Espeak()


def restart_espeak(seed: int) -> None:
    """Load espeak-ng afresh and seed it, so that what follows does not depend on what was said before.

    Its pitch flutter runs on from sentence to sentence in static variables; only a fresh library starts it anew.

    Args:
        seed: Seed of its random numbers.

    Raises:
        SynthesiserMissing: If espeak-ng is not installed.
    """
    if espeak.cache_info().currsize:
        espeak().unload()
        espeak.cache_clear()
    espeak().seed(seed)


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


def _flite_synthesise(text: str, name: str) -> tuple[Wave, int]:
    library = _flite()
    pointer = library.flite_text_to_wave(text.encode("ascii"), _flite_voice(name))
    if not pointer:
        return np.zeros(0, np.float32), 16000
    wave = pointer.contents
    samples = np.ctypeslib.as_array(wave.samples, (max(wave.num_samples, 1),))[: wave.num_samples]
    result, rate = samples.astype(np.float32) / 32768.0, wave.sample_rate
    library.delete_wave(pointer)
    return result, rate


def _festival_batch(texts: list[str], voice: str) -> list[tuple[Wave, int]]:
    program = shutil.which("festival")
    if program is None:
        raise SynthesiserMissing("festival is missing: `apt install festival`")
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{voice})"]
        for index, text in enumerate(texts):
            quoted = text.replace("\\", " ").replace('"', " ")
            lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{quoted}")) "{folder}/{index}.wav" \'riff)')
        script = Path(folder) / "batch.scm"
        script.write_text("\n".join(lines), encoding="ascii")
        done = subprocess.run([program, "-b", str(script)], capture_output=True, text=True, check=False)
        if "unbound variable" in done.stderr + done.stdout:
            package = FESTIVAL_PACKAGES.get(voice, "festvox-*")
            raise SynthesiserMissing(f"festival voice {voice!r} is missing: `apt install {package}`")
        results: list[tuple[Wave, int]] = []
        for index in range(len(texts)):
            file = Path(folder) / f"{index}.wav"
            if file.is_file():
                samples, rate = soundfile.read(file, dtype="float32")
                results.append((np.asarray(samples, np.float32), rate))
            else:
                results.append((np.zeros(0, np.float32), 16000))
        return results


def _rhvoice(text: str, voice: str, file: Path) -> tuple[list[str], str]:
    """Command that speaks a sentence into a file, and what to say where its program is missing."""
    source = file.with_suffix(".txt")
    source.write_text(text, encoding="utf-8")
    return [
        "RHVoice-test",
        "-p",
        voice,
        "-i",
        str(source),
        "-o",
        str(file),
    ], "RHVoice is missing: `apt install rhvoice`"


def _pico(text: str, voice: str, file: Path) -> tuple[list[str], str]:
    """Command that speaks a sentence into a file, and what to say where its program is missing."""
    return ["pico2wave", "-l", voice, "-w", str(file), "--", text], "Pico is missing: `apt install libttspico-utils`"


_PROGRAMS = {"rhvoice": _rhvoice, "pico": _pico}


def _run_program(texts: list[str], voice: Voice) -> list[tuple[Wave, int]]:
    """Speak each text by one run of a program that writes a file."""
    results: list[tuple[Wave, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, text in enumerate(texts):
            file = Path(folder) / f"{index}.wav"
            command, remedy = _PROGRAMS[voice.engine](text, voice.name, file)
            if shutil.which(command[0]) is None:
                raise SynthesiserMissing(f"{remedy} (Debian's non-free part)")
            subprocess.run(command, capture_output=True, check=False)
            if file.is_file():
                samples, rate = soundfile.read(file, dtype="float32")
                results.append((np.asarray(samples, np.float32), rate))
                file.unlink()
            else:
                results.append((np.zeros(0, np.float32), 16000))
    return results


def synthesise(texts: list[str], voice: Voice) -> list[tuple[Wave, int]]:
    """Speak a list of texts with one voice.

    Args:
        texts: English texts in ASCII; Chinese ones in UTF-8 for espeak-ng only.
        voice: Who speaks.

    Returns:
        Waveform and its rate in Hz for every text; an empty waveform where the engine gave none.

    Raises:
        SynthesiserMissing: If the program or the voice is not installed.
        ValueError: If the engine is unknown.
    """
    if voice.engine == "espeak-ng":
        return [espeak().synthesise(text, voice) for text in texts]
    if voice.engine == "flite":
        return [_flite_synthesise(text, voice.name) for text in texts]
    if voice.engine == "festival":
        return _festival_batch(texts, voice.name)
    if voice.engine in _PROGRAMS:
        return _run_program(texts, voice)
    raise UserError(f"unknown speech engine {voice.engine!r}; known are espeak-ng, flite, festival, rhvoice and pico")


def phonemes(text: str, language: str) -> str | None:
    """The phones of a normalised text by espeak-ng's rules, the same for every voice.

    English phones are en-us IPA without stress marks. Mandarin and Cantonese phones are espeak-ng's own ASCII
    names, with the tone attached to the vowel (``A51``, ``oeng1``); its IPA output writes several tones alike.

    Args:
        text: Normalised text (see `uniaudio2.data.synth.sentences`).
        language: ``"en"``, ``"zh"`` or ``"yue"``.

    Returns:
        Phones separated by spaces; None if espeak-ng cannot pronounce a character, or nothing is left.

    Raises:
        SynthesiserMissing: If espeak-ng is not installed.
        ValueError: If the language is unknown.
    """
    if language not in ("en", "zh", "yue"):
        raise UserError(f"unknown language {language!r}; known are en, zh and yue")
    raw = espeak().phonemes(text, language, ipa=language == "en")
    if "(" in raw:
        return None
    if language == "en":
        phones = re.sub(r"[ˈˌ]", "", raw).replace("_", " ").split()
    else:
        phones = [phone for phone in re.sub(r"[',|]", "", raw).replace("_", " ").split() if re.search(r"\w", phone)]
        syllables = sum(1 for phone in phones if phone[-1].isdigit())
        if abs(syllables - len(text)) > 1:
            return None
    return " ".join(phones) or None
