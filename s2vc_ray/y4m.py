"""YUV4MPEG2, the raw pipe format: 8-bit 4:4:4 pictures at a constant rate, and nothing else.

Chroma is kept whole so that any size, odd ones too, passes without a crop. It must not know where the bytes
go.
"""

from __future__ import annotations

from fractions import Fraction
from typing import IO

from av.video.frame import VideoFrame

FORMAT = "yuv444p"


_FIELDS = {"tt": "t", "bt": "t", "bb": "b", "tb": "b", "interlaced": "?"}
"""Which field is shown first, by FFmpeg's names of field orders."""


def header_line(
    width: int,
    height: int,
    rate: Fraction,
    aspect: Fraction,
    full_range: bool,
    field_order: str = "progressive",
) -> bytes:
    """The stream header; an ``aspect`` of 0 is unknown, ``field_order`` one of `s2vc_ray.values.FIELD_ORDERS`."""
    fields = _FIELDS.get(field_order, "p")
    shape = f"{aspect.numerator}:{aspect.denominator}" if aspect else "0:0"
    colour_range = "FULL" if full_range else "LIMITED"
    return (
        f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} I{fields} "
        f"A{shape} C444 XCOLORRANGE={colour_range}\n"
    ).encode("ascii")


def write_frame(file: IO[bytes], frame: VideoFrame) -> None:
    """One yuv444p frame."""
    file.write(b"FRAME\n")
    for plane in frame.planes:
        rows = memoryview(plane)
        for row in range(frame.height):
            at = row * plane.line_size
            file.write(rows[at : at + frame.width])
