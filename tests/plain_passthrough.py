"""Passthrough data read with the standard library alone, written from docs/format.md and from nothing else."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class PlainPacket:
    """One packet; None is an unknown time."""

    stream: int
    flags: int
    pts: int | None
    dts: int | None
    duration: int
    side: dict[str, bytes]
    data: bytes


@dataclass(frozen=True)
class PlainPassthrough:
    """The head as its JSON says it, attached files and packets."""

    head: dict[str, Any]
    files: list[bytes]
    packets: list[PlainPacket]


class Damaged(Exception):
    """The bytes are not as the page says."""


def read_passthrough(data: bytes) -> PlainPassthrough:
    """Everything in ``data``; Damaged when a length or a sum is wrong."""
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if size > len(data) - at:
            raise Damaged(f"{size} bytes wanted at {at} of {len(data)}")
        at += size
        return data[at - size : at]

    def numbers(form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", take(struct.calcsize(f"<{form}")))

    def agree(what: str, stored: int, computed: int) -> None:
        if stored != computed:
            raise Damaged(f"{what}: {stored} is not {computed}")

    if take(4) != b"S2PT":
        raise Damaged("no magic")
    version, length, crc = numbers("BII")
    agree("version", version, 1)
    text = take(length)
    agree("head", crc, zlib.crc32(text))
    head = json.loads(text)
    files = []
    for one in head["attachments"]:
        files.append(take(one["size"]))
        agree("attached file", one["crc32"], zlib.crc32(files[-1]))
    packets, runs = [], []
    while True:
        size, crc = numbers("II")
        if not size:
            agree("end", crc, 0)
            break
        records = take(size)
        agree("run", crc, zlib.crc32(records))
        found = read_run(records)
        packets += found
        runs.append((size, found))
    begin = at
    (count,) = varint(take)
    shown, before = dict[int, int](), 0
    for number in range(count):
        agree("runs", count, len(runs))
        size, found = runs[number]
        agree("length of a run", varint(take)[0], size)
        times = []
        for packet in found:
            stream = head["streams"][packet.stream]
            time = packet.dts if packet.pts is None else packet.pts
            time = shown.get(packet.stream, 0) if time is None else time
            if stream["kind"] == "video":
                times += [-(1 << 61), 1 << 61]
                continue
            shown[packet.stream] = time
            unit = Fraction(*stream["time_base"]) * 1000
            times += [math.floor(time * unit), math.ceil((time + packet.duration) * unit)]
        before += signed(take)
        agree("first time of a run", before, min(times))
        agree("last time of a run", before + varint(take)[0], max(times))
    index = data[begin:at]
    length, count, crc = numbers("IQI")
    agree("index", length, len(index))
    agree("index", crc, zlib.crc32(index))
    agree("packets", count, len(packets))
    agree("length", len(data), at)
    for number, one in enumerate(head["streams"]):
        agree(f"packets of stream {number}", one["packets"], sum(p.stream == number for p in packets))
    return PlainPassthrough(head, files, packets)


def varint(take: Callable[[int], bytes]) -> tuple[int]:
    """LEB128, one number."""
    value = shift = 0
    while True:
        (byte,) = take(1)
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value,)


def signed(take: Callable[[int], bytes]) -> int:
    """Zigzag."""
    (value,) = varint(take)
    return -(value + 1) // 2 if value % 2 else value // 2


def read_run(records: bytes) -> list[PlainPacket]:
    """The packets of one run."""
    at, found = 0, []
    expected: dict[int, tuple[int, int]] = {}

    def take(size: int) -> bytes:
        nonlocal at
        if size > len(records) - at:
            raise Damaged("a record leaves its run")
        at += size
        return records[at - size : at]

    while at < len(records):
        stream, plain = divmod(varint(take)[0], 2)
        usual, duration = expected.get(stream, (0, 0))
        flags, known, side = 1, 3, {}
        if not plain:
            (flags,), (known,), duration = varint(take), take(1), signed(take)
        dts = usual + signed(take) if known & 2 else usual
        pts: int | None = dts
        if not plain:
            pts = dts + signed(take) if known & 1 else None
            for _ in range(varint(take)[0]):
                (name,), (size,) = varint(take), varint(take)
                label = take(name).decode("ascii")
                side[label] = take(size)
        packet = PlainPacket(
            stream, flags, pts, dts if known & 2 else None, duration, side, take(varint(take)[0])
        )
        expected[stream] = dts + duration, duration
        found.append(packet)
    return found
