"""What a decoded frame carries beside its picture: display matrix and HDR10's static metadata, bytes to values; the
rest by name.

FFmpeg hands these out as C structures in the machine's byte order. It must not know files or streams.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import cast

from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame

from s2vc_ray.values import ContentLight, DisplayMatrix, MasteringDisplay

_NOT_KEPT = {
    Type.A53_CC: "closed captions",
    Type.AFD: "active format description",
    Type.AMBIENT_VIEWING_ENVIRONMENT: "ambient viewing environment",
    Type.DOVI_METADATA: "Dolby Vision metadata",
    Type.DOVI_RPU_BUFFER: "Dolby Vision metadata",
    Type.DYNAMIC_HDR_PLUS: "HDR10+ metadata",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid metadata",
    Type.GOP_TIMECODE: "timecodes",
    Type.ICC_PROFILE: "colour profile",
    Type.S12M_TIMECODE: "timecodes",
    Type.SPHERICAL: "spherical projection",
    Type.STEREO3D: "stereoscopic layout",
}
"""Side data that is not about how FFmpeg coded or decodes the picture."""

_NAMELESS = "metadata of the pictures that PyAV cannot name (such as Exif)"

_FROM_ZERO = frozenset(struct.pack("=q", code) for code in (0, 1 << 12))
"""GOP timecodes of 0 with and without the marker bit of ISO/IEC 13818-2, 6.3.8."""

_MATRIX = struct.Struct("=9i")
_MASTERING = struct.Struct("=20i2i")
_LIGHT = struct.Struct("=2I")


def display_matrix(frame: VideoFrame) -> DisplayMatrix | None:
    """The nine numbers by which players rotate, flip and scale the picture; None when it is shown as it is."""
    data = _bytes_of(frame, Type.DISPLAYMATRIX, _MATRIX.size)
    return None if data is None else _MATRIX.unpack(data)


def rotation(frame: VideoFrame) -> int:
    """By how many degrees to rotate the picture, -180..180; 0 where its matrix is no rotation, such as all zeros."""
    degrees = int(frame.rotation)
    return degrees if abs(degrees) <= 180 else 0


def mastering_display(frame: VideoFrame) -> MasteringDisplay | None:
    """The mastering display of SMPTE ST 2086 (`MasteringDisplay`); what the source does not say of it is 0.

    None also where a number is negative: that is damage.
    """
    data = _bytes_of(frame, Type.MASTERING_DISPLAY_METADATA, _MASTERING.size)
    if data is None:
        return None
    *numbers, has_primaries, has_luminance = _MASTERING.unpack(data)
    if min(numbers) < 0:
        return None
    fractions = [
        Fraction(top, bottom) if bottom else Fraction(0)
        for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    colours = fractions[:8] if has_primaries else [Fraction(0)] * 8
    return (*colours, *(fractions[8:] if has_luminance else [Fraction(0)] * 2))


def content_light(frame: VideoFrame) -> ContentLight | None:
    """MaxCLL and MaxFALL of CTA-861.3, in cd/m²."""
    data = _bytes_of(frame, Type.CONTENT_LIGHT_LEVEL, _LIGHT.size)
    return None if data is None else _LIGHT.unpack(data)


def not_kept(frame: VideoFrame) -> tuple[str, ...]:
    """What else the frame carries for players and people, in words, that no archive holds.

    A GOP's timecode of 0 is left out: most encoders count from there without a meaning.
    """
    items = _items(frame)
    if items is None:
        return (_NAMELESS,)
    told = [item for item in items if item.type != Type.GOP_TIMECODE or bytes(item) not in _FROM_ZERO]
    return tuple(sorted({_NOT_KEPT[item.type] for item in told if item.type in _NOT_KEPT}))


def _bytes_of(frame: VideoFrame, kind: Type, size: int) -> bytes | None:
    """The start of one item; later FFmpegs may append fields to a structure."""
    data = next((bytes(item) for item in _items(frame) or () if item.type == kind), b"")
    return data[:size] if len(data) >= size else None


def _items(frame: VideoFrame) -> list[SideData] | None:
    """What a frame carries; None where PyAV lets nobody see any of it, for one item that it has no name for."""
    try:
        # Its own types call this container a mapping; it iterates its items.
        return list(cast("Iterable[SideData]", frame.side_data))
    except ValueError:
        return None
