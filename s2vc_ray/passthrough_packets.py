"""Packets as bytes: runs of records, and at the end an index of the runs by time (docs/format.md, "Passthrough data").

A run is read by itself, so a stretch of ten seconds costs as much of a tape as of a clip. Knows no head, no archive.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from s2vc_ray.archive.fields import Fields, put_varint, unzigzag, zigzag
from s2vc_ray.errors import CorruptArchive

KEY, DISCARD, CORRUPT, DISPOSABLE = 1, 2, 4, 8
RUN_BYTES = 1 << 16
"""A run ends with the packet that makes it this long."""

_RUN = struct.Struct("<II")
_TAIL = struct.Struct("<IQI")
_PTS, _DTS = 1, 2
_INT64 = 1 << 63
_ALWAYS = 1 << 61

Units = Sequence[Fraction | None]
"""Of each stream, the seconds per unit of its times; None for cover art, which belongs to all times."""

Take = Callable[[int, int, str], bytes]
"""(offset, size, what) to exactly those bytes, or `TruncatedArchive`; checked before memory is taken."""


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

    @property
    def time(self) -> int | None:
        """When it is shown, else when it is decoded."""
        return self.dts if self.pts is None else self.pts


@dataclass(slots=True)
class _Usual:
    """What a stream's next packet is expected to say, from its packets before in the run."""

    dts: int = 0
    duration: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """``size`` bytes of records, after a head of 8, whose packets are shown from ``first`` to ``last`` milliseconds."""

    size: int
    first: int
    last: int


