"""The bytes of what travels beside the pictures (docs/format.md, "Passthrough data"): head, attachments, packets.

It knows no media file and no muxer. A reader takes no memory for a length before it knows that so many bytes
are there.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import SEEK_END, BytesIO
from typing import IO

from s2vc_ray.errors import CorruptArchive, SourceError, TruncatedArchive, UnsupportedVersion
from s2vc_ray.passthrough_head import Omitted, PassAttachment, PassHead, head_from_json, head_to_json

MAGIC = b"S2PT"
VERSION = 1
MAX_HEADER = 1 << 26
KEY, DISCARD, CORRUPT, DISPOSABLE = 1, 2, 4, 8

_PREFIX = struct.Struct("<4sBII")
_PACKET = struct.Struct("<IHHqqqB")
_SIDE = struct.Struct("<BI")
_END = struct.Struct("<IQ")
_U32 = struct.Struct("<I")
_END_MARK = 0xFFFFFFFF
_NO_TIME = -(1 << 63)
_CHUNK = 1 << 20
_IN_MEMORY = 1 << 24


@dataclass(frozen=True, slots=True)
class PassPacket:
    """One packet, byte-exact. ``stream`` counts ``PassHead.streams``; times are in that stream's units."""

    stream: int
    flags: int
    pts: int | None
    dts: int | None
    duration: int
    side: tuple[tuple[str, bytes], ...]
    data: bytes


class Passthrough:
    """A parsed header over the bytes it came from; attachments and packets are read as they are asked for.

    Attributes:
        head: streams, tags, chapters, attachments.
        damage: where a salvaged passthrough was found to end early, empty else; known once ``packets`` ended.
    """

    def __init__(
        self, head: PassHead, front: _Bytes, files: _Bytes, body: _Bytes, *, salvage: bool = False
    ) -> None:
        self.head = head
        self.damage = ""
        self._front = front
        self._files = files
        self._body = body
        self._salvage = salvage

    @classmethod
    def read(cls, file: IO[bytes], *, salvage: bool = False) -> Passthrough:
        """Parse the header at the start of a seekable file, which the result keeps reading from.

        Args:
            salvage: of bytes that end early give what is whole: attachments that are not become ``omitted``,
                and packets end where the bytes do.

        Raises:
            CorruptArchive: not a passthrough, or damaged (``TruncatedArchive`` when it ends early).
            UnsupportedVersion: written by a later format.
        """
        size = file.seek(0, SEEK_END)
        whole = _Bytes(file, 0, size)
        magic, version, length, crc = _PREFIX.unpack(whole.take(0, _PREFIX.size, "header"))
        if magic != MAGIC:
            raise CorruptArchive("passthrough does not begin with its magic S2PT")
        if version != VERSION:
            raise UnsupportedVersion(f"passthrough version {version}; this reader knows {VERSION}")
        if length > MAX_HEADER:
            raise CorruptArchive(
                f"passthrough header claims {length} bytes; at most {MAX_HEADER} are allowed"
            )
        text = whole.take(_PREFIX.size, length, "header")
        if zlib.crc32(text) != crc:
            raise CorruptArchive("passthrough header does not match its checksum")
        head = head_from_json(text)
        at = _PREFIX.size + length
        end = at + sum(one.size for one in head.attachments)
        if end > size:
            if not salvage:
                raise TruncatedArchive(f"passthrough ends inside its attachments: {size} of {end} bytes")
            head, end = _whole_attachments(head, at, size), size
        parts = [_Bytes(file, begin, stop - begin) for begin, stop in ((0, at), (at, end), (end, size))]
        return cls(head, *parts, salvage=salvage)

    @classmethod
    def from_bytes(cls, data: bytes) -> Passthrough:
        """Parse bytes made by ``to_bytes``; see ``read`` for errors."""
        return cls.read(BytesIO(data))

    @classmethod
    def from_chunks(cls, chunks: Iterable[bytes], *, salvage: bool = False) -> Passthrough:
        """As ``read`` for bytes in pieces; beyond 16 MiB they are held in a temporary file."""
        file = spool()
        for chunk in chunks:
            file.write(chunk)
        return cls.read(file, salvage=salvage)

    def chunks(self) -> Iterator[bytes]:
        """The serialised bytes, at most 1 MiB at a time."""
        for part in (self._front, self._files, self._body):
            yield from part.chunks()

    def to_bytes(self) -> bytes:
        """The serialised bytes, whole."""
        return b"".join(self.chunks())

    def attachment(self, number: int) -> bytes:
        """The bytes of ``head.attachments[number]``.

        Raises:
            CorruptArchive: they do not match their checksum.
        """
        wanted = self.head.attachments[number]
        before = sum(one.size for one in self.head.attachments[:number])
        data = self._files.take(before, wanted.size, "attachments")
        if zlib.crc32(data) != wanted.crc32:
            raise CorruptArchive(f"attachment {wanted.name!r} does not match its checksum")
        return data

    def packets(self) -> Iterator[PassPacket]:
        """Every packet in the source's order.

        Raises:
            CorruptArchive: a record is damaged; ``TruncatedArchive`` when the bytes end early.
        """
        try:
            yield from _read_packets(self._body, len(self.head.streams))
        except TruncatedArchive as error:
            if not self._salvage:
                raise
            self.damage = str(error)


