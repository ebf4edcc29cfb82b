"""Fast access to the clips of a synthesised corpus: shards are memory-mapped, a clip is one slice.

Shape: ``N`` samples. Knows nothing about models or batches.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniaudio2.audio import SAMPLE_RATE, AudioError, read_audio
from uniaudio2.data.manifest import Example, read_manifest


class Corpus:
    """The clips of one manifest, or of several one after the other.

    16-bit mono 24 kHz WAV files are mapped into memory and shared between processes; any other audio file is read
    and resampled at each access. Objects can be pickled (the maps are opened again on the other side).

    Args:
        folder: Folder with a ``manifest.jsonl``, or the manifest itself; several of them separated by commas.
        split: Keep only this split; None keeps all.
        keep: Further choice, called with every example.

    Raises:
        ManifestError: If the manifest is missing or wrong.
    """

    def __init__(
        self, folder: str | Path, split: str | None = None, *, keep: Callable[[Example], bool] | None = None
    ) -> None:
        folders = [part.strip() for part in str(folder).split(",")]
        self.examples: list[Example] = [
            e for part in folders for e in read_manifest(part, split=split) if keep is None or keep(e)
        ]
        self._maps: dict[Path, NDArray[np.int16] | None] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def wave(
        self, index: int, audio: str | None = None, *, start_s: float = 0.0, duration_s: float | None = None
    ) -> NDArray[np.float32]:
        """Samples of an audio, or of a part of it.

        Args:
            index: Place in ``examples``.
            audio: Name of one of its audios; None: the first.
            start_s: Where to start inside the clip, seconds.
            duration_s: How much, seconds; None goes on to the clip's end, and never beyond it.

        Returns:
            Samples in [-1, 1], (N,), float32, a fresh array.

        Raises:
            AudioError: If the file is missing or damaged, or the part is empty.
        """
        example = self.examples[index]
        recording = example.first if audio is None else example.recordings[audio]
        length_s = recording.duration - start_s
        if duration_s is not None:
            length_s = min(length_s, duration_s)
        if start_s < 0 or length_s <= 0:
            raise AudioError(f"{example.id}: no audio from {start_s:.2f} s on (it is {recording.duration:.2f} s long)")
        file = example.root / recording.path
        samples = self._map(file)
        if samples is None:
            return read_audio(file, SAMPLE_RATE, recording.start + start_s, length_s)[0].numpy()
        first = round((recording.start + start_s) * SAMPLE_RATE)
        part = samples[first : first + round(length_s * SAMPLE_RATE)]
        if part.size == 0:
            raise AudioError(f"{example.id}: {file} ends before the clip starts; make the corpus again")
        return part.astype(np.float32) / 32768.0

    def _map(self, path: Path) -> NDArray[np.int16] | None:
        if path not in self._maps:
            self._maps[path] = _map_wav(path)
        return self._maps[path]


def _map_wav(path: Path) -> NDArray[np.int16] | None:
    """Map a 16-bit mono 24 kHz WAV file; None for any other kind of file."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
                return None
            plain = False
            while True:
                header = file.read(8)
                if len(header) < 8:
                    return None
                name, size = struct.unpack("<4sI", header)
                if name == b"data":
                    offset = file.tell()
                    break
                body = file.read(size + size % 2)
                if name == b"fmt ":
                    plain = struct.unpack("<HHI", body[:8]) == (1, 1, SAMPLE_RATE) and body[14:16] == b"\x10\x00"
            if not plain:
                return None
            count = min(size, path.stat().st_size - offset) // 2
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror}); make the corpus again") from error
    if count == 0:
        return None
    return np.memmap(path, dtype="<i2", mode="r", offset=offset, shape=(count,))