class RunWriter:
    """Packets to bytes: `put` gives a run's bytes whenever one is full, `close` the rest."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._records = bytearray()
        self._usual: dict[int, _Usual] = {}
        self._spans = _Spans(units)
        self._runs: list[Run] = []
        self._count = 0

    def put(self, packet: PassPacket) -> bytes:
        """Add one packet."""
        _put_record(self._records, packet, self._usual.setdefault(packet.stream, _Usual()))
        self._spans.add(packet)
        self._count += 1
        return self._end_run() if len(self._records) >= RUN_BYTES else b""

    def close(self) -> bytes:
        """What is left of the packets, the index and the tail."""
        rest = self._end_run() if self._records else b""
        return rest + _ending(self._runs, self._count)

    def _end_run(self) -> bytes:
        records = bytes(self._records)
        self._runs.append(Run(len(records), *self._spans.end()))
        self._records.clear()
        self._usual.clear()
        return _RUN.pack(len(records), zlib.crc32(records)) + records


class _Spans:
    """The times of a run's packets in milliseconds, rounded outwards."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._at: dict[int, int] = {}
        self._first: int | None = None
        self._last = 0

    def add(self, packet: PassPacket) -> None:
        unit = self._units[packet.stream]
        if unit is None:
            begin, end = -_ALWAYS, _ALWAYS
        else:
            # Who has no time of its own is where its stream was last.
            time = self._at.get(packet.stream, 0) if packet.time is None else packet.time
            self._at[packet.stream] = time
            begin = 1000 * time * unit.numerator // unit.denominator
            end = -(-1000 * (time + max(0, packet.duration)) * unit.numerator // unit.denominator)
        begin, end = (max(-_ALWAYS, min(time, _ALWAYS)) for time in (begin, end))
        self._last = end if self._first is None else max(self._last, end)
        self._first = begin if self._first is None else min(self._first, begin)

    def end(self) -> tuple[int, int]:
        first, self._first = self._first or 0, None
        return first, max(first, self._last)


def read_packets(take: Take, size: int, units: Units) -> Iterator[PassPacket]:
    """Every packet, in the source's order, of ``size`` bytes that `RunWriter` made, and all of their checks.

    Raises:
        CorruptArchive: a run or the index is damaged; ``TruncatedArchive`` when the bytes end early.
    """
    at = count = 0
    spans, runs = _Spans(units), []
    while True:
        length, crc = _RUN.unpack(take(at, _RUN.size, "packets"))
        if not length:
            break
        for packet in _read_run(take(at + _RUN.size, length, "packets"), crc, len(units)):
            spans.add(packet)
            count += 1
            yield packet
        runs.append(Run(length, *spans.end()))
        at += _RUN.size + length
    ending = _ending(runs, count)
    if take(at, len(ending), "index") != ending or at + len(ending) != size:
        raise CorruptArchive(f"passthrough: {count} packets in {len(runs)} runs are not what its index says")


def read_stretch(take: Take, size: int, units: Units, begin: Fraction, end: Fraction) -> Iterator[PassPacket]:
    """The packets of those runs that touch ``begin``..``end`` seconds, and so perhaps some before and after.

    Reads the index and those runs only.

    Raises:
        CorruptArchive: they are damaged.
    """
    runs, stop = _read_index(take, size)
    at = 0
    for run in runs:
        if at + _RUN.size + run.size > stop - _RUN.size:
            raise CorruptArchive("passthrough: its index names more bytes than there are")
        if run.first <= 1000 * end and run.last >= 1000 * begin:
            length, crc = _RUN.unpack(take(at, _RUN.size, "packets"))
            if length != run.size:
                raise CorruptArchive("passthrough: a run is not where its index says")
            yield from _read_run(take(at + _RUN.size, length, "packets"), crc, len(units))
        at += _RUN.size + run.size


def _ending(runs: Sequence[Run], count: int) -> bytes:
    """What follows the last run of ``count`` packets in all."""
    index = bytearray()
    put_varint(index, len(runs))
    before = 0
    for run in runs:
        put_varint(index, run.size)
        put_varint(index, zigzag(run.first - before))
        put_varint(index, run.last - run.first)
        before = run.first
    return _RUN.pack(0, 0) + index + _TAIL.pack(len(index), count, zlib.crc32(index))


def _read_index(take: Take, size: int) -> tuple[list[Run], int]:
    """The runs, and where the index begins."""
    length, _, crc = _TAIL.unpack(take(size - _TAIL.size, _TAIL.size, "index"))
    start = size - _TAIL.size - length
    if start < _RUN.size:
        raise CorruptArchive("passthrough: its index is longer than what is there")
    index = take(start, length, "index")
    if zlib.crc32(index) != crc:
        raise CorruptArchive("passthrough: its index does not match its checksum")
    fields = Fields(index, "passthrough index")
    runs: list[Run] = []
    first = 0
    for _ in range(fields.varint()):
        run_size = fields.varint()
        first += unzigzag(fields.varint())
        runs.append(Run(run_size, first, first + fields.varint()))
    if fields.at != length:
        raise CorruptArchive("passthrough: its index holds more than its runs")
    return runs, start


def _put_record(out: bytearray, packet: PassPacket, usual: _Usual) -> None:
    plain = (
        packet.dts is not None
        and packet.pts == packet.dts
        and packet.flags == KEY
        and packet.duration == usual.duration
        and not packet.side
    )
    put_varint(out, 2 * packet.stream + plain)
    if not plain:
        put_varint(out, packet.flags)
        out.append(_PTS * (packet.pts is not None) + _DTS * (packet.dts is not None))
        put_varint(out, zigzag(_wrapped(packet.duration)))
    dts = usual.dts
    if packet.dts is not None:
        dts = packet.dts
        put_varint(out, zigzag(_wrapped(dts - usual.dts)))
    if not plain:
        if packet.pts is not None:
            put_varint(out, zigzag(_wrapped(packet.pts - dts)))
        put_varint(out, len(packet.side))
        for name, data in packet.side:
            put_varint(out, len(name))
            put_varint(out, len(data))
            out += name.encode("ascii") + data
    put_varint(out, len(packet.data))
    out += packet.data
    usual.dts, usual.duration = _wrapped(dts + packet.duration), packet.duration


def _wrapped(value: int) -> int:
    """Modulo 2^64, signed: times of broken sources lie anywhere."""
    return (value + _INT64) % (2 * _INT64) - _INT64


def _read_run(records: bytes, crc: int, streams: int) -> Iterator[PassPacket]:
    if zlib.crc32(records) != crc:
        raise CorruptArchive("passthrough: packets do not match their checksum")
    fields = Fields(records, "passthrough packets")
    usual: dict[int, _Usual] = {}
    while fields.at < len(records):
        stream, plain = divmod(fields.varint(), 2)
        if stream >= streams:
            raise CorruptArchive(f"a passthrough packet is of stream {stream}; there are {streams}")
        yield _read_record(fields, stream, bool(plain), usual.setdefault(stream, _Usual()))


def _read_record(fields: Fields, stream: int, plain: bool, usual: _Usual) -> PassPacket:
    flags, known, duration = KEY, _PTS | _DTS, usual.duration
    if not plain:
        flags, known, duration = fields.varint(), fields.byte(), unzigzag(fields.varint())
    base = _wrapped(usual.dts + unzigzag(fields.varint())) if known & _DTS else usual.dts
    pts: int | None = base
    side = []
    if not plain:
        pts = _wrapped(base + unzigzag(fields.varint())) if known & _PTS else None
        for _ in range(fields.varint()):
            name, size = fields.varint(), fields.varint()
            side.append((fields.take(name).decode("ascii", "replace"), fields.take(size)))
    data = fields.take(fields.varint())
    usual.dts, usual.duration = _wrapped(base + duration), duration
    return PassPacket(stream, flags, pts, base if known & _DTS else None, duration, tuple(side), data)
