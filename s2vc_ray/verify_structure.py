"""One archive's bytes, read once: every CRC, and the SHA-256 of the whole. What is wrong is named, not raised.

`examine` reads everything and gives each whole GOP to whoever wants to look deeper; `glance` reads header and footer
only. Knows nothing of manifests or codecs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, cast

from s2vc_ray.archive import ArchiveHeader, ArchiveIndex, ArchiveReader, GopRecord
from s2vc_ray.errors import ArchiveError, TruncatedArchive

MOST_FAULTS = 20
"""Faults named of one archive; the rest are counted."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Structure:
    """What was found of an archive's bytes.

    Attributes:
        size: in bytes.
        sha256: of all of them; None when not all were read.
        header, index: None when they cannot be read.
        faults: what is damaged, each with its GOP or block.
        cut: whether the trailer is not where it must be: the file was cut short, appended to, or damaged there.
    """

    size: int
    sha256: str | None
    header: ArchiveHeader | None
    index: ArchiveIndex | None
    faults: tuple[str, ...]
    cut: bool = False


def examine(stream: BinaryIO, on_gop: Callable[[GopRecord], None] | None = None) -> Structure:
    """Read an archive whole. ``on_gop`` is called with every GOP whose CRCs hold, in order.

    Raises:
        StorageError: the store failed; nothing is said of the archive.
    """
    hashed = _Hashed(stream)
    opened = _open(cast(BinaryIO, hashed))
    if isinstance(opened, Structure):
        return _with(opened, hashed.finish())
    faults = []
    last_pts: int | None = None
    for position, entry in enumerate(opened.index.gops):
        try:
            record = opened.gop(position)
        except ArchiveError as error:
            faults.append(str(error))
            continue
        if last_pts is not None and record.pts[0] < last_pts:
            faults.append(f"GOP {entry.index}: its time stamps overlap the GOP before it")
        last_pts = record.pts[-1]
        if on_gop is not None:
            on_gop(record)
    try:
        for _ in opened.passthrough():
            pass
    except ArchiveError as error:
        faults.append(str(error))
    return Structure(hashed.size, hashed.finish(), opened.header, opened.index, some_of(faults))


def glance(stream: BinaryIO) -> Structure:
    """Read an archive's header, index and trailer."""
    size = stream.seek(0, os.SEEK_END)
    opened = _open(stream)
    if isinstance(opened, Structure):
        return opened
    return Structure(size, None, opened.header, opened.index, ())


def some_of(faults: list[str]) -> tuple[str, ...]:
    """The first faults, and how many more there are."""
    more = len(faults) - MOST_FAULTS
    return (*faults[:MOST_FAULTS], f"and {more} more") if more > 0 else tuple(faults)


def _open(stream: BinaryIO) -> ArchiveReader | Structure:
    """The archive, or what is wrong with its header or footer."""
    size = stream.seek(0, os.SEEK_END)
    try:
        return ArchiveReader(stream)
    except ArchiveError as error:
        faults, cut = [str(error)], isinstance(error, TruncatedArchive)
    try:
        left = ArchiveReader(stream, salvage=True)
    except ArchiveError:
        return Structure(size, None, None, None, tuple(faults), cut)
    faults.append(f"{len(left)} whole GOPs can be salvaged: s2vc decompress --salvage")
    return Structure(size, None, left.header, None, some_of([*faults, *left.damage]), cut)


def _with(found: Structure, sha256: str) -> Structure:
    return Structure(found.size, sha256, found.header, found.index, found.faults, found.cut)


class _Hashed:
    """A stream that hashes what is read of it from its start on, in one pass however it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._done = 0
        self.size = stream.seek(0, os.SEEK_END)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        at = self._stream.tell()
        data = self._stream.read(size)
        if at <= self._done < at + len(data):
            self._digest.update(data[self._done - at :])
            self._done = at + len(data)
        return data

    def finish(self) -> str:
        """SHA-256 of the whole stream, reading what was not read yet."""
        self._stream.seek(self._done)
        while self.read(_CHUNK):
            pass
        return self._digest.hexdigest()
