"""A seekable stream over ranged reads, for stores that only know those. Knows no store."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import BinaryIO, Protocol

_READ_AHEAD = 1 << 20
_CHUNK = 4 << 20
_AT_ONCE = 2


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

    def chunks(self, start: int) -> Iterator[bytes]:
        """The bytes from ``start`` on, in order: two requests are under way at a time, of 4 MiB each.

        For whoever reads a whole object: by the read-ahead of `buffered` each megabyte waits for a request of its own.
        """
        ranges = ((at, min(at + _CHUNK, self._size)) for at in range(start, self._size, _CHUNK))
        with ThreadPoolExecutor(_AT_ONCE, "s2vc-read") as readers:
            coming = deque(readers.submit(self._read_range, *one) for one in islice(ranges, _AT_ONCE))
            while coming:
                data = coming.popleft().result()
                coming.extend(readers.submit(self._read_range, *one) for one in islice(ranges, 1))
                yield data

    def buffered(self) -> BinaryIO:
        """The stream behind a read-ahead buffer of 1 MiB, so that small reads do not become requests."""
        return io.BufferedReader(self, _READ_AHEAD)
