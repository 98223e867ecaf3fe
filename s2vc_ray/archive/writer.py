"""Writes an archive front to back, one record in memory at a time, without ever seeking.

Byte-deterministic: equal header, records and passthrough bytes give equal files; there is no clock inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.format import ArchiveIndex, GopRecord, IndexEntry
from s2vc_ray.archive.header import ArchiveHeader
from s2vc_ray.fixity import crc32c


def write_archive(
    out: BinaryIO, header: ArchiveHeader, gops: Iterable[GopRecord], passthrough: Iterable[bytes] = ()
) -> ArchiveIndex:
    """Write one whole archive to ``out`` from its current position, which becomes offset 0 of the archive.

    Args:
        out: a binary stream that is only written to.
        header: describes the video.
        gops: records with ascending ``index`` and ascending frames and time stamps; gaps are lost frames.
        passthrough: opaque bytes; how they are divided does not matter, only their concatenation is kept.

    Returns:
        The index as it stands in the footer.

    Raises:
        ValueError: records are out of order, overlap, exceed the header's frame count or a format limit.
    """
    prologue, seed = fmt.pack_prologue(header)
    at = _write(out, prologue)
    entries: list[IndexEntry] = []
    last_pts = 0
    for record in gops:
        if fault := fmt.order_fault(record, entries[-1] if entries else None, last_pts, header.frames):
            raise ValueError(fault)
        block = fmt.pack_block(fmt.TAG_GOP, fmt.pack_gop(record), seed)
        entries.append(IndexEntry.of(record, at, len(block)))
        last_pts = record.pts[-1]
        at += _write(out, block)

    chunks = data_bytes = 0
    for data in _rechunk(passthrough):
        body = fmt.CHUNK_HEAD.pack(chunks) + data
        _write(out, fmt.pack_block(fmt.TAG_CHUNK, body, seed))
        chunks += 1
        data_bytes += len(data)

    index = ArchiveIndex(tuple(entries), at, chunks, data_bytes)
    footer = fmt.pack_block(fmt.TAG_INDEX, fmt.pack_index(index), seed)
    _write(out, footer)
    _write(out, fmt.TRAILER.pack(index.end, len(footer), crc32c(footer), fmt.END_MAGIC))
    return index


def _rechunk(parts: Iterable[bytes]) -> Iterator[bytes]:
    pending = bytearray()
    for part in parts:
        # Sliced, so that one huge part costs no second copy of itself.
        for start in range(0, len(part), fmt.CHUNK_BYTES):
            pending += part[start : start + fmt.CHUNK_BYTES]
            if len(pending) >= fmt.CHUNK_BYTES:
                yield bytes(pending[: fmt.CHUNK_BYTES])
                del pending[: fmt.CHUNK_BYTES]
    if pending:
        yield bytes(pending)


def _write(out: BinaryIO, data: bytes) -> int:
    view = memoryview(data)
    while view:
        # Unbuffered streams may take less than they are given.
        view = view[out.write(view) :]
    return len(data)
