"""Where a sound file really ends: views of files whose headers say less than they hold.

libsndfile takes the header's length for the end of the data. Streamed WAV files, variable-rate MP3 files without a
table of contents and chained Ogg files say too little; here they are found, and read through a corrected header.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

Piece = bytes | tuple[int, int]
"""Bytes as they are, or (first, one past the last) byte of the file."""

STREAMED_SIZES = (0, 0xFFFFFFFF, 0x7FFFF000)
"""What programs write for the size of data whose end they do not know."""

_MPEG_BITRATES = {  # kbit/s by (version 1?, layer)
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
}
_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class Spliced(io.RawIOBase):
    """A read-only file made of pieces: bytes of one's own, and stretches of another file."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file, self._pieces = file, pieces
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self._starts = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
        self._at = 0

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one piece reaches."""
        for piece, start, stop in zip(self._pieces, self._starts, self._starts[1:], strict=False):
            if start <= self._at < stop:
                size, offset = min(len(buffer), stop - self._at), self._at - start
                if isinstance(piece, bytes):
                    data = piece[offset : offset + size]
                else:
                    self._file.seek(piece[0] + offset)
                    data = self._file.read(size)
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
        return 0


def layout(file: BinaryIO) -> list[list[Piece]]:
    """How to read a file to its real end: the streams in it, each as pieces that a `Spliced` file is made of.

    Args:
        file: Open for reading, seekable, with a file descriptor; its position is of no account.

    Returns:
        Empty where the file is to be read as it is.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _wav_layout(file)
    if head[:4] == b"OggS":
        return _ogg_layout(file)
    return _mpeg_layout(file)


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _wav_layout(file: BinaryIO) -> list[list[Piece]]:
    """A streamed WAV file with the true size of its data, if its header does not say it."""
    end, at = _size(file), 12
    while at + 8 <= end:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        first = at + 8
        if name == b"data":
            if size not in STREAMED_SIZES or first >= end or (size == 0 and _is_chunk(file, first, end)):
                return []
            length = min(end - first, 0xFFFFFFFF - first)
            header = struct.pack("<4sI4s", b"RIFF", first - 8 + length, b"WAVE")
            return [[header, (12, at + 4), struct.pack("<I", length), (first, first + length)]]
        at = first + size + size % 2
    return []


def _is_chunk(file: BinaryIO, at: int, end: int) -> bool:
    """Whether what follows empty data is another chunk that fits the file, such as a list of tags."""
    file.seek(at)
    head = file.read(8)
    return len(head) == 8 and head[:4].isalnum() and at + 8 + struct.unpack("<I", head[4:])[0] <= end


def _ogg_layout(file: BinaryIO) -> list[list[Piece]]:
    """The links of a chained Ogg file, one after another, if there are several."""
    end, at = _size(file), 0
    starts: list[int] = []
    in_headers = False
    while at + 27 <= end:
        file.seek(at)
        head = file.read(27)
        if head[:4] != b"OggS":
            break
        begins = bool(head[5] & 2)
        if begins and not in_headers:
            starts.append(at)
        in_headers = begins  # several streams of one link begin on consecutive pages
        at += 27 + head[26] + sum(file.read(head[26]))
    if len(starts) < 2:
        return []
    return [[(first, last)] for first, last in zip(starts, [*starts[1:], end], strict=True)]


def _mpeg_layout(file: BinaryIO) -> list[list[Piece]]:
    """An MP3 file behind a frame that says how many frames it has, if its own first frame does not.

    Source: the "Xing" header of variable-rate files, which decoders of MP3 read.
    """
    end, first = _size(file), _after_tags(file)
    if first >= end:
        return []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _mpeg_frame(data, first)
        if start is None or start[1] != 3:
            return []
        told = _told_frames(data[first : first + start[0]])
        at, frames = first, 0
        while (frame := _mpeg_frame(data, at)) is not None:
            frames += 1
            at += frame[0]
        if frames < 2:  # a chance likeness, or a file that one frame tells all about
            return []
        if told is not None:
            first, frames = first + start[0], frames - 1
        return [] if frames == told else [[_xing_frame(data[first : first + 4], frames), (first, end)]]


def _after_tags(file: BinaryIO) -> int:
    """First byte behind an ID3 tag."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _mpeg_frame(data: bytes | mmap.mmap, at: int) -> tuple[int, int] | None:
    """Bytes and layer of the MPEG audio frame that begins here; None if none does."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    rate_index, bit_index = data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or layer == 4 or rate_index == 3 or bit_index in (0, 15):
        return None
    bits = 1000 * _MPEG_BITRATES[version == 3, layer][bit_index - 1]
    rate, padding = _MPEG_RATES[version][rate_index], data[at + 2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate + padding) * 4, layer
    slots = 72 if layer == 3 and version != 3 else 144
    return slots * bits // rate + padding, layer


def _side_bytes(head: bytes) -> int:
    """Bytes between a frame's header and its Xing header."""
    mono = head[3] >> 6 == 3
    return (17 if mono else 32) if head[1] >> 3 & 3 == 3 else (9 if mono else 17)


def _told_frames(frame: bytes) -> int | None:
    """Frames that a file's first frame says will follow; 0 where it says nothing; None if it holds sound."""
    place = 4 + _side_bytes(frame)
    if frame[place : place + 4] in (b"Xing", b"Info"):
        has_frames = frame[place + 7] & 1
        return int.from_bytes(frame[place + 8 : place + 12], "big") if has_frames else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _xing_frame(head: bytes, frames: int) -> bytes:
    """A silent frame of the kind that ``head`` begins, whose Xing header says how many follow."""
    place = 4 + _side_bytes(head)
    body = struct.pack(">4sII", b"Xing", 1, frames)
    for bits in range(1, 15):  # the lowest bit rate at which all fits
        # 0x01: no checksum
        begin = bytes((head[0], head[1] | 1, bits << 4 | head[2] & 0x0C, head[3]))
        frame = _mpeg_frame(begin, 0)
        if frame is not None and frame[0] >= place + len(body):
            return begin + bytes(place - 4) + body + bytes(frame[0] - place - len(body))
    raise AssertionError("every kind of frame holds a Xing header at its highest bit rate")
