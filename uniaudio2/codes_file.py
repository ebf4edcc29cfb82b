"""Files of codes: one safetensors file with the streams of a clip, or the published pair of files.

Knows tensors by name; what they mean is the business of `uniaudio2.codes`. Nothing in a file is ever run.

Shapes: ``B`` batch, ``K`` codebooks, ``T`` frames of a stream.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.files import replacing
from uniaudio2.tensors import TensorFileError, load_torch

PUBLISHED_ENDINGS = {"reasoning": "_reason.pt", "reconstruction": "_semantic.pt"}
"""How the published files of the two streams are called."""

_FORMAT = "uniaudio2-codes"
_VERSION = "1"


class CodesError(UserError):
    """Codes or a file of codes that cannot be used."""


@dataclass(frozen=True)
class StoredCodes:
    """What a file of codes holds."""

    streams: dict[str, Tensor]  # name -> (B, K, T) int64
    num_samples: int | None = None
    hops: dict[str, int] | None = None  # samples per frame; None: the two streams of the ReasoningCodec
    sample_rate: int | None = None  # Hz; None: that of the ReasoningCodec


def codes_bytes(codes: StoredCodes) -> bytes:
    """A safetensors file, 16-bit integers where they suffice."""
    about = {"format": _FORMAT, "version": _VERSION, "num_samples": json.dumps(codes.num_samples)}
    if codes.hops is not None:
        about |= {"hops": json.dumps(codes.hops), "sample_rate": json.dumps(codes.sample_rate)}
    return save({name: _smallest(stream) for name, stream in codes.streams.items()}, metadata=about)


def write_codes(path: Path, codes: StoredCodes) -> None:
    """Write what `codes_bytes` gives; complete or not at all.

    Raises:
        CodesError: If it cannot be written.
    """
    _write(path, codes_bytes(codes))


def read_codes(path: Path) -> StoredCodes:
    """Read what `write_codes` wrote.

    Raises:
        CodesError: If the file is missing, damaged or holds something else.
    """
    if not path.is_file():
        what = "is a folder, not a file of codes" if path.is_dir() else "is not a regular file"
        raise CodesError(f"{path}: {what if path.exists() else 'no such file'}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            names = set(file.keys())
            hops, sample_rate = _rates(about, names, path)
            streams = {name: file.get_tensor(name) for name in hops or PUBLISHED_ENDINGS}
    except SafetensorError as error:
        hint = f"; the published pair is named NAME{' and NAME'.join(PUBLISHED_ENDINGS.values())}"
        hint = hint if path.suffix == ".pt" else ""
        raise CodesError(f"{path}: not a readable safetensors file ({error}){hint}") from None
    except OSError as error:
        raise CodesError(f"{path}: cannot be read ({error.strerror or error})") from None
    num_samples = _read_json(about.get("num_samples", "null"))
    if num_samples is not None and type(num_samples) is not int:
        num_samples = -1
    for name, codes in streams.items():
        _check_integers(codes, f"{path}: {name} codes")
    return StoredCodes({name: codes.long() for name, codes in streams.items()}, num_samples, hops, sample_rate)


def write_pair(pair: Mapping[str, Path], streams: Mapping[str, Tensor]) -> None:
    """Write the published pair of one clip.

    Raises:
        CodesError: If there are several clips, or other streams.
    """
    first = pair["reasoning"]
    if streams.keys() != pair.keys():
        raise CodesError(
            f"{first}: the published files hold the streams {' and '.join(pair)}, these codes have "
            f"{', '.join(streams)}; give a name that ends in .safetensors"
        )
    clips = len(streams["reasoning"])
    if clips != 1:
        raise CodesError(f"{first}: the published files hold one clip, got {clips}; save each apart")
    for name, path in pair.items():
        data = io.BytesIO()
        torch.save(streams[name][0].cpu().clone(), data)
        _write(path, data.getvalue())


def read_pair(pair: Mapping[str, Path]) -> StoredCodes:
    """Read the published pair of one clip.

    Raises:
        CodesError: If a file is missing, damaged, unsafe or holds something else.
    """
    streams = {name: _read_published(path) for name, path in pair.items()}
    books = {name: stream.shape[0] for name, stream in streams.items()}
    if len(set(books.values())) > 1:
        raise CodesError(
            f"{pair['reasoning']}: has {books['reasoning']} codebooks and {pair['reconstruction'].name} "
            f"{books['reconstruction']}; both must be (codebooks, frames) of one recording"
        )
    return StoredCodes({name: stream[None] for name, stream in streams.items()})


def _rates(about: Mapping[str, str], names: set[str], path: Path) -> tuple[dict[str, int] | None, int | None]:
    """Samples per frame of the streams of a file, and the sample rate; files of the ReasoningCodec do not tell them."""
    hops = _read_json(about["hops"]) if "hops" in about else None
    wanted = set(hops) if isinstance(hops, dict) else set(PUBLISHED_ENDINGS) if hops is None else None
    if about.get("format") != _FORMAT or names != wanted:
        raise CodesError(f"{path}: holds no audio codes; make them with 'uniaudio2 encode'")
    if about.get("version") != _VERSION:
        raise CodesError(f"{path}: written in version {about.get('version')}, this program reads {_VERSION}")
    if not isinstance(hops, dict):
        return None, None
    rate = _read_json(about.get("sample_rate", ""))
    if not isinstance(rate, int) or not all(type(number) is int and number > 0 for number in (*hops.values(), rate)):
        raise CodesError(f"{path}: its rates are damaged; make the codes anew with 'uniaudio2 encode'")
    return hops, rate


def _read_json(text: str) -> object:
    """The value that is written, or the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def published_pair(path: str | Path) -> dict[str, Path] | None:
    """The two published files that belong to ``NAME_reason.pt`` or ``NAME_semantic.pt``, by stream.

    Returns:
        ``reasoning`` and ``reconstruction``; None if the name has neither ending.
    """
    path = Path(path)
    for ending in PUBLISHED_ENDINGS.values():
        if path.name.endswith(ending):
            stem = path.name.removesuffix(ending)
            return {name: path.with_name(stem + ending) for name, ending in PUBLISHED_ENDINGS.items()}
    return None


def _read_published(path: Path) -> Tensor:
    """One published file: an integer tensor (K, T), or (1, K, T) with the batch axis left in.

    Source: ARCHITECTURE section 4.3; the semantic file is without the language model's offset.
    """
    try:
        codes = load_torch(path)
    except TensorFileError as error:
        raise CodesError(str(error)) from None
    if not isinstance(codes, Tensor):
        found = "nothing" if codes is None else type(codes).__name__
        raise CodesError(f"{path}: must hold one tensor of codes, found {found}")
    _check_integers(codes, f"{path}: codes")
    if codes.ndim == 3 and codes.shape[0] == 1:
        codes = codes[0]
    if codes.ndim != 2 or not codes.numel():
        raise CodesError(f"{path}: codes must be (codebooks, frames), got {tuple(codes.shape)}")
    return codes.long().contiguous()


def _check_integers(codes: Tensor, what: str) -> None:
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise CodesError(f"{what} must be integers, got {codes.dtype}")


def _smallest(codes: Tensor) -> Tensor:
    """Codes as int16 where they fit, else int32 or int64: most codebooks have at most 32768 entries."""
    largest = int(codes.max()) if codes.numel() else 0
    for dtype in (torch.int16, torch.int32):
        if largest <= torch.iinfo(dtype).max:
            return codes.to("cpu", dtype).contiguous()
    return codes.cpu().contiguous()


def _write(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, then rename."""
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise CodesError(f"{path}: cannot be written ({error.strerror})") from None
