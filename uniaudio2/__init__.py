"""uniaudio2: one model that listens and speaks. Codec and language model in PyTorch after UniAudio 2.0.

The public names are resolved on first use, so that importing the package (and ``uniaudio2 --help``) loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.codec.codec import ReasoningCodec
    from uniaudio2.codes import AudioCodes

__all__ = ["AudioCodes", "ReasoningCodec", "UniAudio2", "__version__"]

_HOMES = {
    "UniAudio2": "uniaudio2.api.model",
    "ReasoningCodec": "uniaudio2.codec.codec",
    "AudioCodes": "uniaudio2.codes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'uniaudio2' has no attribute '{name}'; it has {', '.join(sorted(_HOMES))}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
