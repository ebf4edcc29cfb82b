"""Notes on instruments of a General MIDI soundfont, through FluidSynth's C library.

Needs the library and a soundfont: `apt install libfluidsynth3 fluid-soundfont-gm` (FluidR3 GM, MIT). Notes are rendered
dry, without chorus and reverb, so that a clip depends on its notes alone.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.synth.voices import SynthesiserMissing, Wave

ENVIRONMENT_VARIABLE = "UNIAUDIO2_SOUNDFONT"
DEFAULT_FILE = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
LICENCE = "notes composed by this package; FluidR3 GM soundfont by Frank Wen (MIT)"
_WARNING = 2  # FLUID_WARN in fluidsynth/log.h
DRUMS = -1
"""In place of a program: the drum kit, whose keys are its instruments."""


@dataclass(frozen=True)
class Note:
    """One note: MIDI program and key, when it starts and how long it is held in seconds, loudness 1 to 127."""

    program: int
    key: int
    start: float
    length: float
    velocity: int = 90


def missing() -> str | None:
    """What to install; None if notes can be rendered here."""
    try:
        _player()
    except SynthesiserMissing as error:
        return str(error)
    return None


def render(notes: Sequence[Note], num_samples: int) -> Wave:
    """Play notes: samples (num_samples,) at 24 kHz, in [-1, 1] before any levelling.

    Raises:
        SynthesiserMissing: If the library or the soundfont is not installed.
    """
    return _player().play(notes, num_samples)


class _Player:
    """FluidSynth with a soundfont loaded, which takes a second: one a process.

    Every piece gets a synthesiser of its own, which the soundfont is handed to: a reset leaves sound of the last one.
    """

    def __init__(self, library: ctypes.CDLL, file: Path) -> None:
        self._lib = library
        library.fluid_set_log_function(_WARNING, None, None)  # that a fresh synthesiser has no soundfont yet
        for name in ("new_fluid_settings", "new_fluid_synth", "fluid_synth_get_sfont_by_id"):
            getattr(library, name).restype = ctypes.c_void_p
        self._settings = ctypes.c_void_p(library.new_fluid_settings())
        library.fluid_settings_setnum(self._settings, b"synth.sample-rate", ctypes.c_double(SAMPLE_RATE))
        for name in (b"synth.reverb.active", b"synth.chorus.active"):
            library.fluid_settings_setint(self._settings, name, 0)
        self._synth = self._new()
        number = library.fluid_synth_sfload(self._synth, str(file).encode(), 1)
        if number < 0:
            raise SynthesiserMissing(f"{file} is no soundfont that FluidSynth reads")
        self._font = ctypes.c_void_p(library.fluid_synth_get_sfont_by_id(self._synth, number))

    def _new(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._lib.new_fluid_synth(self._settings))

    def _renew(self) -> None:
        """A fresh synthesiser with the same soundfont."""
        fresh = self._new()
        self._lib.fluid_synth_remove_sfont(self._synth, self._font)
        self._lib.fluid_synth_add_sfont(fresh, self._font)
        self._lib.delete_fluid_synth(self._synth)
        self._synth = fresh
        self._lib.fluid_synth_program_reset(self._synth)

    def play(self, notes: Sequence[Note], num_samples: int) -> Wave:
        self._renew()
        channels: dict[int, int] = {DRUMS: 9}
        for program in dict.fromkeys(note.program for note in notes if note.program != DRUMS):
            channels[program] = next(c for c in range(16) if c not in channels.values())
            self._lib.fluid_synth_program_change(self._synth, channels[program], program)
        events: list[tuple[int, int, int, int]] = []  # sample, velocity (0: off), channel, key
        for note in notes:
            start, channel = round(note.start * SAMPLE_RATE), channels[note.program]
            events.append((start, note.velocity, channel, note.key))
            events.append((start + round(note.length * SAMPLE_RATE), 0, channel, note.key))
        out = np.zeros((2, num_samples), np.float32)
        at = 0
        for sample, velocity, channel, key in sorted(events):
            at = self._write(out, at, min(sample, num_samples))
            if velocity:
                self._lib.fluid_synth_noteon(self._synth, channel, key, velocity)
            else:
                self._lib.fluid_synth_noteoff(self._synth, channel, key)
        self._write(out, at, num_samples)
        return out.mean(0)

    def _write(self, out: np.ndarray, start: int, stop: int) -> int:
        """Render from sample ``start`` up to ``stop`` with the notes that are on."""
        if stop > start:
            left, right = (ctypes.c_void_p(row.ctypes.data) for row in out)
            self._lib.fluid_synth_write_float(self._synth, stop - start, left, start, 1, right, start, 1)
        return max(start, stop)


@functools.cache
def _player() -> _Player:
    remedy = "`apt install libfluidsynth3 fluid-soundfont-gm`"
    name = ctypes.util.find_library("fluidsynth")
    if name is None:
        raise SynthesiserMissing(f"FluidSynth is missing: {remedy}")
    file = Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_FILE)
    if not file.is_file():
        raise SynthesiserMissing(f"no soundfont at {file}: {remedy}, or set {ENVIRONMENT_VARIABLE} to one")
    return _Player(ctypes.CDLL(name), file)
