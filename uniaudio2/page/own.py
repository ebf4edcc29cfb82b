"""Items that need no data: the recordings in the package, alone and laid over each other, and texts."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from uniaudio2.page.items import Item, Sound

SPEAK = (
    ("speak_en", "en", "The train to the city leaves at half past seven."),
    ("speak_zh", "zh", "今天天气很好，我们去公园吧。"),
    ("speak_yue", "yue", "我哋今日去邊度食飯呀？"),
    ("speak_en_short", "en", "Good morning, how are you today?"),
)
SOUNDS = (("make_dog", "a dog barking"), ("make_rain", "rain falling"), ("make_rooster", "a rooster crowing"))
MUSIC = ("slow sad piano music", "a fast happy guitar piece", "a medium cheerful tune on the violin with drums")
SONGS = (("en", "the morning sings beside the sleeping river"), ("en", "a silver star is dancing in the rain"))
STYLES = (
    ("en", "a woman speaks in a whisper", "please close the door behind you"),
    ("en", "a man shouting", "the train leaves in five minutes"),
    ("zh", "女声慢慢地说", "今天天气很好"),
)
CHANGES = (("voice_sonnet", "change the voice to a whisper"), ("keyword_smart_mirror", "say it slowly"))
SCENES = (("rain falling", "we will stay at home today"), ("a dog barking", "somebody is at the door"))
ROUND_TRIP = ("keyword_computer", "voice_sonnet", "sound_dog")  # recordings that are encoded and decoded again


def load_recordings() -> dict[str, Any]:
    """The table of shipped recordings, with the absolute path of each under ``path``."""
    folder = resources.files("uniaudio2") / "demo_assets"
    table: dict[str, Any] = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    for entry in [*table["transcribe"], *table["caption"], table["voice"]]:
        entry["path"] = str(folder / entry["file"])
    return table


class _Shelf:
    """The recordings by name."""

    def __init__(self) -> None:
        self.table = load_recordings()
        entries = [*self.table["transcribe"], *self.table["caption"], self.table["voice"]]
        self._entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in entries}

    def sound(self, name: str, start_s: float = 0.0, duration_s: float | None = None) -> Sound:
        """A recording or a stretch of it."""
        return Sound.of(Path(self._entries[name]["path"]), start_s, duration_s)

    def note(self, *names: str) -> str:
        """Credit and licence of recordings."""
        own = (self._entries[name] for name in names)
        return "; ".join(f"{entry['credit']}, {entry['licence']}" for entry in own)

    def words(self, name: str) -> str:
        """What is said or heard."""
        return str(self._entries[name]["expected"])


def own_items() -> dict[str, list[Item]]:
    """Items by section, for all sections that can have some without data."""
    shelf = _Shelf()
    return {**_speech(shelf), **_sounds(shelf), **_changed(shelf), **_mixed(shelf), **_asked(shelf)}


def _speech(shelf: _Shelf) -> dict[str, list[Item]]:
    voice = shelf.sound("voice_sonnet", 0, 3)
    _, language, short = SPEAK[-1]
    return {
        "speak": [
            Item(name, {"transcription": text}, says={"audio": text}, language=language)
            for name, language, text in SPEAK
        ],
        "voice": [
            Item("speak_voice", {"voice": shelf.sound("voice_sonnet"), "transcription": short}, says={"audio": short},
                 language=language, note=shelf.note("voice_sonnet"))
        ],
        "style": [
            Item(f"style_{number}", {"caption": style, "transcription": text}, says={"audio": text}, language=code)
            for number, (code, style, text) in enumerate(STYLES, 1)
        ],
        "styled_voice": [
            Item(f"styled_voice_{number}", {"voice": voice, "caption": style, "transcription": text},
                 says={"audio": text}, language=code, note=shelf.note("voice_sonnet"))
            for number, (code, style, text) in enumerate(STYLES[:2], 1)
        ],
        "scene": [
            Item(f"scene_{number}", {"caption": sound, "transcription": text}, says={"audio": text}, language="en")
            for number, (sound, text) in enumerate(SCENES, 1)
        ],
        "song": [
            Item(f"song_{number}", {"lyric": text}, says={"audio": text}, language=code)
            for number, (code, text) in enumerate(SONGS, 1)
        ],
        "text": [Item(f"text_{draw + 1}", draw=draw) for draw in range(3)],
    }  # fmt: skip


def _sounds(shelf: _Shelf) -> dict[str, list[Item]]:
    """Recordings listened to, sounds made, and codes."""

    def heard(section: str, output: str, language: str | None) -> list[Item]:
        """The recordings of a part of the table."""
        return [
            Item(entry["name"], {"audio": shelf.sound(entry["name"])}, {output: entry["expected"]}, language=language,
                 note=shelf.note(entry["name"]))
            for entry in shelf.table[section]
        ]  # fmt: skip

    def coded(names: tuple[str, ...]) -> list[Item]:
        """Recordings that are encoded and decoded."""
        sounds = {name: shelf.sound(name) for name in names}
        return [
            Item(name, {"audio": own}, {"audio": own}, note=shelf.note(name), speech=not name.startswith("sound_"))
            for name, own in sounds.items()
        ]

    return {
        "transcribe": heard("transcribe", "transcription", "en"),
        "caption": heard("caption", "caption", None),
        "sound": [Item(name, {"caption": text}) for name, text in SOUNDS],
        "music": [Item(f"music_{number}", {"caption": text}) for number, text in enumerate(MUSIC, 1)],
        "codec": coded(ROUND_TRIP),
        "steps": coded(("voice_sonnet", "sound_rooster")),
    }


def _changed(shelf: _Shelf) -> dict[str, list[Item]]:
    """Recordings with an instruction, or with a voice."""
    return {
        "edit": [
            Item(f"edit_{number}", {"instruction": wish, "source": shelf.sound(name)},
                 says={"target": shelf.words(name)}, language="en", note=shelf.note(name))
            for number, (name, wish) in enumerate(CHANGES, 1)
        ],
        "convert": [
            Item("convert_1", {"voice": shelf.sound("voice_sonnet", 0, 3), "source": shelf.sound(name)},
                 says={"target": shelf.words(name)}, language="en", note=shelf.note("voice_sonnet", name))
            for name in ("keyword_smart_mirror",)
        ],
    }  # fmt: skip


def _mixed(shelf: _Shelf) -> dict[str, list[Item]]:
    """Speech before rain, and one reader over another: what was laid together is what is to be found."""
    rain = shelf.sound("sound_rain").moved(gain_db=-6)
    clean, other = shelf.sound("voice_sonnet"), shelf.sound("keyword_computer")
    noisy, noisy_other = clean + shelf.sound("sound_rain", 0, 4).moved(gain_db=-6), other + rain
    first, second = shelf.sound("voice_sonnet"), shelf.sound("sentence_printing", 0, 3.2).moved(at_s=0.8)
    credit = shelf.note("voice_sonnet", "sound_rain")
    denoised: dict[str, Any] = {"truth": {"target": clean}, "says": {"target": shelf.words("voice_sonnet")}}
    return {
        "denoise": [Item("denoise_1", {"source": noisy}, language="en", note=credit, **denoised)],
        "shot_denoise": [
            Item("shot_denoise_1", {"source": noisy}, shots=(({"source": noisy_other}, {"target": other}),),
                 language="en", note=credit, **denoised)
        ],
        "separate": [
            Item("separate_1", {"mixture": first + second}, {"first": first, "second": second}, language="en",
                 note=shelf.note("voice_sonnet", "sentence_printing"))
        ],
        "speakers": [
            Item("speakers_1", {"audio": shelf.sound("voice_sonnet") + other.moved(at_s=4.2)}, language="en",
                 note=shelf.note("voice_sonnet", "keyword_computer"))
        ],
    }  # fmt: skip


def _asked(shelf: _Shelf) -> dict[str, list[Item]]:
    """Questions with answers that are plain, and classes by one example of each."""
    questions = (
        ("sound_dog", "what do you hear first", "a dog"),
        ("voice_sonnet", "is there speech", "yes"),
        ("sound_rain", "does someone speak", "no"),
    )
    halves = (0.0, 2.5)

    def example(name: str) -> tuple[dict[str, Sound], dict[str, str]]:
        """The first half of a sound with its class."""
        return {"audio": shelf.sound(name, halves[0], halves[1])}, {"label": name.removeprefix("sound_")}

    pair = ("sound_dog", "sound_rooster")
    return {
        "question": [
            Item(f"question_{number}", {"question": text, "audio": shelf.sound(name)}, {"answer": answer},
                 note=shelf.note(name))
            for number, (name, text, answer) in enumerate(questions, 1)
        ],
        "shot_sound": [
            Item(f"shot_{name}", {"audio": shelf.sound(name, halves[1], 2.5)}, {"label": name.removeprefix("sound_")},
                 shots=tuple(example(each) for each in pair), note=shelf.note(*pair))
            for name in pair
        ],
    }  # fmt: skip
