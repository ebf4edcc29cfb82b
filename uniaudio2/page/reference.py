"""Items of the reference page: the tasks and published outputs that lie in a folder ``seed_demo``.

They are for evaluation alone, and few of the recordings may be passed on: a page can be built from them, never shipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uniaudio2.data.episodes import class_name
from uniaudio2.errors import UserError
from uniaudio2.page.items import Item, Sound, Value

FOLDER, FILE = "seed_demo", "tasks.jsonl"
SYSTEMS = {
    "uniaudio2": "UniAudio 2.0, published", "encodec": "EnCodec", "dac": "DAC", "higgs": "Higgs", "mimi": "Mimi",
    "xcodec": "X-Codec", "qwen": "Qwen2.5-Omni", "mimo": "MiMo-Audio",
}  # fmt: skip
"""Names of the systems on the page."""

Task = Mapping[str, Any]


def reference_items(folder: str | Path) -> dict[str, list[Item]]:
    """Items by section.

    Args:
        folder: The one that holds ``tasks.jsonl``.

    Raises:
        UserError: If there is no such file, or a line is broken; the message names it.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise UserError(f"{file}: no such file; the tasks of the reference page are a folder {FOLDER!r} with {FILE}")
    items: dict[str, list[Item]] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            task = json.loads(line)
            section, make = _MAKERS.get(task["task"], ("", None))
            if make is not None:
                items.setdefault(section, []).append(make(task, _Reader(file.parent, task)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{file}:{number}: no task of the reference page ({what})") from None
    return items


class _Reader:
    """What all tasks have in common."""

    def __init__(self, folder: Path, task: Task) -> None:
        self._folder, self._task = folder, task
        language = task.get("language")
        self.language = "zh" if language == "cmn" else language

    def sound(self, key: str) -> Sound:
        """A recording of the task."""
        return Sound.of(self._folder / self._task[key], as_is=True)

    def common(self, output: str | None = None) -> dict[str, Any]:
        """Keyword arguments of every item; with the name of an output, the peers' too."""
        systems = self._task.get("systems", {}) if output else {}

        def made(value: str) -> Value:
            """A system's text, or its file."""
            path = self._folder / value
            return Sound.of(path, as_is=True) if path.suffix in (".flac", ".wav") else value

        return {
            "id": str(self._task["id"]),
            "peers": {SYSTEMS.get(name, name): made(value) for name, value in systems.items()},
            "note": f"Licence: {self._task.get('licence') or 'none stated'}",
            "language": self.language,
            "private": self._task.get("redistribute") is False,
        }


def _codec(task: Task, read: _Reader) -> Item:
    own = read.sound("gt")
    speech = task.get("domain") == "speech"
    return Item(given={"audio": own}, truth={"audio": own}, speech=speech, **read.common("audio"))


def _speech(task: Task, read: _Reader) -> Item:
    """Text, with a style and a voice where the task has them."""
    given: dict[str, Value] = {"voice": read.sound("prompt")} if "prompt" in task else {}
    given |= {"caption": task["caption"]} if "caption" in task else {}
    given["transcription"] = task["text"]
    common = read.common("audio")
    common["language"] = common["language"] or ("zh" if "/ZH/" in task["id"] else "en")
    return Item(given=given, says={"audio": task["text"]}, **common)


def _impaired(task: Task, read: _Reader) -> Item:
    return Item(
        given={"audio": read.sound("audio")},
        truth={"transcription": task["expected"]},
        **read.common("transcription"),
    )


def _denoise(task: Task, read: _Reader) -> Item:
    shot = {"source": read.sound("source1")}, {"target": read.sound("target1")}
    return Item(
        given={"source": read.sound("query")},
        truth={"target": read.sound("expected")},
        shots=(shot,),
        **read.common("target"),
    )


def _convert(task: Task, read: _Reader) -> Item:
    """The target voice of the example is the voice that is asked for."""
    voice = read.sound("target1")
    shot = {"voice": voice, "source": read.sound("source1")}, {"target": voice}
    return Item(
        given={"voice": voice, "source": read.sound("query")},
        truth={"target": read.sound("expected")},
        shots=(shot,),
        **read.common("target"),
    )


def _classify(task: Task, read: _Reader) -> Item:
    """Where the page gives no names of the classes, they are called by two words that say nothing."""
    names = [class_name(task.get(key) or plain) for key, plain in (("text1", "one"), ("text2", "two"))]
    shots = tuple(
        ({"audio": read.sound(key)}, {"label": name}) for key, name in zip(("source1", "source2"), names, strict=True)
    )
    common = read.common("label")
    common["peers"] = {name: class_name(str(value)) for name, value in common["peers"].items()}
    truth = {"label": class_name(task["expected"])} if task.get("expected") else {}
    return Item(given={"audio": read.sound("query")}, truth=truth, shots=shots, **common)


_MAKERS: dict[str, tuple[str, Callable[[Task, _Reader], Item]]] = {
    "codec_reconstruction": ("codec", _codec),
    "tts": ("speak", _speech),
    "instruct_tts": ("style", _speech),
    "audio_instructed_tts": ("styled_voice", _speech),
    "dysarthric_asr": ("impaired", _impaired),
    "few_shot_denoising": ("shot_denoise", _denoise),
    "few_shot_voice_conversion": ("shot_voice", _convert),
    "few_shot_sound_classification": ("shot_sound", _classify),
}
