"""Codes of a clip: the two streams that the codec makes of audio, their rates and lengths, and their files.

Codes are raw codebook indices. Tokens (with the language model's offsets) are made of them elsewhere. A file is one
safetensors file, or the published pair ``NAME_reason.pt`` and ``NAME_semantic.pt`` beside it.

Shapes: ``B`` batch, ``N`` audio samples, ``K`` codebooks, ``T_rea`` 5 Hz frames, ``T_rec`` 12.5 Hz frames.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.files import replacing
from uniaudio2.tensors import TensorFileError, load_torch

SAMPLE_RATE = 24_000
"""Hz."""
REASONING_RATE_HZ = 5.0
RECONSTRUCTION_RATE_HZ = 12.5
LATENT_RATE_HZ = 25.0
REASONING_HOP = round(SAMPLE_RATE / REASONING_RATE_HZ)
"""Samples per reasoning frame, 4800."""
RECONSTRUCTION_HOP = round(SAMPLE_RATE / RECONSTRUCTION_RATE_HZ)
"""Samples per reconstruction frame, 1920."""
LATENT_HOP = round(SAMPLE_RATE / LATENT_RATE_HZ)
"""Samples per latent frame, 960."""
UNIT = 9600
"""Samples of an encoding unit, 0.4 s: the least common multiple of the hops (2, 5 and 10 frames)."""

PUBLISHED_ENDINGS = {"reasoning": "_reason.pt", "reconstruction": "_semantic.pt"}
"""How the published files of the two streams are called."""

_FORMAT = "uniaudio2-codes"
_VERSION = 1


class CodesError(UserError):
    """Codes or a file of codes that cannot be used."""


def reasoning_length(num_samples: int) -> int:
    """Reasoning frames of ``num_samples`` (>= 1) samples.

    Released weights: this order of float operations, which leaves out the frame that would begin at the very end for
    some of the lengths that are whole numbers of frames.
    """
    return min(int(num_samples / SAMPLE_RATE * REASONING_RATE_HZ) + 1, 2 * num_units(num_samples))


def reconstruction_length(num_samples: int) -> int:
    """Reconstruction frames of ``num_samples`` (>= 1) samples. See :func:`reasoning_length`."""
    return min(int(num_samples / SAMPLE_RATE * RECONSTRUCTION_RATE_HZ) + 1, 5 * num_units(num_samples))


def num_units(num_samples: int) -> int:
    """Encoding units of 0.4 s that cover ``num_samples`` samples."""
    return -(-num_samples // UNIT)


@dataclass(frozen=True)
class AudioCodes:
    """Both code streams of one or several clips of equal length.

    Raises:
        CodesError: If a stream is not (B, K, T) int64, if B differs, or if ``num_samples`` does not fit.
    """

    reasoning: Tensor  # (B, K, T_rea) int64, 5 Hz
    reconstruction: Tensor  # (B, K, T_rec) int64, 12.5 Hz
    num_samples: int | None = None  # samples of the clip at 24 kHz; None means as many as the codes cover

    def __post_init__(self) -> None:
        for name in ("reasoning", "reconstruction"):
            codes = getattr(self, name)
            if not isinstance(codes, Tensor) or codes.dim() != 3:
                shape = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
                raise CodesError(f"{name} codes must be a tensor (B, K, T), got {shape}")
            if codes.dtype != torch.int64:
                raise CodesError(f"{name} codes must be int64, got {codes.dtype}")
            if codes.numel() and codes.device.type != "meta" and int(codes.min()) < 0:
                raise CodesError(f"{name} codes must not be negative, got {int(codes.min())}")
        if self.reasoning.shape[0] != self.reconstruction.shape[0]:
            raise CodesError(
                f"both streams must have the same batch size, got {self.reasoning.shape[0]} and "
                f"{self.reconstruction.shape[0]}"
            )
        if self.num_samples is not None:
            covered = self.reconstruction.shape[2] * RECONSTRUCTION_HOP
            if not 0 <= self.num_samples <= covered:
                raise CodesError(f"num_samples must lie in 0..{covered} for these codes, got {self.num_samples}")

    def __len__(self) -> int:
        return self.reasoning.shape[0]

    def __getitem__(self, index: int) -> AudioCodes:
        """The codes of one clip, batch size 1."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        index %= len(self)
        return AudioCodes(self.reasoning[index : index + 1], self.reconstruction[index : index + 1], self.num_samples)

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        if self.num_samples is not None:
            return self.num_samples / SAMPLE_RATE
        return self.reconstruction.shape[2] / RECONSTRUCTION_RATE_HZ

    def to(self, device: torch.device | str) -> AudioCodes:
        """The same codes on another device."""
        return AudioCodes(self.reasoning.to(device), self.reconstruction.to(device), self.num_samples)

    def save(self, path: str | Path) -> None:
        """Write a file; complete or not at all.

        Args:
            path: ``NAME_reason.pt`` or ``NAME_semantic.pt`` writes the published pair, which does not keep the number
                of samples; any other name a safetensors file (16-bit integers where they suffice).

        Raises:
            CodesError: If the file cannot be written, or the pair is asked for several clips.
        """
        pair = published_pair(path)
        if pair is not None:
            self._save_published(pair)
            return
        tensors = {name: _smallest(getattr(self, name)) for name in ("reasoning", "reconstruction")}
        about = {"format": _FORMAT, "version": str(_VERSION), "num_samples": json.dumps(self.num_samples)}
        _write_atomically(Path(path), save(tensors, metadata=about))

    @classmethod
    def load(cls, path: str | Path) -> AudioCodes:
        """Read a file that :meth:`save` wrote, or the published pair by the name of either file.

        Nothing in a file is ever run.

        Raises:
            CodesError: If a file is missing, damaged, unsafe or holds something else.
        """
        path = Path(path)
        pair = published_pair(path)
        if pair is not None:
            return cls._load_published(pair)
        if not path.is_file():
            what = "is a folder, not a file of codes" if path.is_dir() else "is not a regular file"
            raise CodesError(f"{path}: {what if path.exists() else 'no such file'}")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                names = set(file.keys())
                if about.get("format") != _FORMAT or names != {"reasoning", "reconstruction"}:
                    raise CodesError(f"{path}: holds no audio codes; make them with 'uniaudio2 encode'")
                if about.get("version") != str(_VERSION):
                    raise CodesError(
                        f"{path}: written in version {about.get('version')}, this program reads {_VERSION}"
                    )
                tensors = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            hint = f"; the published pair is named NAME{' and NAME'.join(PUBLISHED_ENDINGS.values())}"
            hint = hint if path.suffix == ".pt" else ""
            raise CodesError(f"{path}: not a readable safetensors file ({error}){hint}") from None
        except OSError as error:
            raise CodesError(f"{path}: cannot be read ({error.strerror or error})") from None
        try:
            num_samples = json.loads(about.get("num_samples", "null"))
        except (ValueError, RecursionError):
            num_samples = -1
        if num_samples is not None and (not isinstance(num_samples, int) or isinstance(num_samples, bool)):
            num_samples = -1
        for name, codes in tensors.items():
            _check_integers(codes, f"{path}: {name} codes")
        try:
            return cls(tensors["reasoning"].long(), tensors["reconstruction"].long(), num_samples)
        except CodesError as error:
            raise CodesError(f"{path}: {error}") from None

    def _save_published(self, pair: dict[str, Path]) -> None:
        if len(self) != 1:
            raise CodesError(
                f"{pair['reasoning']}: the published files hold one clip, got {len(self)}; save each apart"
            )
        for name, path in pair.items():
            data = io.BytesIO()
            torch.save(getattr(self, name)[0].cpu().clone(), data)
            _write_atomically(path, data.getvalue())

    @classmethod
    def _load_published(cls, pair: dict[str, Path]) -> AudioCodes:
        streams = {name: _read_published(path) for name, path in pair.items()}
        reasoning, reconstruction = streams["reasoning"], streams["reconstruction"]
        path, other = pair["reasoning"], pair["reconstruction"]
        if reasoning.shape[0] != reconstruction.shape[0]:
            raise CodesError(
                f"{path}: has {reasoning.shape[0]} codebooks and {other.name} {reconstruction.shape[0]}; "
                "both must be (codebooks, frames) of one recording"
            )
        try:
            return cls(reasoning[None], reconstruction[None])
        except CodesError as error:
            raise CodesError(f"{path}: {error}") from None


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


def _write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, then rename."""
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise CodesError(f"{path}: cannot be written ({error.strerror})") from None
