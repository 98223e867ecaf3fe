"""Archives whose checksums are right and whose content is not, so that what lies behind the checksums is reached.

Takes an archive apart into header, blocks and index, changes one of them, and puts it together again with every CRC
computed anew. It knows the layout of docs/format.md, and none of the product's checks stand in its way.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from s2vc_ray.archive.fields import Fields, put_varint
from s2vc_ray.archive.phrases import fold, unfold
from s2vc_ray.errors import CorruptArchive
from s2vc_ray.fixity import crc32c
from tests.fuzz.damage import damage
from tests.fuzz.forge_av1 import forged_av1
from tests.fuzz.forge_json import forged_json
from tests.fuzz.forge_passthrough import forged_passthrough

COUNTS = (0, 1, 2, 127, 128, 65535, 65536, 65537, (1 << 31) - 1, 1 << 32, 1 << 60, 1 << 61, (1 << 64) - 1)
_GOP, _CHUNK, _INDEX = b"s2vG", b"s2vP", b"s2vI"
_CHUNK_BYTES = 1 << 20


@dataclass
class Record:
    """A GOP block's body by its fields, which may hold anything."""

    index: int
    first_frame: int
    q: int
    codec: bytes
    frames: int
    first_pts: int
    runs: list[tuple[int, int]]
    payload: bytes

    @classmethod
    def of(cls, body: bytes) -> Record:
        """The fields of a body that is right."""
        at = Fields(body, "seed")
        index, first, q = at.varint(), at.varint(), at.byte()
        codec, frames, pts = at.take(at.byte()), at.varint(), at.varint()
        runs, left = [], frames - 1
        while left > 0:
            runs.append((at.varint(), at.varint()))
            left -= runs[-1][0]
        return cls(index, first, q, codec, frames, pts, runs, body[at.at :])

    def pack(self) -> bytes:
        """The body."""
        out = bytearray()
        put_varint(out, self.index)
        put_varint(out, self.first_frame)
        out += bytes((self.q & 255, len(self.codec) & 255)) + self.codec
        for value in (self.frames, self.first_pts, *(one for run in self.runs for one in run)):
            put_varint(out, value)
        return bytes(out) + self.payload


