"""Outputs of any system, stored on disk: one file a clip."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from uniaudio2.data.example import Example
from uniaudio2.errors import UserError
from uniaudio2.eval.reconstruction import read_unlimited
from uniaudio2.formats import AUDIO_SUFFIXES
from uniaudio2.systems.contract import Card, StoredSystem
from uniaudio2.systems.registry import SYSTEMS


@dataclass(frozen=True)
class FilesConfig:
    """Settings of stored outputs."""

    path: str  # a folder, or a pattern such as out/{kind}/{id}; a name without a suffix may have any
    kbps: float | None = None  # bit rate that its maker states; None is not known
    licence: str = "not stated"


@SYSTEMS.register("files", FilesConfig)
class Files(StoredSystem):
    """Files named like the clips: ``{id}`` is a clip's id, ``{name}`` the last part of it, ``{kind}`` its kind."""

    card = Card(title="files on disk", licence="of whoever made them", needs="nothing")

    def __init__(self, config: FilesConfig, *, device: str = "cpu", download: bool = False) -> None:
        self.pattern = config.path if "{" in config.path else str(Path(config.path) / "{name}")
        try:
            self.pattern.format(id="", name="", kind="")
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"{config.path}: only {{id}}, {{name}} and {{kind}} are filled in") from error
        self.kbps, self.version = config.kbps, f"files of {Path(config.path).name}"
        top = Path(self.pattern.partition("{")[0])
        if not (top if self.pattern.partition("{")[0].endswith("/") else top.parent).is_dir():
            raise UserError(f"{config.path}: no such folder of stored outputs")

    def _file(self, example: Example, suffixes: frozenset[str]) -> Path:
        stem = self.pattern.format(id=example.id, name=example.id.split("/")[-1], kind=example.kind)
        if Path(stem).is_file():
            return Path(stem)
        found = sorted(p for p in glob.glob(glob.escape(stem) + ".*") if Path(p).suffix.lower() in suffixes)
        if not found:
            raise UserError(f"no stored output for {example.id}: {stem}.* is missing")
        return Path(found[0])

    def audio(self, example: Example) -> Tensor:
        """See `StoredSystem.audio`."""
        return read_unlimited(self._file(example, AUDIO_SUFFIXES))

    def text(self, example: Example) -> str:
        """See `StoredSystem.text`."""
        return self._file(example, frozenset({".txt"})).read_text(encoding="utf-8").strip()
