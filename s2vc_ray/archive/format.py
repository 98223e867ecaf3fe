"""The byte layout of ``.s2vc``: constants, values, how each part packs and unpacks. Version 2 is written, 1 read too.

Owns the layout that ``docs/format.md`` specifies. Does no I/O: the writer and the reader move the bytes.
Unpacking never allocates more than a small multiple of the bytes it is given.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from s2vc_ray.archive.fields import Fields, put_varint, unzigzag, zigzag
from s2vc_ray.archive.header import MAX_HEADER_BYTES, ArchiveHeader
from s2vc_ray.archive.phrases import fold, unfold
from s2vc_ray.errors import CorruptArchive, NotAnArchive, TruncatedArchive, UnsupportedVersion
from s2vc_ray.fixity import crc32c

# As in PNG: the high bit, the line ends and the ^Z show transfers that mangle binary files.
MAGIC = b"\x89S2VC\r\n\x1a"
END_MAGIC = b"S2VC-END"
VERSION = 2
"""Of what is written: a folded header (see `phrases`). In version 1, which is read too, it stands as it is."""
_PLAIN = 1

TAG_PREFIX = b"s2v"
TAG_GOP = b"s2vG"
TAG_CHUNK = b"s2vP"
TAG_INDEX = b"s2vI"

MAX_BODY_BYTES = 1 << 28
MAX_FRAMES = 1 << 16
CHUNK_BYTES = 1 << 20

PROLOGUE = struct.Struct("<8sHHII")  # magic, version, reserved, header length, header CRC
BLOCK_HEAD = struct.Struct("<4sIII")  # tag, body length, body CRC, CRC of the twelve bytes before
CHUNK_HEAD = struct.Struct("<I")  # sequence number
TRAILER = struct.Struct("<QII8s")  # footer offset, footer length, footer CRC, end magic

_MAX_PTS = (1 << 61) - 1


@dataclass(frozen=True, slots=True)
class GopRecord:
    """One coded GOP: its place in the video, the frames it really holds, and their bits.

    Attributes:
        index: number of the GOP in the splitter's plan; a gap is a GOP that was lost.
        first_frame: number, in the source, of the first frame that was expected here.
        q: what it was coded with, 0..63: the quality index of ``s2vc``, the constant rate factor of ``av1``.
        pts: time stamp of each frame held (1..65536 of them), never decreasing; lost frames are not listed.
        payload: the codec's bytes.
        codec: which codec reads ``payload``: 1..32 ASCII letters, digits, ``-``, ``_`` or ``.``.

    Raises:
        ValueError: a field lies outside its range.
    """

    index: int
    first_frame: int
    q: int
    pts: tuple[int, ...]
    payload: bytes
    codec: str = "s2vc"

    def __post_init__(self) -> None:
        if self.index < 0 or self.first_frame < 0 or not 0 <= self.q <= 63:
            raise ValueError(f"implausible GOP: index {self.index}, frame {self.first_frame}, q {self.q}")
        if not 1 <= len(self.pts) <= MAX_FRAMES:
            raise ValueError(f"GOP {self.index} holds {len(self.pts)} frames, not 1..{MAX_FRAMES}")
        if any(later < earlier for earlier, later in zip(self.pts, self.pts[1:], strict=False)):
            raise ValueError(f"time stamps of GOP {self.index} decrease")
        if self.pts[0] < -_MAX_PTS or self.pts[-1] > _MAX_PTS:
            raise ValueError(f"time stamps of GOP {self.index} do not fit 62 bits")
        plain = self.codec.replace("-", "a").replace("_", "a").replace(".", "a")
        if not (plain.isascii() and plain.isalnum() and len(plain) <= 32):
            raise ValueError(f"GOP {self.index} has no usable codec name")

    @property
    def frames(self) -> int:
        """Number of frames held."""
        return len(self.pts)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Where one GOP record lies: ``length`` bytes at ``offset``; the last ``payload_bytes`` are payload."""

    index: int
    offset: int
    length: int
    payload_bytes: int
    first_frame: int
    frames: int
    first_pts: int

    @property
    def payload_offset(self) -> int:
        """Offset of the codec's payload in the file, for ranged reads."""
        return self.offset + self.length - self.payload_bytes

    @classmethod
    def of(cls, record: GopRecord, offset: int, length: int) -> IndexEntry:
        """The entry of ``record`` when it lies at ``offset`` and takes ``length`` bytes."""
        return cls(
            index=record.index,
            offset=offset,
            length=length,
            payload_bytes=len(record.payload),
            first_frame=record.first_frame,
            frames=record.frames,
            first_pts=record.pts[0],
        )


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """The footer: every GOP record in file order, and the passthrough chunks behind them."""

    gops: tuple[IndexEntry, ...]
    passthrough_offset: int
    passthrough_chunks: int
    passthrough_bytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind the passthrough chunks."""
        overhead = BLOCK_HEAD.size + CHUNK_HEAD.size
        return self.passthrough_offset + self.passthrough_chunks * overhead + self.passthrough_bytes


def order_fault(record: GopRecord, before: IndexEntry | None, last_pts: int, frames: int) -> str | None:
    """Why ``record`` may not follow ``before``, whose last pts is ``last_pts``; ``None`` if it may."""
    if record.first_frame + record.frames > frames:
        return f"GOP {record.index} reaches past the {frames} frames that the header declares"
    if before is None:
        return None
    free = before.first_frame + before.frames
    if record.index <= before.index or record.first_frame < free or record.pts[0] < last_pts:
        return f"GOP {record.index} does not come after GOP {before.index}, or overlaps it"
    return None


def pack_prologue(header: ArchiveHeader) -> tuple[bytes, int]:
    """Magic, version and folded header; and the header's CRC, from which every block's CRC continues."""
    text = header.to_json()
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"header of {len(text)} bytes is longer than {MAX_HEADER_BYTES}")
    folded = fold(text)
    crc = _header_crc(folded, VERSION)
    return PROLOGUE.pack(MAGIC, VERSION, 0, len(folded), crc) + folded, crc


def unpack_prologue(data: bytes) -> tuple[int, int, int]:
    """Format version, and length and CRC of the header as it is stored, from the file's first ``PROLOGUE.size`` bytes.

    Raises:
        NotAnArchive, TruncatedArchive, UnsupportedVersion, CorruptArchive
    """
    if not data or data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise NotAnArchive("no .s2vc archive: the file is empty or does not begin with the magic bytes")
    if len(data) < PROLOGUE.size:
        raise TruncatedArchive(f"archive of {len(data)} bytes ends before its header")
    _, version, reserved, length, crc = PROLOGUE.unpack_from(data)
    if not _PLAIN <= version <= VERSION:
        raise UnsupportedVersion(
            f"archive has format version {version}; this program reads versions {_PLAIN} to {VERSION}"
        )
    if reserved != 0 or length > MAX_HEADER_BYTES:
        raise CorruptArchive(f"header at byte {len(MAGIC)}: reserved bits set or {length} bytes long")
    return version, length, crc


def unpack_header(stored: bytes, version: int, crc: int) -> ArchiveHeader:
    """The header from what is stored of it.

    Raises:
        CorruptArchive: the CRC differs, or a field is missing or implausible.
    """
    if _header_crc(stored, version) != crc:
        raise CorruptArchive(f"header at byte {PROLOGUE.size}: CRC differs")
    try:
        return ArchiveHeader.from_json(stored if version == _PLAIN else unfold(stored, MAX_HEADER_BYTES))
    except ValueError as error:
        raise CorruptArchive(f"header at byte {PROLOGUE.size}: {error}") from error


def _header_crc(stored: bytes, version: int) -> int:
    return crc32c(stored, crc32c(struct.pack("<HHI", version, 0, len(stored))))


def pack_block(tag: bytes, body: bytes, seed: int) -> bytes:
    """A block: head and body. ``seed`` is the header's CRC, so a block of another archive never passes."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"block of {len(body)} bytes is longer than {MAX_BODY_BYTES}")
    start = struct.pack("<4sII", tag, len(body), crc32c(body, seed))
    return start + struct.pack("<I", crc32c(start, seed)) + body


