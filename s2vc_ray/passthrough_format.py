"""What travels beside the pictures, as values, and its byte layout.

Owns the passthrough bytes of an archive: stream descriptions, tags, chapters, attachments, and every
packet with its times. It knows no media file and no muxer.

Layout (little-endian)::

    "S2PT" | u8 version | u32 header length | header: UTF-8 JSON
    packets: u32 size | u16 stream | u16 flags | i64 pts | i64 dts | i64 duration | u8 side data count
             per side data: u8 name length | u32 size | name | data
             data
    end:     u32 0xFFFFFFFF | u64 packet count | u32 CRC-32 of everything from the magic to here

An unknown time is -2^63. ``flags``: 1 keyframe, 2 discard, 4 corrupt, 8 disposable. A reader never
allocates more than is there, nor more than the bounds below.
"""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from io import BytesIO
from typing import IO, Any

from s2vc_ray.errors import CorruptArchive, TruncatedArchive, UnsupportedVersion

MAGIC = b"S2PT"
VERSION = 1
MAX_HEADER = 1 << 28
MAX_PACKET = 1 << 28
KEY, DISCARD, CORRUPT, DISPOSABLE = 1, 2, 4, 8

_PREFIX = struct.Struct("<4sBI")
_PACKET = struct.Struct("<IHHqqqB")
_SIDE = struct.Struct("<BI")
_END = struct.Struct("<IQ")
_CRC = struct.Struct("<I")
_END_MARK = 0xFFFFFFFF
_NO_TIME = -(1 << 63)
_CHUNK = 1 << 20
_IN_MEMORY = 1 << 26


@dataclass(frozen=True, slots=True)
class PassStream:
    """One carried stream.

    Attributes:
        index: its number in the source.
        kind: "audio", "subtitle", "data" or "video" (cover art).
        codec: FFmpeg's codec name, empty when it has none.
        time_base: unit of its packets' times.
        extradata: the decoder's set-up bytes, exactly as stored.
        disposition: FFmpeg's disposition bits.
        metadata: its tags (language, title, ...).
        parameters: what else describes the codec (sample rate, channel layout, ...), for people.
        template: a tiny media file in format ``template_format`` with this stream's first packet, from which
            a muxer takes the codec parameters; empty when no format could hold it.
    """

    index: int
    kind: str
    codec: str
    time_base: Fraction
    extradata: bytes
    disposition: int
    metadata: dict[str, str]
    parameters: dict[str, int | str]
    template: bytes
    template_format: str


@dataclass(frozen=True, slots=True)
class PassAttachment:
    """A file inside the source, such as a subtitle font."""

    name: str
    mimetype: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PassChapter:
    """A chapter mark; times in ``time_base`` units."""

    id: int
    start: int
    end: int
    time_base: Fraction
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Omitted:
    """A stream of the source, or of a passthrough, that was not carried, and why."""

    index: int
    kind: str
    codec: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassHead:
    """Everything but the packets; the ``video_`` fields belong to the compressed stream itself."""

    streams: tuple[PassStream, ...]
    attachments: tuple[PassAttachment, ...]
    chapters: tuple[PassChapter, ...]
    metadata: dict[str, str]
    video_metadata: dict[str, str]
    video_disposition: int
    omitted: tuple[Omitted, ...]


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
    """A parsed header over the bytes it came from; packets are read as they are asked for.

    Attributes:
        head: streams, tags, chapters, attachments.
    """

    def __init__(self, head: PassHead, file: IO[bytes], packets_at: int) -> None:
        self.head = head
        self._file = file
        self._packets_at = packets_at

    @classmethod
    def read(cls, file: IO[bytes]) -> Passthrough:
        """Parse the header at the start of a seekable file, which the result keeps reading from.

        Raises:
            CorruptArchive: not a passthrough, or damaged (``TruncatedArchive`` when it ends early).
            UnsupportedVersion: written by a later format.
        """
        file.seek(0)
        magic, version, length = _PREFIX.unpack(_exactly(file, _PREFIX.size, "header"))
        if magic != MAGIC:
            raise CorruptArchive("passthrough does not begin with its magic S2PT")
        if version != VERSION:
            raise UnsupportedVersion(f"passthrough version {version}; this reader knows {VERSION}")
        if length > MAX_HEADER:
            raise CorruptArchive(
                f"passthrough header claims {length} bytes; at most {MAX_HEADER} are allowed"
            )
        return cls(_head_from_json(_exactly(file, length, "header")), file, file.tell())

    @classmethod
    def from_bytes(cls, data: bytes) -> Passthrough:
        """Parse bytes made by ``to_bytes``; see ``read`` for errors."""
        return cls.read(BytesIO(data))

    @classmethod
    def from_chunks(cls, chunks: Iterable[bytes]) -> Passthrough:
        """As ``from_bytes`` for bytes in pieces; beyond 64 MiB they are held in a temporary file."""
        file = spool()
        for chunk in chunks:
            file.write(chunk)
        return cls.read(file)

    def chunks(self) -> Iterator[bytes]:
        """The serialised bytes, at most 1 MiB at a time."""
        at = 0
        while True:
            # Packets may be read between two chunks: the file's position is not ours alone.
            self._file.seek(at)
            chunk = self._file.read(_CHUNK)
            if not chunk:
                return
            at += len(chunk)
            yield chunk

    def to_bytes(self) -> bytes:
        """The serialised bytes, whole."""
        return b"".join(self.chunks())

    def packets(self) -> Iterator[PassPacket]:
        """Every packet in the source's order.

        Raises:
            CorruptArchive: a record is damaged; ``TruncatedArchive`` when the bytes end early.
        """
        file, at, count = self._file, self._packets_at, 0
        file.seek(0)
        crc = _crc_of(file, self._packets_at)
        while True:
            file.seek(at)
            packet, raw = _read_packet(file, len(self.head.streams))
            crc = zlib.crc32(raw, crc)
            at += len(raw)
            if packet is None:
                break
            count += 1
            yield packet
        (claimed,) = struct.unpack("<Q", raw[4:])
        file.seek(at)
        (stored,) = _CRC.unpack(_exactly(file, _CRC.size, "checksum"))
        if claimed != count or stored != crc:
            raise CorruptArchive(f"passthrough checksum or packet count is wrong after {count} packets")


