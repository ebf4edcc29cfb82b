"""festival as one program run for a whole list of sentences."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from uniaudio2.data.synth.voices import SILENCE, Spoken, SynthesiserMissing, Voice, VoiceGroup

PACKAGES = {
    "kal_diphone": "festvox-kallpc16k",
    "ked_diphone": "festvox-kdlpc16k",
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
}
"""Voices and the Debian packages that hold them."""


def _festival_batch(texts: Sequence[str], voice: str) -> list[Spoken]:
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
            package = PACKAGES.get(voice, "festvox-*")
            raise SynthesiserMissing(f"festival voice {voice!r} is missing: `apt install {package}`")
        results: list[Spoken] = []
        for index in range(len(texts)):
            file = Path(folder) / f"{index}.wav"
            if file.is_file():
                samples, rate = soundfile.read(file, dtype="float32")
                results.append((np.asarray(samples, np.float32), rate))
            else:
                results.append(SILENCE)
        return results


class _Engine:
    name = "festival"
    licence = "X11-style (festival and its diphone / HTS voices)"
    rates = None

    def groups(self) -> dict[str, VoiceGroup]:
        return {
            "festival_kal": VoiceGroup("en", (Voice(self.name, "kal_diphone"),)),
            "festival_hts": VoiceGroup("en", (Voice(self.name, "cmu_us_slt_arctic_hts"),), clips_per_unit=60),
        }

    def held_out(self, language: str) -> tuple[Voice, ...]:
        return (Voice(self.name, "ked_diphone"),) if language == "en" else ()

    def speak(self, texts: Sequence[str], voice: Voice) -> list[Spoken]:
        return _festival_batch(texts, voice.name)


ENGINES = (_Engine(),)
