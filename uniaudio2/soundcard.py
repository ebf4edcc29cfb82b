"""Microphone and loudspeakers, by sounddevice (PortAudio).

Shapes: ``N`` samples at 24 kHz.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.errors import MissingPackageError, UserError

BLOCK = SAMPLE_RATE // 10  # samples that a microphone hands over at once


def sound_library() -> ModuleType:
    """The package sounddevice.

    Raises:
        UserError: If it is missing, or the library behind it.
    """
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise MissingPackageError("a microphone needs sounddevice: pip install 'uniaudio2[mic]'") from None
    except OSError as error:
        raise UserError(
            f"sounddevice cannot work ({error}): install PortAudio, such as apt install libportaudio2"
        ) from None
    return sounddevice


class Microphone:
    """What a microphone hears, chunk by chunk; to be used in a ``with`` statement.

    Args:
        device: Name or number of the device; None is the system's choice.

    Raises:
        UserError: If there is no such microphone.
    """

    def __init__(self, device: str | int | None = None) -> None:
        self._chunks: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
        library = sound_library()
        try:
            self._stream = library.InputStream(
                samplerate=SAMPLE_RATE, channels=1, dtype="float32", blocksize=BLOCK, device=device,
                callback=self._take, finished_callback=lambda: self._chunks.put(None),
            )  # fmt: skip
        except (library.PortAudioError, ValueError) as error:
            raise UserError(f"the microphone cannot be used ({error}): choose one with --device-in") from None

    def _take(self, samples: np.ndarray[Any, Any], *_: object) -> None:
        """Called by the sound library's thread; its array (n, 1) is used again afterwards."""
        self._chunks.put(torch.from_numpy(samples[:, 0].copy()))

    def __enter__(self) -> Microphone:
        self._stream.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks (N,) until the device is gone."""
        while (chunk := self._chunks.get()) is not None:
            yield chunk

    def forget(self) -> None:
        """Drop what was heard and not taken yet, such as one's own voice."""
        gone = False
        while not self._chunks.empty():
            gone |= self._chunks.get() is None
        if gone:
            self._chunks.put(None)


def play(pieces: Iterable[Tensor], device: str | int | None = None) -> None:
    """Play waveforms (1, N) while they are made; returns when all is heard.

    Raises:
        UserError: If there is no such loudspeaker.
    """
    library = sound_library()
    try:
        speaker = library.OutputStream(samplerate=SAMPLE_RATE, channels=1, dtype="float32", device=device)
    except (library.PortAudioError, ValueError) as error:
        raise UserError(f"the loudspeaker cannot be used ({error}): choose one with --device-out") from None
    with speaker:
        for piece in pieces:
            speaker.write(np.ascontiguousarray(piece.numpy().T))
