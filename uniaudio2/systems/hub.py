"""Weights of other systems: a folder, or a hub id that is fetched only when that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.errors import CheckpointError, MissingPackageError, UserError
from uniaudio2.systems.contract import UNPINNED, Card

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # never a pickle


@dataclass(frozen=True)
class WeightsConfig:
    """Where weights come from."""

    weights: str | None = None  # folder; None takes the hub's
    hub_id: str | None = None  # another one than the card's
    revision: str | None = None  # commit, tag or branch of the hub; None takes the card's, of another hub id the newest


def find_weights(card: Card, config: WeightsConfig, *, download: bool, also: Sequence[str] = ()) -> tuple[Path, str]:
    """The folder with a system's weights, and what to call its version.

    Args:
        card: The system.
        config: Where they come from.
        download: Whether they may be fetched. Without it only what was fetched before is used.
        also: Files that are fetched beside the usual ones.

    Raises:
        UserError: If they are not here, or cannot be fetched.
    """
    weights, hub_id = config.weights, config.hub_id or card.hub_id
    if weights is not None:
        folder = Path(weights)
        if not (folder / "config.json").is_file():
            raise UserError(f"{weights}: no weights of {card.title}, config.json is missing")
        return folder, f"folder {folder.name}"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing(card.title, "huggingface_hub") from error
    own = card.revision if hub_id == card.hub_id and card.revision != UNPINNED else None
    try:
        folder = Path(
            snapshot_download(
                hub_id, revision=config.revision or own, allow_patterns=[*_FILES, *also], local_files_only=not download
            )
        )
    except Exception as error:  # the hub's errors are many, of network, access and disk; all mean that nothing is here
        if download:
            reason = str(error).strip().splitlines()[:1]
            raise UserError(f"{hub_id}: {card.title} could not be fetched ({' '.join(reason)})") from error
        raise UserError(
            f"the weights of {card.title} are not here: --download fetches {hub_id} (licence: {card.licence}), "
            "@weights=DIR names a folder"
        ) from error
    return folder, f"{hub_id}, revision {folder.name}"


def missing(title: str, package: str, extra: str = "peers") -> MissingPackageError:
    """The error that says how to get a package."""
    return MissingPackageError(f"{title} needs the package {package!r}: pip install 'uniaudio2[{extra}]'")


def transformers_class(name: str, title: str) -> Any:
    """A class of transformers; raises MissingPackageError if it, or what it needs, is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise missing(title, "transformers") from error
    if not hasattr(transformers, name):
        raise MissingPackageError(
            f"{title} needs {name}, which transformers {transformers.__version__} does not have: "
            "pip install --upgrade transformers"
        )
    return getattr(transformers, name)


def load_pretrained(cls: Any, folder: Path, title: str, **options: Any) -> Any:
    """A model of transformers in evaluation mode, float32 unless told otherwise; every weight must be there.

    Raises:
        UserError: If weights are missing or of another shape, or a package is.
    """
    try:
        model, found = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except ImportError as error:  # a class of transformers may need packages of its own
        raise MissingPackageError(f"{title}: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise CheckpointError(f"{folder}: {' '.join(str(error).split())}") from error
    lacking = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if lacking:
        raise CheckpointError(f"{folder}: not the weights of {title}, {len(lacking)} are missing, such as {lacking[0]}")
    return model.eval()
