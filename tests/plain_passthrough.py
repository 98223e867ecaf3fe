"""Passthrough data read with the standard library alone, written from docs/format.md and from nothing else."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
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
    begin, packets = at, []
    while (size := numbers("I")[0]) != 0xFFFFFFFF:
        stream, flags, pts, dts, duration, sides = numbers("HHqqqB")
        side = {}
        for _ in range(sides):
            name_length, side_length = numbers("BI")
            name = take(name_length).decode("ascii")
            side[name] = take(side_length)
        times = [None if time == -(1 << 63) else time for time in (pts, dts)]
        packets.append(PlainPacket(stream, flags, times[0], times[1], duration, side, take(size)))
    (count,) = numbers("Q")
    agree("packets", count, len(packets))
    computed = zlib.crc32(data[begin:at])
    agree("end", numbers("I")[0], computed)
    agree("length", len(data), at)
    for number, one in enumerate(head["streams"]):
        agree(f"packets of stream {number}", one["packets"], sum(p.stream == number for p in packets))
    return PlainPassthrough(head, files, packets)
