"""Published weight files: opened without running anything in them, with clean keys, by which their kind is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from uniaudio2.published.report import ConversionError, ConversionReport
from uniaudio2.tensors import (
    INDEX_SUFFIX,
    LazyTensor,
    TensorFileError,
    is_torch_file,
    load_torch,
    open_tensors,
    summarise,
)

Kind = Literal["lm", "codec", "sqcodec", "musicfm", "whisper", "wavlm", "other"]

WEIGHT_SUFFIXES = (".checkpoint", ".ckpt", ".pth", ".pt", ".bin", ".safetensors")
NESTINGS = ("model", "codec_model", "state_dict", "module", "generator")
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
CODEC_ENCODERS = {
    "whisper": "whisper_encoder.",
    "wavlm": "wavlm_encoder.",
    "musicfm": "pretrained_model.model.model.",
}


@dataclass(frozen=True)
class Source:
    """One weight file, opened: its tensors under clean published keys."""

    path: Path
    kind: Kind
    tensors: Mapping[str, LazyTensor]
    dropped: Mapping[str, str]  # key in the file -> why it is no weight of the model


def open_source(path: Path) -> Source:
    """Open a published weight file of any spelling, without running anything in it.

    Args:
        path: A PyTorch or safetensors file.

    Returns:
        Its tensors with nesting, ``module.`` and wrappers' names removed, and what kind of model they are.

    Raises:
        TensorFileError: If it cannot be read safely.
        ConversionError: If two keys become one.
    """
    dropped: dict[str, str] = {}
    tensors = _flatten(load_torch(path), path, dropped) if is_torch_file(path) else open_tensors(path)
    clean: dict[str, LazyTensor] = {}
    for key, tensor in tensors.items():
        name = clean_key(key)
        if name.endswith("_flat_param"):
            raise ConversionError(f"{path}: holds flattened FSDP shards ({key}); save a full state dict first")
        if name in clean:
            raise ConversionError(f"{path}: two keys become '{name}' when prefixes are removed")
        clean[name] = tensor
    return Source(path, kind_of(clean), clean, dropped)


def clean_key(key: str) -> str:
    """A key without one leading ``module.`` and without the names that wrappers of training put in.

    A ``module.`` inside a name (``conv_module.``) stays.
    """
    for wrapper in WRAPPERS:
        key = re.sub(rf"(^|(?<=\.)){re.escape(wrapper)}", "", key)
    return key.removeprefix("module.")


def _flatten(loaded: Any, path: Path, dropped: dict[str, str]) -> dict[str, LazyTensor]:
    """The state dict inside what ``torch.save`` wrote, wherever it is nested."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            raise TensorFileError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
        if any(isinstance(value, Tensor) for value in loaded.values()):
            break
        inner = next((name for name in NESTINGS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            raise TensorFileError(f"{path}: holds no state dict (keys {summarise(map(str, loaded))})")
        dropped.update({str(name): "not the model's weights" for name in loaded if name != inner})
        loaded = loaded[inner]
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            dropped[str(name)] = "not a tensor"
    return {str(name): LazyTensor.of(value) for name, value in loaded.items() if isinstance(value, Tensor)}


def kind_of(tensors: Iterable[str]) -> Kind:
    """Which published model a state dict belongs to, by its clean keys."""
    names = list(tensors)

    def has(*patterns: str) -> bool:
        """Whether every pattern matches the beginning of some key."""
        return all(any(re.match(pattern, name) for name in names) for pattern in patterns)

    if has(r"audio_head$", r"backbone\.transformer\."):
        return "lm"
    if has(r"cfm_wrapper\.", r"vq_acoustic\."):
        return "codec"
    if has(r"encoder\.\d+\.", r"decoder\.\d+\.") and not has(r"encoder\.layers\."):
        return "sqcodec"
    if has(r"(.+\.)?conformer\.layers\.0\.ffn1\."):
        return "musicfm"
    if has(r"(.+\.)?encoder\.layers\.0\.attention\.gru_rel_pos_const$"):
        return "wavlm"
    if has(r"(model\.)?encoder\.conv1\.weight$", r"(model\.)?encoder\.embed_positions\.weight$"):
        return "whisper"
    return "other"


def choose(source: Path, report: ConversionReport) -> dict[str, Source]:
    """The sources by kind. A file brings along what lies beside it; of several language models the last counts."""
    if source.is_file():
        first = open_source(source)
        if first.kind == "other":
            raise ConversionError(f"{source}: holds tensors, but of no published model ({summarise(first.tensors)})")
        found: dict[str, Source] = {first.kind: first}
        if first.kind == "codec":
            for path in _candidates(source.parent):
                if path != source:
                    other = _try_open(path, report)
                    if other is not None and other.kind in ("sqcodec", *CODEC_ENCODERS):
                        found.setdefault(other.kind, other)
        return found
    by_kind: dict[str, list[Source]] = {}
    for path in _candidates(source):
        opened = open_source(path) if path.parent == source else _try_open(path, report)
        if opened is not None:
            by_kind.setdefault(opened.kind, []).append(opened)
    codecs = by_kind.get("codec", [])
    if len(codecs) > 1:
        names = ", ".join(entry.path.name for entry in codecs)
        raise ConversionError(f"{source}: holds several codecs ({names}); convert the one you want by its file name")
    found = {}
    for kind, entries in by_kind.items():
        entries.sort(key=lambda entry: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", entry.path.name)])
        found[kind] = entries[-1]
        if kind == "other":
            report.notes += [f"left alone, no published weights: {entry.path.name}" for entry in entries]
        elif len(entries) > 1:
            others = ", ".join(entry.path.name for entry in entries[:-1])
            report.notes.append(f"took {entries[-1].path.name}, left out {others}")
    return found


def _candidates(folder: Path) -> list[Path]:
    """Weight files of a folder and of the encoders' folders in it."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.endswith(WEIGHT_SUFFIXES)]
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        files += _encoder_weights(inner)
    return files


def _encoder_weights(folder: Path) -> list[Path]:
    config = folder / "config.json"
    if not config.is_file():
        return []
    indexes = sorted(folder.glob(f"*.safetensors{INDEX_SUFFIX}"))
    if indexes:
        return [indexes[0]]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    return []


def _try_open(path: Path, report: ConversionReport) -> Source | None:
    """Open a companion file; one that cannot be read is noted, and named again if it turns out to be needed."""
    try:
        return open_source(path)
    except (TensorFileError, ConversionError) as error:
        report.notes.append(f"companion not used: {error}")
        return None


def move(source: Source, kind: str, prefix: str) -> Source:
    """An encoder's own file, with its keys as they are inside the codec's file."""
    anchors = {"whisper": "encoder.", "wavlm": "", "musicfm": ""}
    marks = {"whisper": "conv1.weight", "wavlm": "encoder.layers.0.", "musicfm": "conformer.layers.0."}
    mark = anchors[kind] + marks[kind]
    first = next(name for name in source.tensors if mark in name)
    outer = first[: first.index(mark)] + anchors[kind]
    inside = {prefix + name[len(outer) :]: t for name, t in source.tensors.items() if name.startswith(outer)}
    outside = {name: "outside of the encoder" for name in source.tensors if not name.startswith(outer)}
    return Source(source.path, source.kind, inside, {**source.dropped, **outside})
