"""Archives read with the standard library alone, written from docs/format.md and from nothing else.

It imports nothing of the product on purpose, not even a checksum: where the two agree, the page says what both do.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

PHRASES = Path(__file__).parents[2] / "docs" / "header-phrases.json"
"""Part of the page."""


class Damaged(Exception):
    """The bytes are not as the page says."""


class Coded(NamedTuple):
    """The structure of an `s2vc` payload; ``size`` is width, height, frames, ``scale`` how pictures were enlarged."""

    size: tuple[int, int, int]
    q: int
    scale: int
    symbol_crc: int
    checks: bytes
    intra: bytes
    inter: bytes


class Av1(NamedTuple):
    """The structure of an `av1` payload; ``units`` are its temporal units, each a list of (OBU type, bytes)."""

    size: tuple[int, int, int]
    crf: int
    plane_crc: int
    checks: bytes
    units: list[list[tuple[int, bytes]]]


class Shots(NamedTuple):
    """The structure of an `s2vc-shots` payload."""

    size: tuple[int, int, int]
    q: int
    shots: list[Coded]


class Gop(NamedTuple):
    """One GOP record; ``coded`` is None for a codec that the page does not describe."""

    number: int
    first_frame: int
    q: int
    codec: str
    pts: list[int]
    payload: bytes
    coded: Coded | Shots | Av1 | None


class Packet(NamedTuple):
    """One carried packet; None is an unknown time."""

    stream: int
    flags: int
    pts: int | None
    dts: int | None
    duration: int
    side: dict[str, bytes]
    data: bytes


class Carried(NamedTuple):
    """Passthrough data: its head as the JSON says it, attached files and packets."""

    head: dict[str, Any]
    files: list[bytes]
    packets: list[Packet]


class Archive(NamedTuple):
    """Everything that an archive holds but its pixels."""

    header: dict[str, Any]
    gops: list[Gop]
    passthrough: bytes


def check(holds: object, what: str) -> None:
    """Damaged unless it holds."""
    if not holds:
        raise Damaged(what)


_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data: bytes, before: int = 0) -> int:
    """CRC-32C of ``data``, continuing from ``before``."""
    crc = before ^ 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Cursor:
    """Fields of ``data``, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        check(size <= len(self.data) - self.at, f"{size} bytes wanted at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                check((byte or shift == 7) and value < 1 << 64, "a varint is not in its shortest form")
                return value
            check(shift < 70, "a varint has more than ten bytes")

    def signed(self) -> int:
        value = self.varint()
        return -(value + 1) // 2 if value % 2 else value // 2


def read_archive(data: bytes) -> Archive:
    """Everything in ``data``; Damaged when anything is not as it must be."""
    file = Cursor(data)
    check(file.take(8) == b"\x89S2VC\r\n\x1a", "no magic")
    version, reserved, length, seed = file.numbers("HHII")
    check(version in (1, 2) and not reserved and length <= 65536, "unknown version, or reserved bits, or length")
    text = file.take(length)
    check(crc32c(data[8:16] + text) == seed, "CRC of the header")
    if version == 2:
        text = _unfolded(Cursor(text))
    header = json.loads(text.decode("ascii"), object_pairs_hook=_once)

    tail = Cursor(data[-24:])
    offset, size, crc, magic = tail.numbers("QII8s")
    check(magic == b"S2VC-END" and offset + size + 24 == len(data), "trailer")
    check(crc32c(data[offset : offset + size]) == crc, "CRC of the index block")

    gops: list[Gop] = []
    chunks: list[bytes] = []
    found: list[tuple[int, Gop]] = []
    while file.at < offset:
        begun = file.at
        tag, body = _block(file, seed)
        if tag == b"s2vG":
            check(not chunks, "a GOP behind passthrough")
            gops.append(_gop(Cursor(body), header))
            found.append((file.at - begun, gops[-1]))
        else:
            check(tag == b"s2vP" and body[:4] == struct.pack("<I", len(chunks)), "a block out of place")
            check(not chunks or len(chunks[-1]) == 1 << 20, "a chunk that is not full")
            chunks.append(body[4:])
            check(0 < len(chunks[-1]) <= 1 << 20, "an empty or too long chunk")
    tag, body = _block(file, seed)
    check(tag == b"s2vI" and file.at == offset + size, "no index where the trailer says")
    _agree_with_index(Cursor(body), found, chunks)
    for before, after in pairwise(gops):
        check(before.number < after.number, "GOPs are out of order")
        check(before.first_frame + len(before.pts) <= after.first_frame, "frames overlap")
        check(before.pts[-1] <= after.pts[0], "times overlap")
    return Archive(header, gops, b"".join(chunks))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check(len(dict(pairs)) == len(pairs), "a key appears twice")
    return dict(pairs)


def _block(file: Cursor, seed: int) -> tuple[bytes, bytes]:
    head = file.take(16)
    tag, length, body_crc, head_crc = struct.unpack("<4sIII", head)
    check(crc32c(head[:12], seed) == head_crc and length <= 1 << 28, f"block head at {file.at - 16}")
    body = file.take(length)
    check(crc32c(body, seed) == body_crc, f"CRC of the block at {file.at - length - 16}")
    return tag, body


def _unfolded(folded: Cursor) -> bytes:
    phrases = [text.encode("ascii") for text in json.loads(PHRASES.read_text())]
    out = b""
    while folded.at < len(folded.data):
        (byte,) = folded.take(1)
        if byte < 128:
            out += bytes([byte])
        elif byte == 255:
            out += folded.take(32).hex().encode("ascii")
        else:
            check(byte - 128 < len(phrases), "a folded byte that stands for nothing")
            out += phrases[byte - 128]
    check(len(out) <= 65536, "a longer header than may be")
    return out


def _gop(body: Cursor, header: dict[str, Any]) -> Gop:
    index, first, (q, size) = body.varint(), body.varint(), body.numbers("BB")
    codec, frames = body.take(size).decode("ascii"), body.varint()
    check(1 <= frames <= 65536 and q < 64 and 1 <= size <= 32, "implausible GOP")
    pts = [body.signed()]
    while len(pts) < frames:
        run, step = body.varint(), body.varint()
        check(1 <= run <= frames - len(pts), "a run of times is too long")
        pts += [pts[-1] + step * n for n in range(1, run + 1)]
    check(max(-pts[0], pts[-1]) < 1 << 61, "times beyond all bounds")
    check(first + frames <= header["frames"], "more frames than the header says")
    payload = body.rest()
    reads = {"s2vc": _coded, "s2vc-shots": _shots, "av1": _av1}.get(codec)
    coded = reads(Cursor(payload)) if reads else None
    if coded:
        check(coded.size == (header["width"], header["height"], frames), "payload of another size")
    return Gop(index, first, q, codec, pts, payload, coded)


def _coded(payload: Cursor) -> Coded:
    width, height, packed = payload.numbers("HHB")
    counted, length = payload.varint(), payload.varint()
    frames, fine = counted & 0x1FFFF, counted >> 17
    check(fine < 4, "more quarters than three")
    (crc,), checks = payload.numbers("I"), payload.take(frames)
    q, scale = packed & 63, packed >> 6
    own = q - (0, 11, 19, 14)[scale]
    check(0 <= own <= (62 if fine else 63), "a quality that this scale does not have")
    coded = Coded((width, height, frames), q, scale, crc, checks, payload.take(length), payload.rest())
    check(checks[-1] == crc & 255, "symbol CRC and last check differ")
    for stream in (coded.intra, coded.inter):
        check(not stream or (len(stream) >= 8 and len(stream) % 4 == 0), "a stream is not whole words")
    check(frames > 1 or not coded.inter, "an inter stream of no frames")
    return coded


def _shots(payload: Cursor) -> Shots:
    count = payload.varint()
    check(2 <= count <= 65536, "a GOP of so many shots")
    shots = [_coded(Cursor(payload.take(payload.varint()))) for _ in range(count)]
    check(payload.at == len(payload.data), "bytes behind the last shot")
    check(
        len({(shot.size[:2], shot.q, shot.scale) for shot in shots}) == 1,
        "shots of several sizes or qualities",
    )
    width, height, _ = shots[0].size
    return Shots((width, height, sum(shot.size[2] for shot in shots)), shots[0].q, shots)


def _av1(payload: Cursor) -> Av1:
    version, crf, width, height, frames, crc = payload.numbers("BBHHII")
    check(version == 1 and crf < 64 and 1 <= frames <= 65536, "implausible AV1 head")
    check(0 < width <= 16384 and 0 < height <= 8704, "an AV1 picture's size")
    checks = payload.take(frames)
    check(checks[-1] == crc & 255, "plane CRC and last check differ")
    units: list[list[tuple[int, bytes]]] = []
    while payload.at < len(payload.data):
        (head,) = payload.take(1)
        check(head & 0b10000111 == 2, "an OBU without size, with an extension, or with reserved bits")
        kind, size = head >> 3, 0
        for shift in range(0, 35, 7):
            (byte,) = payload.take(1)
            size |= (byte & 127) << shift
            if byte < 128:
                break
        check(byte < 128, "an OBU's size of more than five bytes")
        if kind == 2:
            check(size == 0, "a temporal delimiter with content")
            units.append([])
        check(units, "an OBU before the first temporal delimiter")
        units[-1].append((kind, payload.take(size)))
        check(len(units[-1]) <= 64, "too many OBUs in a temporal unit")
    check(len(units) == frames, "number of temporal units")
    check(len(units[0]) > 1 and units[0][1][0] == 1, "no sequence header at the beginning")
    return Av1((width, height, frames), crf, crc, checks, units)


def _agree_with_index(body: Cursor, found: list[tuple[int, Gop]], chunks: list[bytes]) -> None:
    check(body.varint() == len(found), "number of GOPs")
    index, frame, pts = -1, 0, 0
    for size, gop in found:
        check(body.varint() == size and body.varint() == len(gop.payload), "lengths in the index")
        index, frame = index + 1 + body.varint(), frame + body.varint()
        check(
            (index, frame, body.varint()) == (gop.number, gop.first_frame, len(gop.pts)),
            "frames in the index",
        )
        pts, frame = pts + body.signed(), frame + len(gop.pts)
        check(pts == gop.pts[0], "times in the index")
    check(body.varint() == len(chunks) and body.varint() == sum(map(len, chunks)), "extent of passthrough")
    check(not body.rest(), "bytes behind the index")


def read_passthrough(data: bytes) -> Carried:
    """Everything in passthrough data; Damaged when a length or a sum is wrong."""
    file = Cursor(data)
    magic, version, length, crc = file.numbers("4sBII")
    check(magic == b"S2PT" and version == 1 and length <= 1 << 26, "no magic, another version, or length")
    text = file.take(length)
    check(crc == zlib.crc32(text), "CRC of the head")
    head, files = json.loads(text.decode("ascii")), []
    for one in head["attachments"]:
        files.append(file.take(one["size"]))
        check(one["crc32"] == zlib.crc32(files[-1]), "CRC of an attached file")
    packets: list[Packet] = []
    runs: list[tuple[int, list[Packet]]] = []
    while True:
        size, crc = file.numbers("II")
        if not size:
            check(not crc, "end of the runs")
            break
        records = file.take(size)
        check(crc == zlib.crc32(records), "CRC of a run")
        runs.append((size, _run(Cursor(records), len(head["streams"]))))
        packets += runs[-1][1]
    begin = file.at
    check(file.varint() == len(runs), "number of runs")
    shown, before = dict[int, int](), 0
    for size, found in runs:
        check(file.varint() == size, "length of a run")
        first, last = _span(found, head["streams"], shown)
        before += file.signed()
        check(before == first and before + file.varint() == last, "times of a run")
    index = data[begin : file.at]
    check(file.numbers("IQI") == (len(index), len(packets), zlib.crc32(index)), "tail")
    check(not file.rest(), "bytes behind the end")
    for number, one in enumerate(head["streams"]):
        check(one["packets"] == sum(p.stream == number for p in packets), f"packets of stream {number}")
    return Carried(head, files, packets)


def _run(records: Cursor, streams: int) -> list[Packet]:
    found = []
    expected: dict[int, tuple[int, int]] = {}
    while records.at < len(records.data):
        stream, plain = divmod(records.varint(), 2)
        check(stream < streams, "a packet of no stream")
        dts, duration = expected.get(stream, (0, 0))
        flags, known, side = 1, 3, {}
        if not plain:
            flags, known, duration = records.varint(), records.take(1)[0], _wrapped(records.signed())
        dts = _wrapped(dts + (records.signed() if known & 2 else 0))
        pts: int | None = dts
        if not plain:
            pts = _wrapped(dts + records.signed()) if known & 1 else None
            for _ in range(records.varint()):
                name, size = records.varint(), records.varint()
                label = records.take(name).decode("ascii")
                side[label] = records.take(size)
        data = records.take(records.varint())
        found.append(Packet(stream, flags, pts, dts if known & 2 else None, duration, side, data))
        expected[stream] = _wrapped(dts + duration), duration
    return found


def _wrapped(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _span(packets: list[Packet], streams: list[dict[str, Any]], shown: dict[int, int]) -> tuple[int, int]:
    """First and last millisecond of a run. ``shown`` keeps where each stream was last."""
    most, times = 1 << 61, []
    for packet in packets:
        stream = streams[packet.stream]
        if stream["kind"] == "video":
            times += [-most, most]
            continue
        time = packet.dts if packet.pts is None else packet.pts
        time = shown.get(packet.stream, 0) if time is None else time
        shown[packet.stream] = time
        unit = Fraction(*stream["time_base"]) * 1000
        times += [math.floor(time * unit), math.ceil((time + max(0, packet.duration)) * unit)]
    first, last = (max(-most, min(time, most)) for time in (min(times), max(times)))
    return first, last
