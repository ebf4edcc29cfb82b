"""Whisper's encoder from a Hugging Face folder, an OpenAI ``.pt`` file or a CTranslate2 folder, as an encoder folder.

Only the encoder is taken. Files are read without running anything in them.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniaudio2.codec.features import build_encoder
from uniaudio2.codec.registry import RegisteredConfig
from uniaudio2.config import ConfigError
from uniaudio2.published.convert import ConvertDtype, Job, write_parts
from uniaudio2.published.mapping import collect, on_meta
from uniaudio2.published.report import ConversionError, ConversionReport, write_report
from uniaudio2.published.sizes import PublishedError, count_layers, shape_of
from uniaudio2.published.source import Source, open_source
from uniaudio2.tensors import LazyTensor, TensorFileError, check_readable, load_torch

HEAD_SIZE = 64  # of all of Whisper's sizes
CTRANSLATE2_FILE = "model.bin"
_CTRANSLATE2_TYPES = {0: torch.float32, 4: torch.float16, 5: torch.bfloat16}
_OTHER_TYPES = {1: 1, 2: 2, 3: 4}  # whole numbers: type -> bytes

Rename = Callable[[str], str | None]


def convert_whisper(source: Path | str, target: Path | str, *, dtype: ConvertDtype = "same") -> ConversionReport:
    """Turn a published Whisper into an encoder folder, which listens to clips at their own length.

    Args:
        source: A Hugging Face folder (``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``), an OpenAI
            ``.pt`` file, or a CTranslate2 folder (``config.json`` and ``model.bin``, not quantised).
        target: The folder, created if absent.
        dtype: ``same`` keeps the file's type; else ``float32``, ``bf16`` or ``int8``.

    Returns:
        What was used, renamed and not needed; also written to ``conversion.json``.

    Raises:
        ConversionError: If a file is missing, damaged or cannot be read safely, or holds no Whisper encoder. Nothing
            has been written then.
    """
    source, target = Path(source), Path(target)
    if not source.exists():
        raise ConversionError(f"{source}: no such file or folder")
    report = ConversionReport()
    try:
        opened, rename, heads = _open(source)
        tensors = {name: t for key, t in opened.tensors.items() if (name := _quiet(rename, key)) is not None}
        values = _sizes(tensors, heads, opened.path)
        model = on_meta(lambda: build_encoder("whisper", values), opened)
        mapped = collect([(opened, "", rename)], model, report)
    except (TensorFileError, PublishedError, ConfigError) as error:
        raise ConversionError(str(error) if str(source) in str(error) else f"{source}: {error}", report) from None
    if report.problem:
        raise ConversionError(f"{source}: {report.problem}", report)
    write_parts(
        [Job(opened.path, "encoder", RegisteredConfig("whisper", values), model, mapped)], target, dtype, report
    )
    write_report(target, report)
    return report


def _quiet(rename: Rename, key: str) -> str | None:
    try:
        return rename(key)
    except KeyError:
        return None


def _open(source: Path) -> tuple[Source, Rename, int | None]:
    """A Whisper's tensors, the function from their names to ours, and the number of heads if a file tells it."""
    if source.is_file():
        return _open_openai(source) if source.suffix != ".bin" else _open_ctranslate2(source)
    if (source / CTRANSLATE2_FILE).is_file():
        return _open_ctranslate2(source / CTRANSLATE2_FILE)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (source / name).is_file():
            return open_source(source / name), _from_transformers, _heads(source / "config.json")
    raise PublishedError(
        f"{source}: holds no Whisper; a Hugging Face folder has model.safetensors or pytorch_model.bin, a CTranslate2 "
        f"folder {CTRANSLATE2_FILE}, and OpenAI's is a .pt file"
    )


def _heads(path: Path) -> int:
    if not path.is_file():
        raise PublishedError(f"{path}: missing; it tells the number of heads")
    try:
        heads = json.loads(path.read_text(encoding="utf-8"))["encoder_attention_heads"]
    except (ValueError, KeyError, TypeError, RecursionError):
        heads = None
    if not isinstance(heads, int) or heads < 1:
        raise PublishedError(f"{path}: does not tell encoder_attention_heads, a whole number above 0")
    return heads


def _open_openai(path: Path) -> tuple[Source, Rename, int | None]:
    loaded = load_torch(path)
    dims, state = (loaded.get(name) if isinstance(loaded, Mapping) else None for name in ("dims", "model_state_dict"))
    if not isinstance(dims, Mapping) or not isinstance(state, Mapping):
        raise PublishedError(f"{path}: is not one of OpenAI's Whisper files, which hold dims and model_state_dict")
    heads = dims.get("n_audio_head")
    tensors = {str(name): LazyTensor.of(value) for name, value in state.items() if isinstance(value, Tensor)}
    return Source(path, "other", tensors, {}), _from_openai, heads if isinstance(heads, int) else None


def _sizes(tensors: Mapping[str, LazyTensor], heads: int | None, path: Path) -> dict[str, Any]:
    """Values of the encoder's config, read from shapes."""
    if "encoder.conv1.weight" not in tensors:
        raise PublishedError(f"{path}: is not a Whisper encoder (no first convolution)")
    width, mels, _ = shape_of(tensors, "encoder.conv1.weight", 3)
    return {
        "d_model": width,
        "encoder_layers": count_layers(tensors, "encoder.layers."),
        "encoder_attention_heads": heads or max(width // HEAD_SIZE, 1),
        "encoder_ffn_dim": shape_of(tensors, "encoder.layers.0.fc1.weight", 2)[0],
        "num_mel_bins": mels,
        "max_source_positions": shape_of(tensors, "encoder.embed_positions.weight", 2)[0],
        "padded": False,
    }


def _from_transformers(key: str) -> str | None:
    key = key.removeprefix("model.")
    return key if key.startswith("encoder.") else None


_OPENAI = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}


