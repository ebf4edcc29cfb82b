"""Model folders: where they are found, and their ``config.yaml``.

A folder holds ``config.yaml`` (format, version, and one section per part), a weight file per part (``lm.safetensors``
and so on), ``tokenizer.json`` and ``MODEL_CARD.md``; any part but the config may be absent.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniaudio2.config import ConfigError, dump_config, preset_path, read_yaml, to_plain
from uniaudio2.errors import CheckpointError
from uniaudio2.files import replacing

FORMAT = "uniaudio2"
VERSION = 1
CONFIG_FILE = "config.yaml"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "MODEL_CARD.md"
SHIPPED = Path(__file__).parents[1] / "weights"
DEFAULT_FOLDER = SHIPPED / "nano"
ORDER = ("format", "version", "codec", "lm", "text_decoder", "autoencoder", "encoder")  # of sections in config.yaml
_MOVED = {"beams": "beams", "hearings": "shifts", "speech_attempts": "speech_attempts"}  # once in the section "lm"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose config has been read and checked."""

    path: Path
    config: dict[str, Any] = field(repr=False)

    def has(self, part: str) -> bool:
        """Whether the folder's config describes this part."""
        return part in self.config

    def weights(self, part: str) -> Path:
        """The weight file of a part (its index lies beside it when the weights are in shards)."""
        return self.path / f"{part}.safetensors"

    def section(self, part: str) -> dict[str, Any]:
        """The config values of a part.

        Raises:
            CheckpointError: If the folder has no such part.
        """
        if part not in self.config:
            parts = [name for name in self.config if self.weights(name).exists()]
            raise CheckpointError(f"{self.path}: has no '{part}' section; it holds {', '.join(parts) or 'nothing'}")
        section = self.config[part]
        if not isinstance(section, Mapping):
            raise CheckpointError(f"{self.path / CONFIG_FILE}: '{part}' must be a mapping of keys to values")
        return dict(section)

    @property
    def tokenizer(self) -> Path:
        """The text tokenizer's file.

        Raises:
            CheckpointError: If the folder has none.
        """
        path = self.path / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(f"{self.path}: has no {TOKENIZER_FILE}; copy the one that the model was trained with")
        return path


def open_folder(source: Path | str | None = None, *, revision: str | None = None) -> ModelFolder:
    """Find a model folder and read its config.

    Args:
        source: A folder, the name of a shipped model, a Hugging Face hub id (``owner/name``; needs the extra
            ``published``), or None for the default among the shipped models.
        revision: Branch, tag or commit for a hub id.

    Raises:
        CheckpointError: If there is no such folder or it is not a model folder.
    """
    path = DEFAULT_FOLDER if source is None else Path(source)
    if not path.exists() and len(path.parts) == 1 and (SHIPPED / path / CONFIG_FILE).is_file():
        path = SHIPPED / path
    if not path.exists() and isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        path = _download(source, revision)
    if not path.exists():
        hint = "this installation has no shipped model" if source is None else "no such folder"
        raise CheckpointError(f"{path}: {hint}; give a model folder, or leave --model out for the shipped one")
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file; give the folder that holds {CONFIG_FILE} and the weights")
    file = path / CONFIG_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{path}: is not a model folder (no {CONFIG_FILE}); 'uniaudio2 convert' makes one from published weights"
        )
    try:
        config = to_plain(read_yaml(file))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: 'format' is {config.get('format')!r}, not {FORMAT!r}: not a uniaudio2 model folder"
        )
    version = config.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{file}: version {version!r} is not known; update uniaudio2 (this one reads 1 to {VERSION})"
        )
    _move_generation(config)
    return ModelFolder(path, config)


def _move_generation(config: dict[str, Any]) -> None:
    """Give folders from before the section ``generation`` one, with what they were tuned for."""
    lm = config.get("lm")
    if not isinstance(lm, dict):
        return
    moved = {name: lm.pop(old, 1) for old, name in _MOVED.items()}
    if "generation" not in config:
        tuned = read_yaml(preset_path("generation", "nano")) if lm.get("prompt_style") == "short" else {}
        config["generation"] = to_plain({**tuned, **moved})


def _download(repo: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{repo}: no such folder; to fetch it as a hub id, pip install 'uniaudio2[published]'"
        ) from None
    patterns = ["*.safetensors", "*.safetensors.index.json", CONFIG_FILE, TOKENIZER_FILE, CARD_FILE]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{repo}: no such folder, and not to be had from the hub ({problem})") from None


def push_to_hub(folder: Path | str, repo: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload a model folder to the Hugging Face hub (extra ``published``).

    Args:
        folder: A model folder.
        repo: ``owner/name``; created if absent.
        private: Whether a newly created repository is private.
        token: Access token; by default the one that ``hf auth login`` stored.

    Returns:
        Address of the commit.
    """
    folder = open_folder(folder).path
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise CheckpointError("uploading needs huggingface_hub: pip install 'uniaudio2[published]'") from None
    api = HfApi(token=token)
    api.create_repo(repo, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=[".*", "*.tmp"]))


def write_folder_config(folder: Path | str, sections: Mapping[str, Any]) -> None:
    """Write or extend a model folder's ``config.yaml``.

    Args:
        folder: An existing folder.
        sections: Config values by section; sections that are not named stay as they are.
    """
    folder = Path(folder)
    old = open_folder(folder).config if (folder / CONFIG_FILE).exists() else {}
    merged = {**old, **to_plain(dict(sections)), "format": FORMAT, "version": VERSION}
    names = [*(name for name in ORDER if name in merged), *(name for name in merged if name not in ORDER)]
    dump_config({name: merged[name] for name in names}, folder / CONFIG_FILE)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file under a temporary name in the target's folder, then rename it into place."""
    if source.resolve() == target.resolve():
        return
    with source.open("rb") as given, replacing(target) as file:
        shutil.copyfileobj(given, file)
