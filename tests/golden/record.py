"""What is recorded of a golden archive, and how it is found out again."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord
from s2vc_ray.archive.phrases import unfold
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.gop_decoder import AnyGop, coded_gop
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.shots import ShotsGop

SETS = Path(__file__).parent / "sets"
"""One folder for each set of weights, named by the first 12 hex digits of their SHA-256."""
RECORD = "golden.json"


def describe(data: bytes) -> dict[str, Any]:
    """Symbol CRCs, time stamps and digests of all that an archive holds."""
    reader = ArchiveReader(data)
    return {
        "sha256": digest(data),
        "weights_sha256": reader.header.weights_sha256,
        "header": _header(data, reader),
        "gops": [described_gop(record, reader.header) for record in reader.gops()],
        "passthrough": _carried(reader),
    }


def _header(data: bytes, reader: ArchiveReader) -> dict[str, Any]:
    """What the product reads of each key that the archive's header has; later versions know more keys."""
    parsed = json.loads(reader.header.to_json())
    version, _, length = struct.unpack_from("<HHI", data, 8)
    stored = data[20 : 20 + length]
    return {name: parsed[name] for name in json.loads(stored if version == 1 else unfold(stored, 1 << 16))}


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def described_gop(record: GopRecord, header: ArchiveHeader) -> dict[str, Any]:
    coded = coded_gop(record, header)
    return {
        "index": record.index,
        "first_frame": record.first_frame,
        "q": record.q,
        "codec": record.codec,
        "pts": list(record.pts),
        "payload": digest(record.payload),
        "checks": b"".join(part.checks for part in _parts(coded)).hex(),
        "symbol_crc": " ".join(f"{_crc(part):08x}" for part in _parts(coded)),
    }


def _parts(gop: AnyGop) -> tuple[EncodedGop | Av1Gop, ...]:
    return gop.shots if isinstance(gop, ShotsGop) else (gop,)


def _crc(gop: EncodedGop | Av1Gop) -> int:
    return gop.plane_crc if isinstance(gop, Av1Gop) else gop.symbol_crc


def _carried(reader: ArchiveReader) -> dict[str, Any] | None:
    if not reader.index.passthrough_bytes:
        return None
    carried = Passthrough.from_chunks(reader.passthrough())
    packets = list(carried.packets())
    return {
        "streams": [
            {
                "codec": stream.codec,
                "packets": sum(one.stream == number for one in packets),
                "times": digest(
                    repr(
                        [(p.pts, p.dts, p.duration, p.flags) for p in packets if p.stream == number]
                    ).encode()
                ),
                "data": digest(b"".join(p.data for p in packets if p.stream == number)),
                "side": digest(repr([p.side for p in packets if p.stream == number]).encode()),
            }
            for number, stream in enumerate(carried.head.streams)
        ],
        "attachments": [
            {"name": one.name, "sha256": digest(carried.attachment(number))}
            for number, one in enumerate(carried.head.attachments)
        ],
        "chapters": [[one.start, one.end] for one in carried.head.chapters],
        "metadata": carried.head.metadata,
    }
