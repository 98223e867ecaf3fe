"""Small archives for tests."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from s2vc_ray.archive import ArchiveHeader, GopRecord, write_archive
from s2vc_ray.values import ColourTags


def header(**changes: Any) -> ArchiveHeader:
    """A plausible header with ``changes``."""
    fields: dict[str, Any] = {
        "model_id": "s2vc-small-1",
        "weights_sha256": "a" * 64,
        "preset": "small",
        "width": 353,
        "height": 287,
        "time_base": Fraction(1, 90000),
        "colour": ColourTags(range=1, primaries=1, transfer=1, matrix=1),
        "rotation": -90,
        "sample_aspect": Fraction(12, 11),
        "average_rate": Fraction(30000, 1001),
        "last_duration": 3003,
        "frames": 100,
        "gop_length": 32,
        "q": 20,
        "source_name": "clip é.mp4",
        "source_size": 123456,
        "source_sha256": "b" * 64,
        "creator": "s2vc-ray 0.1.0",
    }
    return ArchiveHeader(**{**fields, **changes})


# A whole GOP; one of variable rate that lost frames; GOP 2 lost altogether; two frames with one time stamp.
GOPS = (
    GopRecord(0, 0, 20, tuple(range(-3003, 31 * 3003 - 3003 + 1, 3003)), b"intra and inter" * 4),
    GopRecord(1, 32, 21, (93093, 96096, 96097, 99999, 200000), bytes(range(200)), "fallback"),
    GopRecord(3, 96, 0, (300000, 300000), b"\x00"),
)
PASSTHROUGH = b"audio packets and such " * 10


def archive_bytes(
    gops: Iterable[GopRecord] = GOPS, passthrough: Iterable[bytes] = (PASSTHROUGH,), **changes: Any
) -> bytes:
    """A whole archive."""
    out = io.BytesIO()
    write_archive(out, header(**changes), gops, passthrough)
    return out.getvalue()
