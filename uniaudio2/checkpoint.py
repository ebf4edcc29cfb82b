"""Whole models and their parts, loaded from model folders and written into them.

Says which parts there are; how folders and weights are read is `storage`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, Unpack, cast

from torch import nn

from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.contract import Codec
from uniaudio2.codec.encoder import file_of
from uniaudio2.codec.registry import AUTOENCODERS, CODECS, ENCODERS, RegisteredConfig, codec_section
from uniaudio2.codec.text_decoder import TextDecoder, TextDecoderConfig
from uniaudio2.config import to_plain
from uniaudio2.errors import CheckpointError
from uniaudio2.files import write_text
from uniaudio2.lm.model import AudioLM, LMConfig
from uniaudio2.storage.folder import (
    CARD_FILE,
    CONFIG_FILE,
    DEFAULT_FOLDER,
    TOKENIZER_FILE,
    ModelFolder,
    copy_file,
    open_folder,
    push_to_hub,
    write_folder_config,
)
from uniaudio2.storage.load import LoadOptions, load_part
from uniaudio2.storage.pack import SaveDtype, pack_weights
from uniaudio2.tensors import save_tensors

__all__ = [  # what a user of whole models needs of the layers below, too
    "CARD_FILE",
    "CONFIG_FILE",
    "DEFAULT_FOLDER",
    "PARTS",
    "TOKENIZER_FILE",
    "CheckpointError",
    "ModelFolder",
    "Pretrained",
    "SaveDtype",
    "load_autoencoder",
    "load_codec",
    "load_encoder",
    "load_lm",
    "load_pretrained",
    "load_text_decoder",
    "open_folder",
    "part_of",
    "push_to_hub",
    "save_parts",
    "save_pretrained",
]

Part = Literal["codec", "lm", "text_decoder"]
Source: TypeAlias = Path | str | ModelFolder | None


@dataclass(frozen=True)
class PartSpec:
    """What one part of a model is made of."""

    config_class: type[Any]
    model_class: type[nn.Module]


PARTS: dict[str, PartSpec] = {
    "codec": PartSpec(CodecConfig, ReasoningCodec),
    "lm": PartSpec(LMConfig, AudioLM),
    "text_decoder": PartSpec(TextDecoderConfig, TextDecoder),
}


@dataclass(frozen=True)
class Pretrained:
    """Everything that a model folder holds, in evaluation mode."""

    folder: ModelFolder
    codec: Codec
    lm: AudioLM
    text_decoder: TextDecoder | None
    tokenizer: Path  # tokenizer.json


def load_codec(source: Source = None, **options: Unpack[LoadOptions]) -> Codec:
    """Load the codec of a model folder, ready for use.

    Args:
        source: See :func:`open_folder`. A section without a name is that of a `ReasoningCodec`.
        options: See :class:`LoadOptions`.
    """
    folder = source if isinstance(source, ModelFolder) else open_folder(source)
    if "name" in folder.section("codec"):
        return load_part(folder, "codec", RegisteredConfig, lambda it: CODECS.build(it.name, it.config), **options)
    return load_part(folder, "codec", CodecConfig, ReasoningCodec, **options)


def load_lm(source: Source = None, **options: Unpack[LoadOptions]) -> AudioLM:
    """Load the language model of a model folder; arguments as for :func:`load_codec`."""
    return load_part(source, "lm", LMConfig, AudioLM, **options)


def load_text_decoder(source: Source = None, **options: Unpack[LoadOptions]) -> TextDecoder:
    """Load the codec's own text decoder of a model folder; arguments as for :func:`load_codec`."""
    return load_part(source, "text_decoder", TextDecoderConfig, TextDecoder, **options)


def load_autoencoder(source: Source, **options: Unpack[LoadOptions]) -> nn.Module:
    """Load an autoencoder that was converted without its codec (``sqcodec.pth``); arguments as for `load_codec`."""
    return load_part(
        source, "autoencoder", RegisteredConfig, lambda part: AUTOENCODERS.build(part.name, part.config), **options
    )


