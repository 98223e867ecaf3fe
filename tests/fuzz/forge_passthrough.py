"""Passthrough data whose checksums are right and whose content is not; the layout is that of docs/format.md."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from dataclasses import dataclass

from s2vc_ray.archive.fields import Fields, put_varint
from s2vc_ray.errors import CorruptArchive
from tests.fuzz.damage import damage
from tests.fuzz.forge_json import forged_json

_COUNTS = (0, 1, 2, 3, 127, 65536, (1 << 31) - 1, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)
_PREFIX, _RUN, _TAIL = struct.Struct("<4sBII"), struct.Struct("<II"), struct.Struct("<IQI")


@dataclass
class Carried:
    """Passthrough data taken apart."""

    head: bytes
    files: bytes
    runs: list[bytes]
    index: bytes
    packets: int
    version: int = 1

    @classmethod
    def of(cls, data: bytes) -> Carried:
        """The parts of data that is whole."""
        *_, length, _ = _PREFIX.unpack_from(data)
        head = data[_PREFIX.size : _PREFIX.size + length]
        size = sum(one["size"] for one in json.loads(head)["attachments"])
        at = _PREFIX.size + length
        files, runs = data[at : at + size], []
        at += size
        while length := _RUN.unpack_from(data, at)[0]:
            runs.append(data[at + _RUN.size : at + _RUN.size + length])
            at += _RUN.size + length
        length, packets, _ = _TAIL.unpack(data[-_TAIL.size :])
        return cls(head, files, runs, data[-_TAIL.size - length : -_TAIL.size], packets)

    def pack(self) -> bytes:
        """The data, with every CRC as it must be."""
        out = _PREFIX.pack(b"S2PT", self.version, len(self.head), zlib.crc32(self.head)) + self.head
        out += self.files
        for run in self.runs:
            out += _RUN.pack(len(run), zlib.crc32(run)) + run
        out += _RUN.pack(0, 0) + self.index
        return out + _TAIL.pack(len(self.index), self.packets % (1 << 64), zlib.crc32(self.index))


def forged_passthrough(data: bytes, rng: random.Random) -> bytes:
    """``data`` with something else in it and right checksums, or cut short."""
    carried = Carried.of(data)
    forge = rng.choice((_head, _head, _template, _files, _records, _records, _runs, _index, _count, None))
    if forge is None:
        return data[: rng.randrange(len(data))] if rng.random() < 0.5 else damage(data, rng)
    forge(carried, rng)
    return carried.pack()


def _head(carried: Carried, rng: random.Random) -> None:
    carried.head = forged_json(json.loads(carried.head), rng)


def _template(carried: Carried, rng: random.Random) -> None:
    """What FFmpeg opens to learn a stream's parameters."""
    head = json.loads(carried.head)
    for stream in head["streams"]:
        template = damage(base64.b64decode(stream["template"]), rng, 20)
        stream["template"] = base64.b64encode(template).decode("ascii")
        if rng.random() < 0.2:
            stream["template_format"] = rng.choice(("matroska", "mov", "nut", "mpegts"))
    carried.head = json.dumps(head).encode("ascii")


def _files(carried: Carried, rng: random.Random) -> None:
    head = json.loads(carried.head)
    if not head["attachments"]:
        return
    one = rng.choice(head["attachments"])
    match rng.randrange(3):
        case 0:
            one["size"] = rng.choice((0, 1, one["size"] + 1, (1 << 31) - 1))
        case 1:
            head["attachments"] = [one] * rng.choice((2, 500))
        case 2:
            one["metadata"]["filename"] = rng.choice(
                ("../../outside", "/tmp/outside", "", "a\0b", "x" * 70_000)
            )
    carried.head = json.dumps(head).encode("ascii")


def _records(carried: Carried, rng: random.Random) -> None:
    """Other bytes, or one integer another, in a run."""
    if not carried.runs:
        return
    at = rng.randrange(len(carried.runs))
    run = carried.runs[at]
    if rng.random() < 0.4:
        carried.runs[at] = damage(run, rng) or b"\0"
        return
    fields = Fields(run, "seed")
    fields.at = rng.choice((0, 0, rng.randrange(len(run))))
    try:
        for _ in range(rng.randrange(6)):
            fields.varint()
        start = fields.at
        fields.varint()
    except CorruptArchive:
        return
    value = bytearray()
    put_varint(value, rng.choice(_COUNTS))
    carried.runs[at] = run[:start] + bytes(value) + run[fields.at :]


def _runs(carried: Carried, rng: random.Random) -> None:
    if not carried.runs:
        return
    run = carried.runs.pop(rng.randrange(len(carried.runs)))
    for _ in range(rng.choice((0, 2, 40))):
        carried.runs.insert(rng.randrange(len(carried.runs) + 1), run)


def _index(carried: Carried, rng: random.Random) -> None:
    fields, values = Fields(carried.index, "seed"), []
    while fields.at < len(carried.index):
        values.append(fields.varint())
    at = rng.randrange(len(values))
    values[at] = rng.choice((*_COUNTS, values[at] + 1))
    out = bytearray()
    for value in values * rng.choice((1, 1, 2)):
        put_varint(out, value)
    carried.index = bytes(out)


def _count(carried: Carried, rng: random.Random) -> None:
    if rng.random() < 0.3:
        carried.version = rng.choice((0, 2, 255))
    carried.packets = rng.choice(_COUNTS)