@dataclass
class Parts:
    """An archive taken apart, its header as it is stored. ``index`` None: the index that the blocks call for."""

    header: bytes
    blocks: list[tuple[bytes, bytes]]
    index: bytes | None = None
    version: int = 2
    reserved: int = 0
    trailer: Callable[[int, int, int], bytes] = field(
        default=lambda offset, length, crc: struct.pack("<QII8s", offset, length, crc, b"S2VC-END")
    )

    @classmethod
    def of(cls, data: bytes) -> Parts:
        """The parts of a whole archive."""
        version, _, length = struct.unpack_from("<HHI", data, 8)
        at = 20 + length
        blocks: list[tuple[bytes, bytes]] = []
        while True:
            tag, size = struct.unpack_from("<4sI", data, at)
            if tag == _INDEX:
                return cls(data[20 : 20 + length], blocks, version=version)
            blocks.append((tag, data[at + 16 : at + 16 + size]))
            at += 16 + size

    def text(self) -> bytes:
        """The header's JSON."""
        return unfold(self.header, 1 << 16) if self.version == 2 else self.header

    def pack(self) -> bytes:
        """The archive, with every CRC as it must be."""
        start = struct.pack("<HHI", self.version, self.reserved, len(self.header))
        seed = crc32c(self.header, crc32c(start))
        out = bytearray(b"\x89S2VC\r\n\x1a" + start + struct.pack("<I", seed) + self.header)
        for tag, body in self.blocks:
            out += _block(tag, body, seed)
        footer = _block(_INDEX, self.called_for() if self.index is None else self.index, seed)
        return bytes(out + footer + self.trailer(len(out), len(footer), crc32c(footer)))

    def called_for(self) -> bytes:
        """The body of an index that fits the blocks as far as they can be read."""
        entries, before, chunks, size = [], (-1, 0, 0, 0), 0, 0
        for tag, body in self.blocks:
            if tag != _GOP:
                chunks, size = chunks + 1, size + max(0, len(body) - 4)
                continue
            try:
                record = Record.of(body)
            except CorruptArchive:
                record = Record(before[0] + 1, before[1] + before[2], 0, b"", 1, 0, [], b"")
            pts = record.first_pts
            signed = pts >> 1 if pts % 2 == 0 else -(pts >> 1) - 1
            step = signed - before[3]
            entries += [
                len(body) + 16,
                len(record.payload),
                record.index - before[0] - 1,
                record.first_frame - before[1] - before[2],
                record.frames,
                2 * step if step >= 0 else -2 * step - 1,
            ]
            before = (record.index, record.first_frame, record.frames, signed)
        return varints(len(entries) // 6, *entries, chunks, size)

    def records(self) -> list[int]:
        """Positions of the GOP blocks."""
        return [at for at, (tag, _) in enumerate(self.blocks) if tag == _GOP]


def _block(tag: bytes, body: bytes, seed: int) -> bytes:
    start = struct.pack("<4sII", tag, len(body), crc32c(body, seed))
    return start + struct.pack("<I", crc32c(start, seed)) + body


def varints(*values: int) -> bytes:
    """Values as the index stores them; what does not fit 64 bits wraps around."""
    out = bytearray()
    for value in values:
        put_varint(out, value % (1 << 64))
    return bytes(out)


def forged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was forged, and the archive."""
    parts = Parts.of(data)
    name = rng.choice(list(FORGERS))
    FORGERS[name](parts, rng)
    return name, parts.pack()


def most_frames(data: bytes) -> int:
    """Most frames that any GOP block of ``data`` names, at most 65536; 0 where there are no blocks."""
    most, at = 0, 0
    while (at := data.find(_GOP, at) + 1) > 0:
        fields = Fields(data[at + 15 : at + 120], "here")
        try:
            fields.varint(), fields.varint(), fields.byte(), fields.take(fields.byte())
            most = max(most, min(fields.varint(), 65536))
        except CorruptArchive:
            continue
    return most


def _header(parts: Parts, rng: random.Random) -> None:
    text = parts.text()
    match rng.randrange(3):
        case 0:
            parts.version, parts.header = 1, forged_json(json.loads(text), rng)
        case 1:
            parts.version, parts.header = 2, fold(forged_json(json.loads(text), rng))
        case 2:
            at = rng.randrange(len(parts.header) + 1)
            folded = bytes(rng.randrange(128, 256) for _ in range(rng.choice((1, 2, 40, 20_000))))
            parts.version, parts.header = 2, parts.header[:at] + folded + parts.header[at + rng.randrange(3) :]


def _prologue(parts: Parts, rng: random.Random) -> None:
    match rng.randrange(3):
        case 0:
            parts.version = rng.choice((0, 3 - parts.version, 3, 255, 65535))
        case 1:
            parts.reserved = rng.choice((1, 65535))
        case 2:
            parts.header = parts.header[:-1] + b" " * rng.choice((1, 65536, 100_000)) + b"}"


def _record(parts: Parts, rng: random.Random) -> None:
    at = rng.choice(parts.records())
    record = Record.of(parts.blocks[at][1])
    name = rng.choice(("index", "first_frame", "q", "codec", "frames", "first_pts", "runs", "run", "payload"))
    if name == "codec":
        record.codec = rng.choice((b"", b"x" * 33, b"\xff", b"../", b"s2vc\0", b"ffv1", b"x" * 255))
    elif name == "runs":
        record.runs = record.runs * rng.choice((0, 2, 300))
    elif name == "run":
        record.frames = rng.choice(COUNTS)
        record.runs = [(max(record.frames - 1, 0), rng.choice((0, 1, *COUNTS)))]
    elif name == "payload":
        record.payload = rng.choice((b"", record.payload * 2, record.payload[:3]))
    elif name == "q":
        record.q = rng.choice((64, 255))
    else:
        setattr(record, name, rng.choice(COUNTS))
    index = parts.called_for()
    parts.blocks[at] = (_GOP, record.pack())
    parts.index = None if rng.random() < 0.7 else index


def _body(parts: Parts, rng: random.Random) -> None:
    at = rng.randrange(len(parts.blocks))
    tag, body = parts.blocks[at]
    parts.blocks[at] = (tag, damage(body, rng))


def _tag(parts: Parts, rng: random.Random) -> None:
    at = rng.randrange(len(parts.blocks))
    parts.blocks[at] = (rng.choice((_GOP, _CHUNK, _INDEX, b"s2vX", b"\0\0\0\0")), parts.blocks[at][1])


def _order(parts: Parts, rng: random.Random) -> None:
    index = parts.called_for()
    block = parts.blocks.pop(rng.randrange(len(parts.blocks)))
    for _ in range(rng.choice((0, 1, 2))):
        parts.blocks.insert(rng.randrange(len(parts.blocks) + 1), block)
    parts.index = None if rng.random() < 0.5 else index


def _indexed(parts: Parts, rng: random.Random) -> None:
    body = parts.called_for()
    fields, values = Fields(body, "seed"), []
    while fields.at < len(body):
        values.append(fields.varint())
    at = rng.randrange(len(values))
    match rng.randrange(5):
        case 0:
            values[at] = rng.choice(COUNTS)
        case 1:
            values[at] += rng.choice((-1, 1, 16))
        case 2:
            values.insert(at, rng.choice(COUNTS))
        case 3:
            del values[at]
        case 4:
            values[0], values[1:-2] = values[0] * 500, values[1:-2] * 500
    parts.index = varints(*values) if rng.random() < 0.9 else damage(body, rng)


def _trailer(parts: Parts, rng: random.Random) -> None:
    which, other = rng.randrange(4), rng.choice(COUNTS)
    magic = b"S2VC-END" if which else rng.choice((b"\0" * 8, b"S2VC-ENd"))

    def pack(offset: int, length: int, crc: int) -> bytes:
        values = [offset, length, crc]
        if which:
            values[which - 1] = other
        return struct.pack(
            "<QII8s", values[0] % (1 << 64), values[1] % (1 << 32), values[2] % (1 << 32), magic
        )

    parts.trailer = pack


def _chunks(parts: Parts, rng: random.Random) -> None:
    at = rng.choice(
        [n for n, (tag, _) in enumerate(parts.blocks) if tag == _CHUNK] or [len(parts.blocks) - 1]
    )
    tag, body = parts.blocks[at]
    match rng.randrange(4):
        case 0:
            body = struct.pack("<I", rng.choice((1, 2, (1 << 32) - 1))) + body[4:]
        case 1:
            body = body[:4]
        case 2:
            body = body[: rng.randrange(5)]
        case 3:
            half = len(body) // 2
            parts.blocks.insert(at + 1, (tag, struct.pack("<I", 1) + body[half:]))
            body = body[:half]
    parts.blocks[at] = (tag, body)


def _passthrough(parts: Parts, rng: random.Random) -> None:
    data = b"".join(body[4:] for tag, body in parts.blocks if tag == _CHUNK)
    gops = [block for block in parts.blocks if block[0] == _GOP]
    if data:
        data = forged_passthrough(data, rng)
    pieces = [data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES)]
    parts.blocks = gops + [(_CHUNK, struct.pack("<I", n) + piece) for n, piece in enumerate(pieces)]


def _payload(parts: Parts, rng: random.Random) -> None:
    """A coded GOP with another head or other bits, in a record and an archive that agree with it."""
    at = rng.choice(parts.records())
    record = Record.of(parts.blocks[at][1])
    if record.codec == b"av1":
        record.payload = forged_av1(record.payload, rng)
    elif record.codec == b"s2vc-shots":
        record.payload = _forged_shots(record.payload, rng)
    elif record.codec == b"s2vc" and len(record.payload) >= _LEAST_PAYLOAD:
        record.payload, frames = _forged_s2vc(record.payload, rng)
        _agree(parts, record, frames, rng)
    parts.blocks[at] = (_GOP, record.pack())


def _agree(parts: Parts, record: Record, frames: int, rng: random.Random) -> None:
    """Mostly let record and header say what the payload of `s2vc` does."""
    if rng.random() < 0.7:
        width, height = struct.unpack_from("<HH", record.payload)
        record.frames, record.runs = frames, [(frames - 1, 1)] if frames > 1 else []
        header = json.loads(parts.text())
        header.update(width=width, height=height, frames=header["frames"] + min(frames, 1 << 20))
        parts.version, parts.header = 2, fold(json.dumps(header).encode("ascii"))


def _forged_shots(payload: bytes, rng: random.Random) -> bytes:
    """A shot forged, or other shots, or other numbers of them and of their bytes."""
    fields = Fields(payload, "seed")
    shots = [fields.take(fields.varint()) for _ in range(fields.varint())]
    count, at = len(shots), rng.randrange(len(shots))
    lengths = [len(shot) for shot in shots]
    match rng.randrange(5):
        case 0:
            count = rng.choice((0, 1, count - 1, count + 1, 65537, 1 << 34))
        case 1:
            lengths[at] = rng.choice((0, 1, lengths[at] - 1, lengths[at] + 1, 1 << 31))
        case 2:
            shots.append(rng.choice(shots))
            count, lengths = len(shots), [len(shot) for shot in shots]
        case 3:
            count = 65536
            shots, lengths = shots * 3, lengths * 3
        case 4:
            shots[at] = _forged_s2vc(shots[at], rng)[0]
            lengths[at] = len(shots[at])
    parts = (varints(length) + shot for length, shot in zip(lengths, shots, strict=True))
    return varints(count) + b"".join(parts)


def _forged_s2vc(payload: bytes, rng: random.Random) -> tuple[bytes, int]:
    """Another payload, and the frames that it claims."""
    fields = Fields(payload, "seed")
    width, height, q = struct.unpack("<HHB", fields.take(5))
    frames, length = fields.varint(), fields.varint()
    rest = payload[fields.at :]
    crc, checks, intra, inter = rest[:4], rest[4 : 4 + frames], rest[4 + frames :], b""
    intra, inter = intra[:length], intra[length:]
    match rng.randrange(8):
        case 0:
            width, height = rng.choice(_SIDES), rng.choice(_SIDES)
        case 1:
            frames = rng.choice((0, 1, frames + 1, frames + 9, 60_000, 65536, 65537, 1 << 34))
        case 2:
            length = rng.choice((0, 1, length + 4, 1 << 31, (1 << 35) - 1, 1 << 40))
        case 3:
            q = rng.choice((q ^ 64, q ^ 128, 255, q ^ 63))
        case 4:
            intra = damage(intra, rng)
        case 5:
            inter = damage(inter, rng)
        case 6:
            intra, inter = rng.choice(((b"", inter), (intra, b""), (inter, intra), (bytes(8), b"\xff" * 400)))
        case 7:
            crc, checks = rng.choice(((b"\0\0\0\0", checks), (crc, bytes(len(checks))), (crc, b"")))
    if rng.random() < 0.5:
        length = len(intra)
    if rng.random() < 0.5 and frames < 1 << 17:
        checks = checks.ljust(frames, b"\0")
    head = struct.pack("<HHB", width, height, q) + varints(frames, length)
    return head + crc + checks + intra + inter, frames


_LEAST_PAYLOAD = 12
_SIDES = (0, 1, 2, 31, 33, 64, 2000, 65535)

FORGERS: dict[str, Callable[[Parts, random.Random], None]] = {
    "header JSON": _header,
    "prologue": _prologue,
    "GOP fields": _record,
    "block bytes": _body,
    "block tags": _tag,
    "block order": _order,
    "index": _indexed,
    "trailer": _trailer,
    "chunks": _chunks,
    "passthrough": _passthrough,
    "payload": _payload,
}
