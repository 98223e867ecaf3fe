"""The bytes of what travels beside the pictures (docs/format.md, "Passthrough data"): head, attached files, packets.

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
from fractions import Fraction
from io import SEEK_END, BytesIO
from typing import IO

from s2vc_ray.errors import CorruptArchive, SourceError, TruncatedArchive, UnsupportedVersion
from s2vc_ray.passthrough_head import (
    Omitted,
    PassAttachment,
    PassHead,
    PassStream,
    head_from_json,
    head_to_json,
)
from s2vc_ray.passthrough_packets import PassPacket, RunWriter, Units, read_packets, read_stretch

MAGIC = b"S2PT"
VERSION = 1
MAX_HEADER = 1 << 26

_PREFIX = struct.Struct("<4sBII")
_CHUNK = 1 << 20
_IN_MEMORY = 1 << 22
_FOREVER = 1 << 60


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
        """As ``read`` for bytes in pieces; beyond 4 MiB they are held in a temporary file."""
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

    def packets(self, begin: Fraction | None = None, end: Fraction | None = None) -> Iterator[PassPacket]:
        """Packets in the source's order.

        Args:
            begin, end: seconds; all packets of that time come, and some before and after, and only as much is
                read. Without either, and of a salvaged passthrough, every packet comes.

        Raises:
            CorruptArchive: packets are damaged; ``TruncatedArchive`` when the bytes end early.
        """
        body, units = self._body, [clock_of(stream) for stream in self.head.streams]
        try:
            if self._salvage or (begin is None and end is None):
                yield from read_packets(body.take, body.size, units)
            else:
                first, last = (begin or Fraction(-_FOREVER), Fraction(_FOREVER) if end is None else end)
                yield from read_stretch(body.take, body.size, units, first, last)
        except TruncatedArchive as error:
            if not self._salvage:
                raise
            self.damage = str(error)


class PacketSpool:
    """Packets in the making: ``put`` every packet, then ``close`` with what goes before them.

    Beyond 4 MiB they lie in a temporary file that goes with the resulting ``Passthrough``.

    Args:
        units: see `s2vc_ray.passthrough_packets.Units`.
    """

    def __init__(self, units: Units) -> None:
        self._file = spool()
        self._runs = RunWriter(units)
        self._counts: Counter[int] = Counter()

    def put(self, packet: PassPacket) -> None:
        """Add one packet."""
        self._file.write(self._runs.put(packet))
        self._counts[packet.stream] += 1

    def close(self, head: PassHead, attachments: Iterable[bytes] = ()) -> Passthrough:
        """The whole passthrough.

        Args:
            head: what it says of numbers, sizes and CRCs of packets and attachments is replaced by the true ones.
            attachments: the bytes of each of ``head.attachments``, one at a time.

        Raises:
            SourceError: the header is larger than a reader would accept.
        """
        self._file.write(self._runs.close())
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


def write_passthrough(
    head: PassHead, packets: Iterable[PassPacket], attachments: Iterable[bytes] = ()
) -> Passthrough:
    """Serialise; see ``PacketSpool``."""
    records = PacketSpool([clock_of(stream) for stream in head.streams])
    for packet in packets:
        records.put(packet)
    return records.close(head, attachments)


def clock_of(stream: PassStream) -> Fraction | None:
    """Seconds per unit of a stream's times; None for cover art, which is shown at no time."""
    return None if stream.kind == "video" else stream.time_base


def spool() -> IO[bytes]:
    """A temporary file that stays in memory up to 4 MiB."""
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
