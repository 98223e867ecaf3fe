"""Reads an archive by ranged reads: header and footer on opening, then any GOP by itself.

Nothing inside the file is trusted: lengths are checked against the file's real size before memory is taken,
and CRCs before content is used.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from typing import BinaryIO

from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.format import ArchiveIndex, GopRecord, IndexEntry
from s2vc_ray.archive.header import ArchiveHeader
from s2vc_ray.archive.salvage import salvage_walk
from s2vc_ray.archive.window import FileWindow
from s2vc_ray.errors import CorruptArchive, TruncatedArchive
from s2vc_ray.fixity import crc32c
from s2vc_ray.range_stream import RangeStream


class ArchiveReader:
    """One open archive. Not safe for use from several threads at once: it seeks its source.

    Args:
        source: a seekable binary stream (it stays the caller's to close), or the archive's bytes.
        salvage: read a damaged or truncated archive: walk it from the front, keep every GOP whose CRC holds
            and the passthrough bytes up to the first damaged chunk. ``damage`` says what could not be read.

    Attributes:
        header: the archive's header.
        index: its GOP records and passthrough extent; after a salvage, what was found whole.
        damage: one line for each stretch that could not be read; empty unless salvaging a damaged file.

    Raises:
        NotAnArchive: the magic is missing.
        UnsupportedVersion: another format version.
        TruncatedArchive: the trailer is missing (the header, when salvaging).
        CorruptArchive: header or footer are damaged (the header, when salvaging).
    """

    header: ArchiveHeader
    index: ArchiveIndex
    damage: tuple[str, ...]

    def __init__(self, source: BinaryIO | bytes | bytearray | memoryview, *, salvage: bool = False) -> None:
        if isinstance(source, bytes | bytearray | memoryview):
            source = io.BytesIO(source)
        self._file = FileWindow(source)
        prologue = self._file.read_up_to(0, fmt.PROLOGUE.size)
        version, length, self._seed = fmt.unpack_prologue(prologue)
        self._first_block = fmt.PROLOGUE.size + length
        stored = self._file.read(fmt.PROLOGUE.size, length, "header")
        self.header = fmt.unpack_header(stored, version, self._seed)
        self._chunks: tuple[tuple[int, int], ...]
        if salvage:
            found = salvage_walk(self._file, self._first_block, self._seed, self.header)
            self.index, self._chunks, self.damage = found.index, found.chunks, found.damage
        else:
            self.index, self.damage = self._read_footer(), ()
            self._chunks = _chunk_extents(self.index)

    @classmethod
    def open(
        cls, source: BinaryIO | bytes | bytearray | memoryview, *, salvage: bool = False
    ) -> ArchiveReader:
        """The constructor under the name that callers look for."""
        return cls(source, salvage=salvage)

    def __len__(self) -> int:
        return len(self.index.gops)

    def gop(self, position: int) -> GopRecord:
        """The record at ``position`` (0..len-1) of ``index.gops``: its GOP number unless GOPs were lost.

        Raises:
            IndexError: no such position.
            CorruptArchive: the record is damaged or differs from the index.
        """
        if not 0 <= position < len(self.index.gops):
            raise IndexError(f"GOP position {position} is not in 0..{len(self.index.gops) - 1}")
        entry = self.index.gops[position]
        where = f"GOP {entry.index} at byte {entry.offset}"
        record = fmt.unpack_gop(self._block(fmt.TAG_GOP, entry.offset, entry.length, where), where)
        found = (record.index, record.first_frame, record.frames, record.pts[0], len(record.payload))
        if found != (entry.index, entry.first_frame, entry.frames, entry.first_pts, entry.payload_bytes):
            raise CorruptArchive(f"{where}: differs from its index entry")
        return record

    def gops(self) -> Iterator[GopRecord]:
        """Every record in order, one in memory at a time."""
        return map(self.gop, range(len(self.index.gops)))

    def passthrough(self) -> Iterator[bytes]:
        """The passthrough bytes, at most 1 MiB at a time; where they are divided means nothing."""
        return map(self._chunk, range(len(self._chunks)))

    def open_passthrough(self) -> BinaryIO:
        """The passthrough bytes as a seekable stream, of which one chunk is in memory at a time."""
        overhead = fmt.BLOCK_HEAD.size + fmt.CHUNK_HEAD.size
        ends = list(accumulate(length - overhead for _, length in self._chunks))
        chunk = lru_cache(maxsize=1)(self._chunk)

        def read_range(start: int, end: int) -> bytes:
            parts = []
            while start < end:
                number = bisect_right(ends, start)
                data = chunk(number)
                at = start - (ends[number] - len(data))
                parts.append(data[at : at + end - start])
                start += len(parts[-1])
            return b"".join(parts)

        return RangeStream(ends[-1] if ends else 0, read_range).buffered()

    def _chunk(self, number: int) -> bytes:
        offset, length = self._chunks[number]
        where = f"passthrough chunk {number} at byte {offset}"
        body = self._block(fmt.TAG_CHUNK, offset, length, where)
        (sequence,) = fmt.CHUNK_HEAD.unpack_from(body)
        if sequence != number:
            raise CorruptArchive(f"{where}: says that it is chunk {sequence}")
        return body[fmt.CHUNK_HEAD.size :]

    def verify(self) -> None:
        """Read every byte and check every CRC.

        Raises:
            CorruptArchive: the first thing found wrong, with its place.
        """
        last_pts: int | None = None
        for record in self.gops():
            if last_pts is not None and record.pts[0] < last_pts:
                raise CorruptArchive(f"GOP {record.index}: its time stamps overlap the GOP before it")
            last_pts = record.pts[-1]
        for _ in self.passthrough():
            pass
        if self.damage:
            raise CorruptArchive("; ".join(self.damage))

    def _block(self, tag: bytes, offset: int, length: int, where: str) -> bytes:
        data = self._file.read(offset, length, where)
        head = fmt.unpack_block_head(data, self._seed)
        if head is None or head[0] != tag or head[1] != length - fmt.BLOCK_HEAD.size:
            raise CorruptArchive(f"{where}: its head is damaged")
        body = data[fmt.BLOCK_HEAD.size :]
        if crc32c(body, self._seed) != head[2]:
            raise CorruptArchive(f"{where}: CRC differs")
        return body

    def _read_footer(self) -> ArchiveIndex:
        start = self._file.size - fmt.TRAILER.size
        if start < self._first_block:
            raise TruncatedArchive(f"archive of {self._file.size} bytes ends before its trailer")
        trailer = self._file.read(start, fmt.TRAILER.size, "trailer")
        offset, length, crc, magic = fmt.TRAILER.unpack(trailer)
        if magic != fmt.END_MAGIC:
            raise TruncatedArchive(
                f"archive of {self._file.size} bytes does not end with a trailer: it was cut short, "
                "or something was appended; its whole GOPs can still be salvaged"
            )
        if offset < self._first_block or offset + length != start or length > fmt.MAX_BODY_BYTES:
            raise CorruptArchive(f"trailer at byte {start}: points at bytes {offset}..{offset + length}")
        where = f"index at byte {offset}"
        if crc32c(self._file.read(offset, length, where)) != crc:
            raise CorruptArchive(f"{where}: CRC differs from the trailer's")
        body = self._block(fmt.TAG_INDEX, offset, length, where)
        index = fmt.unpack_index(body, self._first_block, offset)
        _check_entries(index.gops, self.header)
        return index


def _check_entries(entries: tuple[IndexEntry, ...], header: ArchiveHeader) -> None:
    if entries and entries[-1].first_frame + entries[-1].frames > header.frames:
        raise CorruptArchive(
            f"index: GOP {entries[-1].index} reaches past the {header.frames} frames declared"
        )


def _chunk_extents(index: ArchiveIndex) -> tuple[tuple[int, int], ...]:
    overhead = fmt.BLOCK_HEAD.size + fmt.CHUNK_HEAD.size
    full = overhead + fmt.CHUNK_BYTES
    starts = range(index.passthrough_offset, index.end, full)
    return tuple((start, min(full, index.end - start)) for start in starts)
