"""Names of published codec parameters here, and what their tensors need before they load.

Shapes are those of the published files; only the leading axis of codebooks and halves of weight norms differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from uniaudio2.codec.autoencoder import SQCodec, fold_weight_norm
from uniaudio2.codec.autoencoder import rename_published as rename_published_autoencoder
from uniaudio2.codec.flow_matching import rename_published as rename_published_flow
from uniaudio2.codec.reasoning import rename_published as rename_published_reasoning
from uniaudio2.codec.reconstruction import rename_published as rename_published_reconstruction
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from uniaudio2.codec.codec import ReasoningCodec

PUBLISHED_UNUSED = ("wavlm_transfer.kernel", "film_encoder.")
"""Published parameters that are computed here (the resampling filter) or have no part in coding."""


def published_key(codec: ReasoningCodec, key: str) -> str | None:
    """A codec's name of a key of the published codec file, or of ``sqcodec:`` + a key of the autoencoder's file.

    Weight-normalised layers keep the ending of their halves; :func:`finish_published` folds them.

    Args:
        codec: Of the published sizes.
        key: As in the file, without a leading ``module.``.

    Returns:
        Name in this codec's state, or None for what is not needed.

    Raises:
        KeyError: If the key is not known to this codec.
    """
    if key.startswith("sqcodec:"):
        assert isinstance(codec.autoencoder, SQCodec)
        return "autoencoder." + rename_published_autoencoder(key.removeprefix("sqcodec:"), codec.autoencoder.config)
    if key.startswith(PUBLISHED_UNUSED):
        return None
    if key.startswith("audio_thinking."):
        return _below("reasoning", rename_published_reasoning(key.removeprefix("audio_thinking.")))
    for name, encoder in codec.encoders.items():
        prefix = getattr(encoder, "published_prefix", None)
        if prefix is not None and key.startswith(prefix):
            rename: Any = encoder.rename_published
            return _below(f"encoders.{name}", rename(key.removeprefix(prefix)))
    try:
        return _below("decoder", rename_published_flow(key))
    except KeyError:
        return _below("reconstruction", rename_published_reconstruction(key))


def _below(prefix: str, name: str | None) -> str | None:
    """The name inside a child module; None stays None."""
    return None if name is None else f"{prefix}.{name}"


def finish_published(state: Mapping[str | None, Tensor], *, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Bring renamed published tensors into this codec's form: fold weight norms, drop the codebooks' leading axis.

    Args:
        state: Tensors by the names that :func:`published_key` gives.
        wanted: Names of the codec's own state. Weight-normalised pairs that it holds itself are left alone.

    Returns:
        Tensors that load strictly.

    Raises:
        ValueError: If half of a weight-normalised pair is missing or a codebook was never initialised.
    """
    wanted = set(wanted)
    kept = {name: value for name, value in state.items() if name is not None and name in wanted}
    others = {name: value for name, value in state.items() if name is not None and name not in wanted}
    folded = fold_weight_norm(others)
    finished = {**kept, **folded}
    for name, value in finished.items():
        kind = name.rpartition(".")[2]
        if kind in ("codebook", "usage") and "levels" in name.split("."):
            finished[name] = value[0]
        elif kind == "initialised":
            if not bool(value.reshape(())):
                raise UserError(f"{name}: this codebook was never initialised; the file holds no trained codec")
            finished[name] = value.reshape(()).bool()
    return finished
