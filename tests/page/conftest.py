"""A page of a few short items by a model of random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.page import Item, Plan, Site, Sound, build_page, find_sections
from uniaudio2.page.own import load_recordings
from uniaudio2.storage.folder import write_folder_config

DIGITS = {entry["expected"]: Path(entry["path"]) for entry in load_recordings()["transcribe"][:3]}
SEVEN, ZERO = Sound.of(DIGITS["seven"]), Sound.of(DIGITS["zero"])

ITEMS: dict[str, list[Item]] = {
    "codec": [Item("seven", {"audio": SEVEN}, {"audio": SEVEN}, {"Other <codec>": ZERO}, note="by <somebody>")],
    "transcribe": [
        Item("seven", {"audio": SEVEN}, {"transcription": "seven"}, language="en"),
        Item("零", {"audio": ZERO}, {"transcription": "零"}, {"Other": "零"}, language="zh"),
    ],
    "shot_sound": [
        Item("zero", {"audio": ZERO}, {"label": "zero"}, shots=(({"audio": SEVEN}, {"label": "seven"}),), private=True)
    ],
    "steps": [Item("zero", {"audio": ZERO}, {"audio": ZERO})],
}
"""One item or two in sections of every kind."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned some rows."""
    made = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    score = {"metric": "WER", "value": 12.5, "set": "a set"}
    write_folder_config(made, {"trained_tasks": {"asr": [score], "tts": [], "classify": []}})
    return made


@pytest.fixture(scope="session")
def model(folder: Path) -> UniAudio2:
    return UniAudio2.from_pretrained(folder, device="cpu")


Make = Callable[..., Site]


@pytest.fixture(scope="session")
def make(model: UniAudio2) -> Make:
    """Builds a page: ``make(folder, items, load=…, progress=…, **plan)``."""

    def make_page(out: Path, items: dict[str, list[Item]] | None = None, *, load: Any = None, progress: Any = None,
                   sections: str = "codec,speak,edit,shot_sound,steps,transcribe", **plan: Any) -> Site:  # fmt: skip
        chosen = Plan(find_sections(sections.split(",")), ITEMS if items is None else items, out, identity="model",
                      again="uniaudio2 page")  # fmt: skip
        return build_page(load or (lambda: model), dataclasses.replace(chosen, **plan), facts=model.facts,
                     progress=progress or (lambda line: None))  # fmt: skip

    return make_page


@pytest.fixture(scope="session")
def site(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make(tmp_path_factory.mktemp("page") / "site")


@pytest.fixture(autouse=True)
def no_data_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that lie beside the checkout give no items here."""
    monkeypatch.setattr("uniaudio2.data.sources.DEFAULT_ROOT", Path("no-such-folder"))
