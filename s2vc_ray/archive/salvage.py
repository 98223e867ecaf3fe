"""Finds what is still whole in a damaged archive, by walking its blocks from the front.

The footer is not used. After damage the walk searches for the next block head whose CRC holds; since each CRC
continues from the header's, heads of another archive (in a payload, say) are not mistaken for this one's.
"""

from __future__ import annotations

from dataclasses import dataclass

from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.format import ArchiveIndex, IndexEntry
from s2vc_ray.archive.header import ArchiveHeader
from s2vc_ray.archive.window import FileWindow
from s2vc_ray.errors import CorruptArchive
from s2vc_ray.fixity import crc32c

_SEARCH_BYTES = 1 << 20
# A forged file could nest blocks that each fail only after a long CRC; honest damage stays far below this.
_MAX_READS_PER_BYTE = 8


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Whole GOPs, the extents (offset, length) of the whole leading chunks, and lines on the damage."""

    index: ArchiveIndex
    chunks: tuple[tuple[int, int], ...]
    damage: tuple[str, ...]


class _Walk:
    def __init__(self, file: FileWindow, seed: int, header: ArchiveHeader) -> None:
        self.file = file
        self.seed = seed
        self.frames = header.frames
        self.entries: list[IndexEntry] = []
        self.last_pts = 0
        self.chunks: list[tuple[int, int]] = []
        self.footer: tuple[int, int] | None = None
        self.bytes_read = 0

    def block_end(self, at: int) -> int | None:
        """Take the block at ``at`` if it is whole and fits what came before; return where it ends."""
        head = fmt.unpack_block_head(self.file.read_up_to(at, fmt.BLOCK_HEAD.size), self.seed)
        if head is None:
            return None
        tag, length, body_crc = head
        start = at + fmt.BLOCK_HEAD.size
        if start + length > self.file.size:
            return None
        self.bytes_read += length
        body = self.file.read(start, length, f"block at byte {at}")
        if crc32c(body, self.seed) != body_crc or not self._take(tag, body, at):
            return None
        return start + length

    def next_head(self, at: int) -> int | None:
        """Offset of the first plausible block head at or after ``at``."""
        while at < self.file.size:
            window = self.file.read_up_to(at, _SEARCH_BYTES + fmt.BLOCK_HEAD.size)
            self.bytes_read += len(window)
            found = window.find(fmt.TAG_PREFIX)
            while found >= 0:
                if fmt.unpack_block_head(window[found : found + fmt.BLOCK_HEAD.size], self.seed) is not None:
                    return at + found
                found = window.find(fmt.TAG_PREFIX, found + 1)
            at += _SEARCH_BYTES
        return None

    def trailer_matches(self) -> bool:
        """Whether the index block was found and the file ends with the trailer that belongs to it."""
        if self.footer is None:
            return False
        offset, length = self.footer
        crc = crc32c(self.file.read_up_to(offset, length))
        expected = fmt.TRAILER.pack(offset, length, crc, fmt.END_MAGIC)
        return self.file.read_up_to(offset + length, len(expected) + 1) == expected

    def _take(self, tag: bytes, body: bytes, at: int) -> bool:
        length = fmt.BLOCK_HEAD.size + len(body)
        if tag == fmt.TAG_GOP:
            return self._take_gop(body, at, length)
        if tag == fmt.TAG_CHUNK:
            # A chunk behind a lost one is whole but of no use: the bytes are one stream.
            if body[: fmt.CHUNK_HEAD.size] == fmt.CHUNK_HEAD.pack(len(self.chunks)):
                self.chunks.append((at, length))
            return True
        if tag == fmt.TAG_INDEX:
            self.footer = (at, length)
            return True
        return False

    def _take_gop(self, body: bytes, at: int, length: int) -> bool:
        try:
            record = fmt.unpack_gop(body, f"block at byte {at}")
        except CorruptArchive:
            return False
        before = self.entries[-1] if self.entries else None
        if fmt.order_fault(record, before, self.last_pts, self.frames):
            return False
        self.entries.append(IndexEntry.of(record, at, length))
        self.last_pts = record.pts[-1]
        return True


def salvage_walk(file: FileWindow, first_block: int, seed: int, header: ArchiveHeader) -> Salvaged:
    """Walk all blocks from ``first_block`` on and keep the whole ones. Memory: one block.

    Raises:
        CorruptArchive: so many forged blocks that the search was given up.
    """
    walk = _Walk(file, seed, header)
    gaps: list[tuple[int, int]] = []
    at = first_block
    while at < file.size and walk.footer is None:
        end = walk.block_end(at)
        if end is None:
            end = walk.next_head(at + 1) or file.size
            start = gaps.pop()[0] if gaps and gaps[-1][1] == at else at
            gaps.append((start, end))
        if walk.bytes_read > _MAX_READS_PER_BYTE * file.size:
            raise CorruptArchive(f"block at byte {at}: the archive is too damaged to be salvaged")
        at = end
    damage = [f"bytes {start}..{end} are damaged" for start, end in gaps]
    if not walk.trailer_matches():
        damage.append("the index or the trailer is missing or does not match: bytes were lost or added")
    data_bytes = sum(length - fmt.BLOCK_HEAD.size - fmt.CHUNK_HEAD.size for _, length in walk.chunks)
    passthrough_at = walk.chunks[0][0] if walk.chunks else at
    index = ArchiveIndex(tuple(walk.entries), passthrough_at, len(walk.chunks), data_bytes)
    return Salvaged(index, tuple(walk.chunks), tuple(damage))
