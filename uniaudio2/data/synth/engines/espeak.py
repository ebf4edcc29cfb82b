"""espeak-ng in process through its C library: the one in the package ``espeakng-loader``, else the system's.

Also the phones of every clip, whatever its engine, and the only engine of this package that speaks Cantonese.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import functools
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniaudio2.data.synth.voices import Spoken, SynthesiserMissing, Voice, VoiceGroup
from uniaudio2.errors import UserError

_ESPEAK_RATE, _ESPEAK_PITCH, _ESPEAK_RANGE = 1, 3, 4  # espeak_PARAMETER in speak_lib.h
_ESPEAK_SYNCHRONOUS = 2
_ESPEAK_UTF8 = 1
_ESPEAK_IPA = 2
_ESPEAK_SEPARATOR = ord("_") << 8
_SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_ACCENTS = (
    "en-us",
    "gmw/en",
    "en-us",
    "gmw/en-GB-x-rp",
    "en-us",
    "gmw/en-GB-scotland",
    "gmw/en-US-nyc",
    "gmw/en-029",
    "en-us",
    "gmw/en-GB-x-gbclan",
    "gmw/en-GB-x-gbcwmd",
)
_VARIANT_NAMES = """
f1 m1 f2 m2 f3 m3 f4 m4 f5 m5 m6 m8 klatt klatt2 klatt3 klatt4 klatt5 Alex Alicia Andrea Andy Annie Denis
Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed adam anika announcer antonio aunty
belinda benjamin boris caleb david ed edward grandma grandpa gustave ian iven john linda marcelo max michel
miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac croak
"""
_VARIANTS = tuple(_VARIANT_NAMES.split())
_CHINESE = {"zh": "cmn", "yue": "yue"}


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

    def synthesise(self, text: str, voice: Voice) -> Spoken:
        """Speak a text: samples and their rate in Hz."""
        self.select(voice.name)
        self._lib.espeak_SetParameter(_ESPEAK_RATE, voice.rate, 0)
        self._lib.espeak_SetParameter(_ESPEAK_PITCH, 50 if voice.pitch is None else voice.pitch, 0)
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


def espeak_voices(language: str) -> list[Voice]:
    """All espeak-ng training voices of a language, most different ones first; pitch and rate spread over them."""
    voices: list[Voice] = []
    for index, variant in enumerate(_VARIANTS):
        pitch = 32 + (index * 19) % 41
        rate = 130 + (index * 37) % 91
        if language == "en":
            voices.append(Voice("espeak-ng", f"{_ACCENTS[index % len(_ACCENTS)]}+{variant}", "en", pitch, rate))
        elif index < 30:
            voices.append(Voice("espeak-ng", f"{_CHINESE[language]}+{variant}", language, pitch, min(rate, 200)))
    if language == "en":
        voices.append(Voice("espeak-ng", "en-us", "en", 50, 170))
        voices.append(Voice("espeak-ng", "gmw/en", "en", 45, 160))
    return voices


class _Engine:
    name = "espeak-ng"
    licence = "output of a GPL-3 program without recorded voices, unrestricted"
    rates = (130, 220)

    def groups(self) -> dict[str, VoiceGroup]:
        return {
            "espeak_en": VoiceGroup("en", tuple(espeak_voices("en"))),
            "zh_house": VoiceGroup("zh", (Voice(self.name, "cmn", "zh", 50, 160),)),
            "zh_many": VoiceGroup("zh", tuple(espeak_voices("zh"))),
            "yue_house": VoiceGroup("yue", (Voice(self.name, "yue", "yue", 50, 160),)),
            "yue_many": VoiceGroup("yue", tuple(espeak_voices("yue"))),
        }

    def held_out(self, language: str) -> tuple[Voice, ...]:
        if language == "en":
            return (
                Voice(self.name, "en-us+steph3", pitch=62, rate=165),
                Voice(self.name, "gmw/en+m7", pitch=42, rate=170),
                Voice(self.name, "gmw/en-GB-scotland+iven2", pitch=48, rate=155),
                Voice(self.name, "en-us+klatt6", pitch=38, rate=175),
            )
        prefix = _CHINESE[language]
        return tuple(
            Voice(self.name, f"{prefix}+{variant}", language, pitch, rate)
            for variant, pitch, rate in (("steph3", 62, 160), ("m7", 42, 165))
        )

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        library = espeak()
        return [library.synthesise(text, voice) for text in texts]


ENGINES = (_Engine(),)


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
        UserError: If the language is unknown.
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
