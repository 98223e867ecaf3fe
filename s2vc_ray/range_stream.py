"""A seekable stream over ranged reads, for stores that only know those. Knows no store."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, Protocol

_READ_AHEAD = 1 << 20


class RangeReader(Protocol):
    """Reads bytes ``start..end`` (exclusive) of one object."""

    def __call__(self, start: int, end: int) -> bytes:
        """Exactly ``end - start`` bytes."""
        ...


class RangeStream(io.RawIOBase):
    """A seekable raw stream over ``read_range``, for stores that only know ranged reads."""

    def __init__(self, size: int, read_range: RangeReader) -> None:
        self._size = size
        self._read_range = read_range
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset`` from the start, the position or the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The position in bytes."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` with one ranged read; 0 at the end."""
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._read_range(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """The rest in one ranged read; the base class would ask for 8 KiB at a time."""
        data = self._read_range(self._at, self._size) if self._at < self._size else b""
        self._at += len(data)
        return data

    def buffered(self) -> BinaryIO:
        """The stream behind a read-ahead buffer of 1 MiB, so that small reads do not become requests."""
        return io.BufferedReader(self, _READ_AHEAD)