class PacketSpool:
    """Packet records in the making: ``put`` every packet, then ``close`` with what goes before them.

    Beyond 16 MiB they lie in a temporary file that goes with the resulting ``Passthrough``.
    """

    def __init__(self) -> None:
        self._file = spool()
        self._crc = 0
        self._counts: Counter[int] = Counter()

    def put(self, packet: PassPacket) -> None:
        """Add one packet."""
        self._write(_packet_bytes(packet))
        self._counts[packet.stream] += 1

    def close(self, head: PassHead, attachments: Iterable[bytes] = ()) -> Passthrough:
        """The whole passthrough.

        Args:
            head: what it says of numbers, sizes and CRCs of packets and attachments is replaced by the true ones.
            attachments: the bytes of each of ``head.attachments``, one at a time.

        Raises:
            SourceError: the header is larger than a reader would accept.
        """
        self._write(_END.pack(_END_MARK, self._counts.total()))
        self._file.write(_U32.pack(self._crc))
        files, described = spool(), []
        for one, data in zip(head.attachments, attachments, strict=True):
            described.append(replace(one, size=len(data), crc32=zlib.crc32(data)))
            for at in range(0, len(data), _CHUNK):
                files.write(data[at : at + _CHUNK])
        streams = tuple(replace(one, packets=self._counts[n]) for n, one in enumerate(head.streams))
        head = replace(head, streams=streams, attachments=tuple(described))
        text = head_to_json(head)
        if len(text) > MAX_HEADER:
            raise SourceError(
                f"tags and stream descriptions take {len(text)} bytes; at most {MAX_HEADER} can be kept: "
                "compress without passthrough, or remove the largest tags"
            )
        front = BytesIO(_PREFIX.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text)
        parts = [_Bytes(file, 0, file.seek(0, SEEK_END)) for file in (front, files, self._file)]
        return Passthrough(head, *parts)

    def _write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._file.write(data)


def write_passthrough(
    head: PassHead, packets: Iterable[PassPacket], attachments: Iterable[bytes] = ()
) -> Passthrough:
    """Serialise; see ``PacketSpool``."""
    records = PacketSpool()
    for packet in packets:
        records.put(packet)
    return records.close(head, attachments)


def spool() -> IO[bytes]:
    """A temporary file that stays in memory up to 16 MiB."""
    return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """``size`` bytes of a seekable file from ``start`` on. Others may move the file's position meanwhile."""

    file: IO[bytes]
    start: int
    size: int

    def take(self, at: int, size: int, what: str) -> bytes:
        """Exactly ``size`` bytes from ``at`` on.

        Raises:
            TruncatedArchive: they are not there; no memory was taken for them.
        """
        if size > self.size - at:
            raise TruncatedArchive(f"passthrough ends inside its {what}: {self.size - at} of {size} bytes")
        self.file.seek(self.start + at)
        return self.file.read(size)

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, self.size, _CHUNK):
            yield self.take(at, min(_CHUNK, self.size - at), "bytes")


def _whole_attachments(head: PassHead, at: int, size: int) -> PassHead:
    """``head`` without the attachments that do not end before ``size``."""
    whole: list[PassAttachment] = []
    for one in head.attachments:
        at += one.size
        if at > size:
            break
        whole.append(one)
    lost = tuple(
        Omitted(one.index, "attachment", one.name, "lost where the archive is damaged")
        for one in head.attachments[len(whole) :]
    )
    return replace(head, attachments=tuple(whole), omitted=head.omitted + lost)


def _packet_bytes(packet: PassPacket) -> bytes:
    parts = [
        _PACKET.pack(
            len(packet.data),
            packet.stream,
            packet.flags,
            _NO_TIME if packet.pts is None else packet.pts,
            _NO_TIME if packet.dts is None else packet.dts,
            packet.duration,
            len(packet.side),
        )
    ]
    for name, data in packet.side:
        parts.append(_SIDE.pack(len(name), len(data)) + name.encode("ascii") + data)
    parts.append(packet.data)
    return b"".join(parts)


def _read_packets(body: _Bytes, streams: int) -> Iterator[PassPacket]:
    at = crc = count = 0

    def take(size: int) -> bytes:
        nonlocal at, crc
        data = body.take(at, size, "packets")
        at += size
        crc = zlib.crc32(data, crc)
        return data

    while (size := _U32.unpack(mark := take(_U32.size))[0]) != _END_MARK:
        _, stream, flags, pts, dts, duration, sides = _PACKET.unpack(mark + take(_PACKET.size - _U32.size))
        if stream >= streams:
            raise CorruptArchive(f"a passthrough packet is of stream {stream}; there are {streams}")
        side = []
        for _ in range(sides):
            name_length, length = _SIDE.unpack(take(_SIDE.size))
            name = take(name_length)
            side.append((name.decode("ascii", "replace"), take(length)))
        times = [None if time == _NO_TIME else time for time in (pts, dts)]
        yield PassPacket(stream, flags, times[0], times[1], duration, tuple(side), take(size))
        count += 1
    (claimed,) = struct.unpack("<Q", take(8))
    computed = crc
    if claimed != count or _U32.unpack(take(_U32.size))[0] != computed:
        raise CorruptArchive(f"passthrough checksum or packet count is wrong after {count} packets")
    if at != body.size:
        raise CorruptArchive(f"{body.size - at} bytes behind the end of the passthrough")
