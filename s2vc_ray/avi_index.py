"""An AVI whose index does not describe its chunks, read as if it had none.

FFmpeg believes an AVI's index even where it reads from beginning to end: it looks up where chunks begin, or how long
they are, and decodes what it finds there. The chunks say themselves what they are. So some entries are held against
them, and where they differ the index is hidden from FFmpeg, which then goes by the chunks alone. It must not know GOPs.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import BinaryIO, cast

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from s2vc_ray.source_io import Source, bytes_of

_LOOKED_AT = 64
"""Entries of an index that are held against their chunks. One that lies does so throughout."""

_MOST_CHUNKS = 256
_LISTS = (b"hdrl", b"strl")
_NAMES = (b"idx1", b"indx")
_HIDDEN = b"JUNK"


def index_lies(container: InputContainer, stream: VideoStream, file: BinaryIO) -> bool:
    """Whether the index of an AVI says of some chunk of ``stream`` what that does not say of itself, or has chunks in
    another order than the file. ``file`` is left where it stands.

    False for other formats, and of what lies beyond the end of a file that was cut short.
    """
    if container.format.name != "avi" or not len(stream.index_entries):
        return False
    name, at = b"%02d" % stream.index, file.tell()
    table = [(entry.pos, entry.size) for entry in stream.index_entries]
    if table[0][0] < 0 or any(later < earlier for (earlier, _), (later, _) in pairwise(table)):
        return True
    try:
        end = file.seek(0, os.SEEK_END)
        for number in sorted({*np.linspace(0, len(table) - 1, _LOOKED_AT, dtype=int).tolist()}):
            place, size = table[number]
            file.seek(place)
            head = file.read(8)
            if place + 8 <= end and (head[:2], int.from_bytes(head[4:], "little")) != (name, size):
                return True
        return False
    finally:
        file.seek(at)


@contextmanager
def without_index(source: Source) -> Iterator[BinaryIO]:
    """The bytes of an AVI with its indexes renamed. A file object stays the caller's."""
    with bytes_of(source) as file:
        at = file.tell()
        places = dict.fromkeys(_indexes(file), _HIDDEN)
        file.seek(at)
        yield cast("BinaryIO", io.BufferedReader(_Renamed(file, places)))
        file.seek(at)


def _indexes(file: BinaryIO) -> Iterator[int]:
    """Where the names of an AVI's index chunks lie: among what is said of its streams, and behind its pictures."""
    end = file.seek(0, os.SEEK_END)
    yield from (place for name, place in _chunks(file, 12, end) if name in _NAMES)


def _chunks(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int]]:
    """(name, place) of the chunks in a range of a RIFF file, and of those in lists about streams."""
    for _ in range(_MOST_CHUNKS):
        file.seek(begin)
        head = file.read(12)
        if len(head) < 8 or begin + 8 > end:
            return
        yield head[:4], begin
        following = begin + 8 + int.from_bytes(head[4:8], "little")
        if head[:4] == b"LIST" and head[8:] in _LISTS:
            yield from _chunks(file, begin + 12, min(following, end))
        begin = following + following % 2


class _Renamed(io.RawIOBase):
    """``file`` with other bytes at some places; reading it moves ``file``."""

    def __init__(self, file: BinaryIO, places: Mapping[int, bytes]) -> None:
        self._file = file
        self._places = places

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As the file's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As the file's."""
        return self._file.tell()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Bytes of the file, at most as many as ``buffer`` has."""
        begin = self._file.tell()
        data = bytearray(self._file.read(len(buffer)))
        for place, other in self._places.items():
            low, high = max(place, begin), min(place + len(other), begin + len(data))
            if low < high:
                data[low - begin : high - begin] = other[low - place : high - place]
        buffer[: len(data)] = data
        return len(data)