def write_passthrough(head: PassHead, packets: Iterable[PassPacket]) -> Passthrough:
    """Serialise; beyond 64 MiB the bytes lie in a temporary file that goes with the result."""
    file = spool()
    header = _head_to_json(head)
    crc = 0

    def put(data: bytes) -> None:
        nonlocal crc
        crc = zlib.crc32(data, crc)
        file.write(data)

    put(_PREFIX.pack(MAGIC, VERSION, len(header)) + header)
    packets_at = file.tell()
    count = 0
    for packet in packets:
        put(_packet_bytes(packet))
        count += 1
    put(_END.pack(_END_MARK, count))
    file.write(_CRC.pack(crc))
    return Passthrough(head, file, packets_at)


def spool() -> IO[bytes]:
    """A temporary file that stays in memory up to 64 MiB."""
    return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)


def _exactly(file: IO[bytes], size: int, what: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise TruncatedArchive(f"passthrough ends inside its {what}: {len(data)} of {size} bytes")
    return data


def _crc_of(file: IO[bytes], size: int) -> int:
    crc = 0
    while size:
        data = _exactly(file, min(size, _CHUNK), "header")
        crc = zlib.crc32(data, crc)
        size -= len(data)
    return crc


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


def _read_packet(file: IO[bytes], streams: int) -> tuple[PassPacket | None, bytes]:
    """The next packet and its raw bytes; None with the end record's bytes at the end."""
    raw = bytearray(_exactly(file, 4, "packets"))
    (size,) = _CRC.unpack(raw)
    if size == _END_MARK:
        return None, bytes(raw + _exactly(file, _END.size - 4, "end record"))
    raw += _exactly(file, _PACKET.size - 4, "packets")
    _, stream, flags, pts, dts, duration, sides = _PACKET.unpack(raw)
    if size > MAX_PACKET or stream >= streams:
        raise CorruptArchive(f"implausible passthrough packet: {size} bytes of stream {stream}")
    side = []
    for _ in range(sides):
        part = _exactly(file, _SIDE.size, "packets")
        name_length, length = _SIDE.unpack(part)
        if length > MAX_PACKET:
            raise CorruptArchive(f"implausible passthrough side data of {length} bytes")
        body = _exactly(file, name_length + length, "packets")
        raw += part + body
        side.append((body[:name_length].decode("ascii", "replace"), body[name_length:]))
    data = _exactly(file, size, "packets")
    times = [None if time == _NO_TIME else time for time in (pts, dts)]
    return PassPacket(stream, flags, times[0], times[1], duration, tuple(side), data), bytes(raw) + data


def _head_to_json(head: PassHead) -> bytes:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return b64encode(value).decode("ascii")
        if isinstance(value, Fraction):
            return [value.numerator, value.denominator]
        raise TypeError(f"cannot write {type(value).__name__} into a passthrough header")

    return json.dumps(asdict(head), default=plain, separators=(",", ":")).encode("ascii")


def _head_from_json(data: bytes) -> PassHead:
    try:
        raw = json.loads(data)
        return PassHead(
            streams=tuple(_value(PassStream, item) for item in raw["streams"]),
            attachments=tuple(_value(PassAttachment, item) for item in raw["attachments"]),
            chapters=tuple(_value(PassChapter, item) for item in raw["chapters"]),
            metadata=_tags(raw["metadata"]),
            video_metadata=_tags(raw["video_metadata"]),
            video_disposition=int(raw["video_disposition"]),
            omitted=tuple(_value(Omitted, item) for item in raw["omitted"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, ZeroDivisionError, Base64Error) as error:
        raise CorruptArchive(f"passthrough header is not usable ({error})") from error


def _value(kind: type, item: dict[str, Any]) -> Any:
    """One of this module's values from its JSON, each field checked against its declared type."""
    readers: dict[str, Callable[[Any], Any]] = {
        "int": int,
        "str": _text,
        "bytes": lambda text: b64decode(_text(text), validate=True),
        "Fraction": lambda pair: Fraction(int(pair[0]), int(pair[1])),
        "dict[str, str]": _tags,
        "dict[str, int | str]": dict,
    }
    return kind(**{field.name: readers[str(field.type)](item[field.name]) for field in fields(kind)})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value


def _tags(value: Any) -> dict[str, str]:
    return {_text(key): _text(text) for key, text in dict(value).items()}