def unpack_block_head(data: bytes, seed: int) -> tuple[bytes, int, int] | None:
    """Tag, body length and body CRC; ``None`` when ``data`` is no block head of this archive."""
    if len(data) < BLOCK_HEAD.size:
        return None
    tag, length, body_crc, head_crc = BLOCK_HEAD.unpack_from(data)
    if crc32c(data[: BLOCK_HEAD.size - 4], seed) != head_crc:
        return None
    return (tag, length, body_crc) if length <= MAX_BODY_BYTES else None


def pack_gop(record: GopRecord) -> bytes:
    """The body of a GOP block."""
    codec = record.codec.encode("ascii")
    out = bytearray()
    put_varint(out, record.index)
    put_varint(out, record.first_frame)
    out += bytes((record.q, len(codec))) + codec
    put_varint(out, len(record.pts))
    put_varint(out, zigzag(record.pts[0]))
    deltas = [later - earlier for earlier, later in zip(record.pts, record.pts[1:], strict=False)]
    at = 0
    while at < len(deltas):
        run = 1
        while at + run < len(deltas) and deltas[at + run] == deltas[at]:
            run += 1
        put_varint(out, run)
        put_varint(out, deltas[at])
        at += run
    return bytes(out) + record.payload


def unpack_gop(body: bytes, where: str) -> GopRecord:
    """A GOP block's body back to its record.

    Raises:
        CorruptArchive: the body contradicts itself; the message starts with ``where``.
    """
    fields = Fields(body, where)
    index, first_frame, q = fields.varint(), fields.varint(), fields.byte()
    codec = fields.take(fields.byte())
    frames = fields.varint()
    if not 1 <= frames <= MAX_FRAMES:
        raise CorruptArchive(f"{where}: claims {frames} frames")
    pts = [unzigzag(fields.varint())]
    while len(pts) < frames:
        run, delta = fields.varint(), fields.varint()
        if not 1 <= run <= frames - len(pts) or pts[-1] + run * delta > _MAX_PTS:
            raise CorruptArchive(f"{where}: time stamps are implausible")
        first = pts[-1] + delta
        pts.extend(first + step * delta for step in range(run))
    try:
        return GopRecord(index, first_frame, q, tuple(pts), body[fields.at :], codec.decode("ascii"))
    except ValueError as error:
        raise CorruptArchive(f"{where}: {error}") from error


