"""Codes of a clip: the two streams that the codec makes of audio, their rates and lengths, and their file.

Codes are raw codebook indices. Tokens (with the language model's offsets) are made of them elsewhere.

Shapes: ``B`` batch, ``N`` audio samples, ``K`` codebooks, ``T_rea`` 5 Hz frames, ``T_rec`` 12.5 Hz frames.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

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

_FORMAT = "uniaudio2-codes"
_VERSION = 1


class CodesError(ValueError):
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
        """Write a safetensors file (16-bit integers where they suffice); complete or not at all.

        Raises:
            CodesError: If the file cannot be written.
        """
        tensors = {name: _smallest(getattr(self, name)) for name in ("reasoning", "reconstruction")}
        about = {"format": _FORMAT, "version": str(_VERSION), "num_samples": json.dumps(self.num_samples)}
        _write_atomically(Path(path), save(tensors, metadata=about))

    @classmethod
    def load(cls, path: str | Path) -> AudioCodes:
        """Read a file that :meth:`save` wrote.

        Raises:
            CodesError: If the file is missing, damaged or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise CodesError(f"{path}: " + ("is a folder, not a file of codes" if path.is_dir() else "no such file"))
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
            raise CodesError(f"{path}: not a readable safetensors file ({error})") from None
        except OSError as error:
            raise CodesError(f"{path}: cannot be read ({error.strerror or error})") from None
        try:
            num_samples = json.loads(about.get("num_samples", "null"))
        except json.JSONDecodeError:
            num_samples = -1
        if num_samples is not None and (not isinstance(num_samples, int) or isinstance(num_samples, bool)):
            num_samples = -1
        for name, codes in tensors.items():
            if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
                raise CodesError(f"{path}: {name} codes must be integers, got {codes.dtype}")
        try:
            return cls(tensors["reasoning"].long(), tensors["reconstruction"].long(), num_samples)
        except CodesError as error:
            raise CodesError(f"{path}: {error}") from None


def _smallest(codes: Tensor) -> Tensor:
    """Codes as int16 where they fit, else int32 or int64: most codebooks have at most 32768 entries."""
    largest = int(codes.max()) if codes.numel() else 0
    for dtype in (torch.int16, torch.int32):
        if largest <= torch.iinfo(dtype).max:
            return codes.to("cpu", dtype).contiguous()
    return codes.cpu().contiguous()


def _write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, then rename."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise CodesError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
