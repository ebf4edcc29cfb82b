"""Named voices of a model folder: short recordings that can be asked for by name.

They lie in ``voices/`` beside the weights: a recording each, and ``voices.yaml`` with what is known about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uniaudio2.config import ConfigError, load_config, read_yaml
from uniaudio2.errors import CheckpointError

FOLDER, INDEX = "voices", "voices.yaml"


@dataclass(frozen=True)
class _Entry:
    """A voice as the index has it."""

    file: str  # beside the index
    language: str
    gender: str = "unknown"
    about: str = ""
    licence: str = ""


@dataclass(frozen=True)
class NamedVoice:
    """A voice that comes with a model."""

    name: str
    recording: Path  # about 3 s of it
    language: str
    gender: str
    about: str
    licence: str


def read_voices(folder: Path | None) -> dict[str, NamedVoice]:
    """The voices of a model folder by name; none where it has no index.

    Raises:
        CheckpointError: If the index is broken, or names a recording that is not there.
    """
    index = None if folder is None else folder / FOLDER / INDEX
    if index is None or not index.is_file():
        return {}
    voices: dict[str, NamedVoice] = {}
    try:
        for name, values in read_yaml(index).items():
            if not isinstance(values, dict):
                raise CheckpointError(f"{index}: {name} must say file, language and more, not {values!r}")
            entry = load_config(_Entry, values, name=f"{index}: {name}")
            recording = index.parent / Path(entry.file).name
            if not recording.is_file():
                raise CheckpointError(f"{index}: {name}: there is no {recording.name} beside it")
            voices[str(name)] = NamedVoice(
                str(name), recording, entry.language, entry.gender, entry.about, entry.licence
            )
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return voices