def pack_index(index: ArchiveIndex) -> bytes:
    """The body of the index block."""
    out = bytearray()
    put_varint(out, len(index.gops))
    previous = IndexEntry(-1, 0, 0, 0, 0, 0, 0)
    for entry in index.gops:
        put_varint(out, entry.length)
        put_varint(out, entry.payload_bytes)
        put_varint(out, entry.index - previous.index - 1)
        put_varint(out, entry.first_frame - previous.first_frame - previous.frames)
        put_varint(out, entry.frames)
        put_varint(out, zigzag(entry.first_pts - previous.first_pts))
        previous = entry
    put_varint(out, index.passthrough_chunks)
    put_varint(out, index.passthrough_bytes)
    return bytes(out)


def unpack_index(body: bytes, first_offset: int, footer_offset: int) -> ArchiveIndex:
    """The index block's body back to the index. Blocks must fill ``first_offset..footer_offset`` exactly.

    Raises:
        CorruptArchive: entries contradict each other or the file's real extent.
    """
    where = f"index at byte {footer_offset}"
    fields = Fields(body, where)
    entries: list[IndexEntry] = []
    previous = IndexEntry(-1, first_offset, 0, 0, 0, 0, 0)
    # A false count runs out of bytes, not of memory.
    for _ in range(fields.varint()):
        length, payload_bytes, skipped, lost, frames, pts_step = (fields.varint() for _ in range(6))
        previous = IndexEntry(
            index=previous.index + 1 + skipped,
            offset=previous.offset + previous.length,
            length=length,
            payload_bytes=payload_bytes,
            first_frame=previous.first_frame + previous.frames + lost,
            frames=frames,
            first_pts=previous.first_pts + unzigzag(pts_step),
        )
        if frames < 1 or payload_bytes + BLOCK_HEAD.size > length or previous.offset + length > footer_offset:
            raise CorruptArchive(f"{where}: entry {len(entries)} does not fit the file")
        entries.append(previous)
    chunks, data_bytes = fields.varint(), fields.varint()
    index = ArchiveIndex(tuple(entries), previous.offset + previous.length, chunks, data_bytes)
    if index.end != footer_offset or chunks != -(-data_bytes // CHUNK_BYTES) or fields.at != len(body):
        raise CorruptArchive(f"{where}: does not describe the bytes before it")
    return index
