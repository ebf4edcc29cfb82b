"""Voices and the speech engines that have them: one protocol, one registry.

An engine is a file in ``data/synth/engines`` with a tuple ``ENGINES``; nothing else lists it. Knows nothing about
manifests. Engines run when data is made and are not shipped; what they need is a `SynthesiserMissing` that names the
package to install.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from uniaudio2.errors import UserError

Wave = NDArray[np.floating]
"""Mono samples (N,) in [-1, 1]."""

Spoken = tuple[Wave, int]
"""Samples and their rate in Hz."""

SILENCE: Spoken = (np.zeros(0, np.float32), 16_000)
"""What an engine gives where it could not speak."""

NORMAL_RATE = 175
"""An engine's own pace, words a minute."""


class SynthesiserMissing(UserError):  # noqa: N818 - the name says what is wrong
    """A synthesiser is not installed; the message names the package that holds it."""


@dataclass(frozen=True)
class Voice:
    """One voice of one synthesiser.

    Attributes:
        engine: Name of a registered engine (see `engines`).
        name: The engine's own name, for espeak-ng with the variant (``"en-us+f3"``), for Kokoro one style or the mean
            of several (``"af_heart+am_puck"``).
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        pitch: Base pitch, 0-99, where the engine has one; None is its own.
        rate: Speaking rate, words a minute, where the engine has one.
    """

    engine: str
    name: str
    language: str = "en"
    pitch: int | None = None
    rate: int = NORMAL_RATE

    @property
    def speaker(self) -> str:
        """Name of the speaker in manifests; the rate may differ between clips of one speaker, the pitch may not."""
        suffix = "" if self.pitch is None else f"-p{self.pitch}"
        return f"{self.engine}-{self.name}{suffix}"


@dataclass(frozen=True)
class VoiceGroup:
    """Voices of one language that a preset gives hours to.

    Attributes:
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        voices: Who takes turns, most different ones first.
        clips_per_unit: Clips in a shard; fewer for slow engines, so that no worker is left alone with one at the end.
    """

    language: str
    voices: tuple[Voice, ...]
    clips_per_unit: int = 200


class SpeechEngine(Protocol):
    """A speech synthesiser.

    Attributes:
        name: Its name in voices and manifests.
        licence: What its makers ask for, for manifests.
        rates: Slowest and fastest rate to be drawn, words a minute; None if the rate cannot be set.
    """

    name: str
    licence: str
    rates: tuple[int, int] | None

    def groups(self) -> dict[str, VoiceGroup]:
        """Its training voices, by names that are unique among all engines; does not need the engine installed."""
        ...

    def held_out(self, language: str) -> tuple[Voice, ...]:
        """Voices of a language for dev alone."""
        ...

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        """Speak texts in order; raises `SynthesiserMissing` or, for a voice that it never has, UserError.

        No text at all is a question whether the voice speaks here.
        """
        ...


@functools.cache
def engines() -> dict[str, SpeechEngine]:
    """All engines by name."""
    from uniaudio2.data.synth import engines as folder

    found: dict[str, SpeechEngine] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        for engine in importlib.import_module(f"{folder.__name__}.{module.name}").ENGINES:
            found[engine.name] = engine
    return found


def engine(name: str) -> SpeechEngine:
    """An engine by name; raises UserError if it is unknown."""
    if name not in engines():
        raise UserError(f"unknown speech engine {name!r}; known are {', '.join(sorted(engines()))}")
    return engines()[name]


def voice_group(name: str) -> VoiceGroup:
    """A group of training voices by name; raises UserError if it is unknown."""
    known = {key: group for item in engines().values() for key, group in item.groups().items()}
    if name not in known:
        raise UserError(f"unknown group of voices {name!r}; known are {', '.join(sorted(known))}")
    return known[name]


def synthesise(texts: Sequence[str], voice: Voice) -> list[Spoken]:
    """Speak a list of texts with one voice.

    Args:
        texts: English texts in ASCII; Chinese ones in UTF-8.
        voice: Who speaks.

    Returns:
        Waveform and its rate in Hz for every text; an empty waveform where the engine gave none.

    Raises:
        SynthesiserMissing: If the program or the voice is not installed.
        UserError: If the engine or the voice is unknown.
    """
    return engine(voice.engine).speak(texts, voice)


@functools.cache
def remedy(voice: Voice) -> str | None:
    """What to install for a voice; None if it speaks here."""
    try:
        synthesise([], voice)
    except SynthesiserMissing as error:
        return str(error)
    return None
