"""RHVoice and Pico: a program run a sentence, from Debian's non-free part."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from uniaudio2.data.synth.voices import SILENCE, Spoken, SynthesiserMissing, Voice, VoiceGroup


@dataclass(frozen=True)
class _Program:
    """An engine that is a program which writes one file.

    ``command`` gives the arguments for a text, a voice's name, a text file that holds the text, and the file to write.
    """

    name: str
    package: str
    licence: str
    voices: tuple[str, ...]
    command: Callable[[str, str, Path, Path], list[str]]
    clips_per_unit: int = 200
    rates: None = None

    def groups(self) -> dict[str, VoiceGroup]:
        voices = tuple(Voice(self.name, name) for name in self.voices)
        return {self.name: VoiceGroup("en", voices, self.clips_per_unit)}

    def held_out(self, language: str) -> tuple[Voice, ...]:
        return ()

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        program = self.command("", voice.name, Path(), Path())[0]
        if shutil.which(program) is None:
            raise SynthesiserMissing(f"{self.name} is missing: `apt install {self.package}` (Debian's non-free part)")
        results: list[Spoken] = []
        with tempfile.TemporaryDirectory() as folder:
            file, source = Path(folder) / "speech.wav", Path(folder) / "text.txt"
            for text in texts:
                source.write_text(text, encoding="utf-8")
                command = self.command(text, voice.name, source, file)
                subprocess.run(command, capture_output=True, check=False)
                if not file.is_file():
                    results.append(SILENCE)
                    continue
                samples, rate = soundfile.read(file, dtype="float32")
                results.append((np.asarray(samples, np.float32), rate))
                file.unlink()
        return results


ENGINES = (
    _Program(
        "rhvoice",
        "rhvoice rhvoice-english",
        "LGPL-2.1 (RHVoice and its voices alan, bdl, clb)",
        ("alan", "bdl", "clb"),  # Choice: its other English ones are flite's (slt) or for non-commercial use only
        lambda text, voice, source, file: ["RHVoice-test", "-p", voice, "-i", str(source), "-o", str(file)],
        clips_per_unit=60,
    ),
    _Program(
        "pico",
        "libttspico-utils",
        "Apache-2.0 as the Android Open Source Project publishes it (its voice data come without sources)",
        ("en-US", "en-GB"),
        lambda text, voice, source, file: ["pico2wave", "-l", voice, "-w", str(file), "--", text],
    ),
)