def load_encoder(source: Source, **options: Unpack[LoadOptions]) -> nn.Module:
    """Load an encoder that was converted without its codec (``music_ssl.pt``); arguments as for :func:`load_codec`."""
    return load_part(
        source, "encoder", RegisteredConfig, lambda part: ENCODERS.build(part.name, part.config), **options
    )


def load_pretrained(source: Source = None, **options: Unpack[LoadOptions]) -> Pretrained:
    """Load every part of a model folder; arguments as for :func:`load_codec`."""
    folder = source if isinstance(source, ModelFolder) else open_folder(source)
    return Pretrained(
        folder=folder,
        codec=load_codec(folder, **options),
        lm=load_lm(folder, **options),
        text_decoder=load_text_decoder(folder, **options) if folder.has("text_decoder") else None,
        tokenizer=folder.tokenizer,
    )


def save_pretrained(model: Any, folder: Path | str, *, dtype: SaveDtype = "float32") -> Path:
    """Write a model folder, or one part into it.

    Args:
        model: A :class:`uniaudio2.UniAudio2` (anything with ``codec``, ``lm`` and ``tokenizer``), or one part: a codec,
            a language model or a text decoder.
        folder: Created if absent; what it holds already of other parts stays.
        dtype: ``float32``, ``bf16``, or ``int8`` (matrices as 8-bit rows with a half-precision scale each).

    Returns:
        The folder.
    """
    part = part_of(model)
    if part is not None:
        return save_parts(folder, **{part: model}, dtype=dtype)
    codec, lm = getattr(model, "codec", None), getattr(model, "lm", None)
    if codec is None and lm is None:
        raise CheckpointError(f"cannot save a {type(model).__name__}: it is no part of a model and has no codec or lm")
    tokenizer = getattr(model, "tokenizer", None)
    text_decoder = getattr(model, "text_decoder", None)
    made = save_parts(folder, codec=codec, lm=lm, text_decoder=text_decoder, tokenizer=tokenizer, dtype=dtype)
    facts = getattr(model, "facts", None)
    if facts is not None and lm is not None:
        write_folder_config(made, facts.sections())
    return made


def part_of(model: Any) -> Part | None:
    """Which part of a model this is; None if it is none of them."""
    if isinstance(model, Codec):
        return "codec"
    return next((cast(Part, part) for part, spec in PARTS.items() if isinstance(model, spec.model_class)), None)


def save_parts(
    folder: Path | str,
    *,
    codec: nn.Module | None = None,
    lm: nn.Module | None = None,
    text_decoder: nn.Module | None = None,
    tokenizer: Any = None,
    card: str | None = None,
    dtype: SaveDtype = "float32",
) -> Path:
    """Write the given parts into a model folder and leave the others as they are.

    Args:
        folder: Created if absent.
        codec: A registered `Codec`.
        lm: An ``AudioLM``.
        text_decoder: A ``TextDecoder``.
        tokenizer: The path of a ``tokenizer.json``, or an object with ``save(path)``.
        card: Text of ``MODEL_CARD.md``.
        dtype: See :func:`save_pretrained`.

    Returns:
        The folder.
    """
    folder = Path(folder)
    parts = {"codec": codec, "lm": lm, "text_decoder": text_decoder}
    sections = {part: to_plain(cast(Any, model).config) for part, model in parts.items() if model is not None}
    if codec is not None:
        sections["codec"] = codec_section(codec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be made ({error.strerror})") from None
    for part, model in parts.items():
        if model is not None:
            packed = pack_weights(model, dtype)
            apart = {name: file for name in packed if (file := file_of(model, name))}
            save_tensors(folder / f"{part}.safetensors", packed, metadata={"format": "pt"}, apart=apart)
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
    if card is not None:
        write_text(folder / CARD_FILE, card)
    write_folder_config(folder, sections)
    return folder


def _save_tokenizer(tokenizer: Any, path: Path) -> None:
    if isinstance(tokenizer, (str, Path)):
        copy_file(Path(tokenizer), path)
    else:
        tokenizer.save(path)
