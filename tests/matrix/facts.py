"""What FFmpeg says of a file, read without the product: the yardstick of the cases."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type


def shown(path: Path) -> list[Fraction]:
    """The times in seconds at which a plain decode of the file's video shows frames."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def facts(path: Path, stream: int = 0) -> dict[str, Any]:
    """What the file says of its pictures in a video stream and its first frame; None where it says nothing."""
    with av.open(str(path)) as file:
        video = file.streams.video[stream]
        frame = next(file.decode(video))
        context = video.codec_context
        side = {item.type: bytes(item) for item in frame.side_data}
        matrix = side.get(Type.DISPLAYMATRIX)
        light = side.get(Type.CONTENT_LIGHT_LEVEL)
        mastering = side.get(Type.MASTERING_DISPLAY_METADATA)
        return {
            "size": (frame.width, frame.height),
            "pix_fmt": frame.format.name,
            "range": int(frame.color_range),
            "primaries": int(frame.color_primaries),
            "transfer": int(frame.color_trc),
            "matrix": int(frame.colorspace),
            "aspect": video.sample_aspect_ratio,
            "rotation": frame.rotation,
            "display_matrix": struct.unpack("=9i", matrix) if matrix else None,
            "interlaced": frame.interlaced_frame,
            "field_order": context.field_order,
            "light": struct.unpack("=2I", light[:8]) if light else None,
            "mastering": _ratios(mastering) if mastering else None,
        }


def levels(path: Path) -> list[float]:
    """The mean of each plane of the first frame, on a scale of 8 bits."""
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        kinds = {8: np.uint8}
        means = []
        for plane, component in zip(frame.planes, frame.format.components, strict=True):
            kind = kinds.get(component.bits, np.uint16)
            rows = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
            means.append(float(rows.mean()) / 2 ** (component.bits - 8))
        return means


def _ratios(mastering: bytes) -> tuple[Fraction, ...]:
    numbers = struct.unpack("=20i", mastering[:80])
    return tuple(Fraction(top, bottom) for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))
