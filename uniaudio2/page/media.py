"""Sounds and their pictures as files beside the page.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import base64
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, read_audio, write_audio
from uniaudio2.codec.mel import LogMel
from uniaudio2.files import replacing
from uniaudio2.page.record import Piece

FOLDER = "media"
HOP = 240  # samples between the columns of a picture
MOST_COLUMNS = 480
SHADES = 64


class Media:
    """Writes sounds and pictures into the page's folder.

    Args:
        folder: Of the page.
        suffix: Of sounds: ``.flac``, or ``.wav``.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix

    def sound(self, role: str, name: str, file_name: str, audio: Tensor) -> Piece:
        """Write a waveform (1, N) and its picture.

        Raises:
            AudioError: If it cannot be written.
        """
        file, picture = f"{FOLDER}/{file_name}{self.suffix}", f"{FOLDER}/{file_name}.png"
        write_audio(self.folder / file, audio)
        spectrogram_png(audio, self.folder / picture)
        return Piece(role, name, file=file, picture=picture, duration_s=audio.shape[-1] / SAMPLE_RATE)


def spectrogram_png(audio: Tensor, path: Path) -> None:
    """Write the log-mel spectrogram of a waveform (1, N) as a PNG of 80 rows, low frequencies at the bottom."""
    from matplotlib import colormaps

    padded = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % HOP))
    mel = LogMel(80, hop_length=HOP)(padded[None])[0].T  # (bands, columns)
    if mel.shape[1] > MOST_COLUMNS:
        mel = torch.nn.functional.adaptive_avg_pool1d(mel, MOST_COLUMNS)
    low, high = -1.7, 1.1  # quiet room to loud speech, the same for all pictures so that they compare
    shades = (((mel - low) / (high - low)).clamp(0, 1) * (SHADES - 1)).round().flip(0).to(torch.uint8).numpy()
    palette = (colormaps["magma"](np.linspace(0, 1, SHADES))[:, :3] * 255).round().astype(np.uint8)
    with replacing(path) as file:
        file.write(_png(shades, palette))


def _png(shades: np.ndarray, palette: np.ndarray) -> bytes:
    """A picture of palette indices (rows, columns) with colours (n, 3), both uint8. Source: RFC 2083."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        """Length, kind, data and checksum."""
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows, columns = shades.shape
    head = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits of a palette, not interlaced
    lines = np.pad(shades, ((0, 0), (1, 0)))  # each row begins with its filter: none
    body = chunk(b"IHDR", head) + chunk(b"PLTE", palette.tobytes()) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def embedded(path: Path) -> str:
    """A picture, or a sound as mp3 (which every browser plays, an eighth of its size), as an address with all in it."""
    if path.suffix == ".png":
        return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp3"
        write_audio(file, read_audio(path))
        return f"data:audio/mpeg;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
