"""Tensor files: read safetensors and PyTorch files safely, write safetensors tensor by tensor.

Knows nothing about models. Tensors are mapped from the file where that is possible, so reading one costs no private
memory until it is changed or converted. Nothing here ever runs code from a file.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.files import replacing

logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 5_000_000_000
INDEX_SUFFIX = ".index.json"
RELEASE_BYTES = 32_000_000  # of a file that may be in memory beside what is made of it

_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TYPES = {name: dtype for dtype, name in _TYPE_NAMES.items()}


class TensorFileError(UserError):
    """A tensor file that cannot be used: says which file, why, and what to do."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is known by shape and type and read only when asked for."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor] = field(repr=False)

    @property
    def num_bytes(self) -> int:
        """Size of the values in bytes."""
        return self.numel * self.dtype.itemsize

    @property
    def numel(self) -> int:
        """Number of values."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @staticmethod
    def of(tensor: Tensor) -> LazyTensor:
        """Wrap a tensor that is already at hand."""
        return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def check_readable(path: Path) -> None:
    """Raise one clear :class:`TensorFileError` if ``path`` is not a non-empty file that may be read."""
    if not path.exists():
        raise TensorFileError(f"{path}: no such file")
    if path.is_dir():
        raise TensorFileError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise TensorFileError(f"{path}: is not a regular file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise TensorFileError(f"{path}: cannot be read ({error.strerror})") from None
    if empty:
        raise TensorFileError(f"{path}: is empty; fetch or copy it again")


def open_tensors(path: Path | str, *, keep: bool = True) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file (or a sharded set named by its index), none of them read yet.

    Args:
        path: A ``.safetensors`` file, or a ``.safetensors.index.json`` whose shards lie beside it. A path whose plain
            file is absent while its index is there opens the shards.
        keep: Whether what is read is mapped once and kept. False is for tensors that are converted when read: their
            pages leave memory after every ``RELEASE_BYTES``, not when the last tensor is gone.

    Returns:
        Name to :class:`LazyTensor`; each ``read()`` maps the file's pages.

    Raises:
        TensorFileError: If a file is missing, damaged, or not safetensors.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path, keep)
    index = path.with_name(path.name + INDEX_SUFFIX)
    if not path.exists() and index.exists():
        return _open_index(index, keep)
    return _open_one(path, keep)


def _open_index(path: Path, keep: bool) -> dict[str, LazyTensor]:
    check_readable(path)
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TensorFileError(f"{path}: is not an index of shards (no 'weight_map'); fetch it again") from None
    tensors: dict[str, LazyTensor] = {}
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise TensorFileError(f"{path}: names a shard outside its folder ({shard!r}); fetch it again")
        found = _open_one(path.parent / shard, keep)
        stray = [name for name in found if name not in weight_map]
        if stray:
            raise TensorFileError(f"{path}: does not name {len(stray)} tensors of {shard}, first {stray[0]!r}")
        tensors.update({name: found[name] for name in found if weight_map[name] == shard})
    lost = [name for name in weight_map if name not in tensors]
    if lost:
        raise TensorFileError(f"{path}: {len(lost)} tensors are not in their shards, first {lost[0]!r}")
    return tensors


class _Mapped:
    """One safetensors file, mapped; without ``keep`` it is mapped anew every so often, which lets its pages go."""

    def __init__(self, path: Path, keep: bool) -> None:
        from safetensors import safe_open

        self._map = lambda: safe_open(path, framework="pt", device="cpu")
        self.handle, self._keep, self._read = self._map(), keep, 0

    def read(self, name: str) -> Tensor:
        """The tensor of that name."""
        if not self._keep and self._read > RELEASE_BYTES:
            self.handle, self._read = self._map(), 0
        tensor = self.handle.get_tensor(name)
        self._read += tensor.numel() * tensor.element_size()
        return tensor


def _open_one(path: Path, keep: bool) -> dict[str, LazyTensor]:
    from safetensors import SafetensorError

    check_readable(path)
    _refuse_other_formats(path)
    try:
        file = _Mapped(path, keep)
        tensors: dict[str, LazyTensor] = {}
        for name in file.handle.keys():  # noqa: SIM118 (a safe_open handle is not a mapping)
            view = file.handle.get_slice(name)
            type_name = str(view.get_dtype())
            if type_name not in _TYPES:
                raise TensorFileError(f"{path}: {name!r} has the unsupported type {type_name}")
            shape = tuple(int(n) for n in view.get_shape())
            tensors[name] = LazyTensor(shape, _TYPES[type_name], lambda name=name: file.read(name))
    except SafetensorError as error:
        raise TensorFileError(f"{path}: damaged or not safetensors ({error}); fetch or copy it again") from None
    return tensors


def _refuse_other_formats(path: Path) -> None:
    if _looks_like_torch(path):
        raise TensorFileError(
            f"{path}: is a PyTorch (pickle) file, not safetensors; run 'uniaudio2 convert' on it first"
        )


def _looks_like_torch(path: Path) -> bool:
    """Zip, or a bare pickle of protocol 2 to 5. A safetensors header may begin with any byte but has ``{`` as ninth."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04":
        return True
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[8:9] != b"{"


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """All tensors of a safetensors file or of a PyTorch state dict, mapped from the file where possible.

    Args:
        path: A safetensors file (or index), or a PyTorch file that holds one flat mapping of names to tensors.

    Raises:
        TensorFileError: If the file is missing, damaged, unsafe, or holds something else.
    """
    path = Path(path)
    if path.exists() and is_torch_file(path):
        loaded = load_torch(path)
        if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise TensorFileError(f"{path}: does not hold a flat mapping of names to tensors")
        return {str(name): value for name, value in loaded.items()}
    return {name: tensor.read() for name, tensor in open_tensors(path).items()}


def is_torch_file(path: Path | str) -> bool:
    """Whether a file looks like what ``torch.save`` writes (zip, or the older bare pickle)."""
    check_readable(Path(path))
    return _looks_like_torch(Path(path))


def load_torch(path: Path | str) -> object:
    """Read a PyTorch file without running anything that it contains.

    Only tensors and plain containers are rebuilt (``weights_only=True``; a bare ``argparse.Namespace`` is let through,
    it is data). Tensors are mapped from the file unless it has the format of PyTorch before 1.6.

    Args:
        path: The file, for instance ``llm_ep3.checkpoint``.

    Returns:
        What was saved: usually a mapping.

    Raises:
        TensorFileError: If the file needs code to be rebuilt, is damaged, or is not a PyTorch file.
    """
    path = Path(path)
    if not is_torch_file(path):
        raise TensorFileError(f"{path}: is not a PyTorch file")
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _refuse_compression(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise TensorFileError(f"{path}: refused, {_why_unsafe(error)}") from None
    except Exception as error:  # a damaged file can fail anywhere in the reader; all of it means the same to the user
        logger.debug("cannot read %s", path, exc_info=True)
        problem = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise TensorFileError(f"{path}: damaged or not a PyTorch file ({problem}); fetch or copy it again") from None
    _check_tensors(loaded, path)
    return loaded


def _refuse_compression(path: Path) -> None:
    """``torch.save`` stores without compression: an archive that unpacks to more than its size was made to harm."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise TensorFileError(f"{path}: damaged archive ({error}); fetch or copy it again") from None
    if unpacked > path.stat().st_size:
        raise TensorFileError(f"{path}: refused, it would unpack to {unpacked} bytes; PyTorch does not compress files")


def _check_tensors(loaded: Any, path: Path) -> None:
    """Refuse tensors without plain values, and those that claim more values than the file has bytes (strides of 0)."""
    size = path.stat().st_size
    seen: set[int] = set()
    waiting = [loaded]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                raise TensorFileError(f"{path}: holds a sparse, quantised or meta tensor; save plain ones")
            if value.numel() * value.element_size() > size:
                raise TensorFileError(f"{path}: refused, a tensor {tuple(value.shape)} is larger than the file")
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set)):
            waiting += value


def _why_unsafe(error: pickle.UnpicklingError) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f" ({found[1]})" if found else ""
    return (
        f"because reading it would run code that it contains{what}. Where you trust its origin, open it there with "
        "PyTorch and save only the state dict again: torch.save(loaded['model'], NEW_FILE)"
    )


def save_tensors(
    path: Path | str,
    tensors: Mapping[str, Tensor | LazyTensor],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    apart: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write safetensors, one tensor in memory at a time; files appear whole or not at all.

    Args:
        path: The ``.safetensors`` file. When the tensors need more than ``max_shard_bytes``, files
            ``NAME-00001-of-0000N.safetensors`` and an index ``NAME.safetensors.index.json`` are written instead.
        tensors: Name to tensor; a :class:`LazyTensor` is read when its turn comes.
        metadata: Text entries for the header.
        max_shard_bytes: Largest file; one tensor is never split.
        apart: Tensor -> shard of its own (``NAME-shard.safetensors``), for tensors that come from elsewhere and whose
            file never changes. The index is written then.

    Returns:
        The files written.
    """
    path = Path(path)
    lazy = {name: t if isinstance(t, LazyTensor) else LazyTensor.of(t) for name, t in tensors.items()}
    apart = apart or {}
    shards = _split_shards({name: tensor for name, tensor in lazy.items() if name not in apart}, max_shard_bytes)
    index = path.with_name(path.name + INDEX_SUFFIX)
    if len(shards) == 1 and not apart:
        _write_one(path, lazy, metadata)
        if index.exists():
            _remove_shards(index)
        return [path]
    written, weight_map = [], {}
    named = {f"{number:05d}-of-{len(shards):05d}": names for number, names in enumerate(shards, 1)}
    named |= {label: [name for name in lazy if apart.get(name) == label] for label in sorted(set(apart.values()))}
    for label, names in named.items():
        shard = path.with_name(f"{path.stem}-{label}{path.suffix}")
        _write_one(shard, {name: lazy[name] for name in names}, metadata)
        weight_map.update(dict.fromkeys(names, shard.name))
        written.append(shard)
    total = sum(tensor.num_bytes for tensor in lazy.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1)
    _replace_with(index, lambda file: file.write(text.encode()))
    path.unlink(missing_ok=True)
    return [*written, index]


def _split_shards(tensors: Mapping[str, LazyTensor], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.num_bytes > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += tensor.num_bytes
    return shards


def _remove_shards(index: Path) -> None:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        names = set()
    index.unlink()
    for name in names:
        if isinstance(name, str) and Path(name).name == name:
            index.with_name(name).unlink(missing_ok=True)


def _write_one(path: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str] | None) -> None:
    """Write one safetensors file: header length (8 bytes), JSON header, values in the header's order."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # The reader wants every tensor aligned to its own item size, so wide types come first.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    position = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _TYPE_NAMES:
            raise TensorFileError(f"{path}: {name!r} has the type {tensor.dtype}, which safetensors cannot hold")
        end = position + tensor.num_bytes
        header[name] = {
            "dtype": _TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file: Any) -> None:
        """Header, then the values in the order of its offsets."""
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            _write_values(file, tensors[name], name)

    _replace_with(path, write)


def _write_values(file: Any, lazy: LazyTensor, name: str, chunk_values: int = 1 << 24) -> None:
    tensor = lazy.read().detach()
    if tuple(tensor.shape) != lazy.shape or tensor.dtype != lazy.dtype:
        raise TensorFileError(f"{name!r} was announced as {lazy} and came as {tuple(tensor.shape)} {tensor.dtype}")
    if tensor.numel() == 0:
        return
    if tensor.is_contiguous() and tensor.device.type == "cpu":
        flat = tensor.reshape(-1)
        for start in range(0, flat.numel(), chunk_values):
            file.write(flat[start : start + chunk_values].view(torch.uint8).numpy().data)
    else:
        file.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _replace_with(path: Path, write: Callable[[Any], Any]) -> None:
    try:
        with replacing(path) as file:
            write(file)
    except OSError as error:
        raise TensorFileError(f"{path}: cannot be written ({error.strerror or error})") from None


def summarise(names: Iterable[str], shown: int = 4) -> str:
    """The first few of many names, with how many more there are."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