def _from_openai(key: str) -> str | None:
    if not key.startswith("encoder."):
        return None
    if key == "encoder.positional_embedding":
        return "encoder.embed_positions.weight"
    key = key.replace("encoder.ln_post.", "encoder.layer_norm.")
    if block := re.fullmatch(r"encoder\.blocks\.(\d+)\.(.+)\.(weight|bias)", key):
        return f"encoder.layers.{block[1]}.{_OPENAI[block[2]]}.{block[3]}"
    return key


# -- CTranslate2 ------------------------------------------------------------------------------------------------------

_CTRANSLATE2 = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_ENDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def _from_ctranslate2(key: str) -> str | None:
    if not key.startswith("encoder/") or key == "encoder/num_heads":
        return None
    if key == "encoder/position_encodings/encodings":
        return "encoder.embed_positions.weight"
    inner, end = key.removeprefix("encoder/").rsplit("/", 1)
    if block := re.fullmatch(r"layer_(\d+)/(.+)", inner):
        name = block[2] if block[2].startswith("self_attn.") else _CTRANSLATE2[block[2]]
        inner = f"layers.{block[1]}.{name}"
    return f"encoder.{inner}.{_ENDS[end]}"


class _Bytes:
    """A CTranslate2 file from its beginning on; an end before its time is one clear error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.values = torch.from_file(str(path), shared=False, size=self.size, dtype=torch.uint8)
        self.position = 0

    def take(self, count: int) -> Tensor:
        """The next bytes."""
        start, self.position = self.position, self.position + count
        if self.position > self.size:
            raise self.broken(f"it ends {self.position - self.size} bytes too early")
        return self.values[start : self.position]

    def number(self, kind: str) -> int:
        """The next number; ``kind`` as in `struct`."""
        return struct.unpack(f"<{kind}", bytes(self.take(struct.calcsize(kind)).tolist()))[0]

    def text(self) -> str:
        """The next name."""
        data = bytes(self.take(self.number("H")).tolist())
        if not data.endswith(b"\0") or not data[:-1].isascii():
            raise self.broken("a name in it is unreadable")
        return data[:-1].decode("ascii")

    def broken(self, why: str) -> PublishedError:
        """The error of a file that is damaged."""
        return PublishedError(
            f"{self.path}: damaged CTranslate2 model, {why}; if it was joined from parts, join all of them in order"
        )


def _open_ctranslate2(path: Path) -> tuple[Source, Rename, int | None]:
    """The tensors of ``model.bin``: version, kind of model, then name, shape, type and values of each.

    Source: the format that CTranslate2's converters write (version 6).
    """
    check_readable(path)
    file = _Bytes(path)
    version = file.number("I")
    if version != 6:
        raise file.broken(f"its version is {version}, not 6")
    kind = file.text()
    if kind != "WhisperSpec":
        raise PublishedError(f"{path}: is a CTranslate2 model of kind {kind!r}, not 'WhisperSpec'")
    file.number("I")  # revision of the kind
    tensors: dict[str, LazyTensor] = {}
    heads = None
    for _ in range(file.number("I")):
        name = file.text()
        shape = tuple(file.number("I") for _ in range(file.number("B")))
        number, num_bytes = file.number("B"), file.number("I")
        values = file.take(num_bytes)
        item = _CTRANSLATE2_TYPES[number].itemsize if number in _CTRANSLATE2_TYPES else _OTHER_TYPES.get(number, 0)
        if math.prod(shape) * item != num_bytes:
            raise file.broken(f"{name!r} has {num_bytes} bytes for the shape {list(shape)} of type {number}")
        if name == "encoder/num_heads":
            heads = int.from_bytes(bytes(values.tolist()), "little")
        elif name.startswith("encoder/"):
            if number not in _CTRANSLATE2_TYPES:
                raise PublishedError(f"{path}: {name!r} is quantised; take a float16 or float32 conversion")
            dtype = _CTRANSLATE2_TYPES[number]
            tensors |= _split(name, values.clone().view(dtype).view(shape), file)
    for _ in range(file.number("I")):  # names that share values
        for _ in range(2):
            file.text()
    if file.position != file.size:
        raise file.broken(f"{file.size - file.position} bytes are left over")
    return Source(path, "other", tensors, {}), _from_ctranslate2, heads


def _split(name: str, value: Tensor, file: _Bytes) -> dict[str, LazyTensor]:
    """A tensor by its name; query, key and value, which lie in one, by names of their own (keys have no bias)."""
    if not re.search(r"self_attention/linear_0/(weight|bias)$", name) or value.shape[0] % 3:
        return {name: LazyTensor.of(value)}
    layer, end = name.split("/self_attention/")[0], name.rsplit("/", 1)[1]
    parts = dict(zip("qkv", value.chunk(3), strict=True))
    if end == "bias" and bool(parts.pop("k").any()):
        raise file.broken(f"{name!r} has a bias for the keys")
    return {f"{layer}/self_attn.{part}_proj/{end}": LazyTensor.of(piece) for part, piece in parts.items()}
