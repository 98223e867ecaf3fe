"""Which packets decoding may begin at and still give every later frame exactly.

Containers also flag as keyframes the H.264 recovery points of streams that refresh their picture bit by bit
(ITU-T H.264, D.2.8): decoders begin there, and show wrong pictures for a while without a word. Those are
no seek points here. It must not know files or GOPs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from av.packet import Packet
from av.video.stream import VideoStream

_IDR, _SEI = 5, 6
_RECOVERY_POINT = 6


def is_seek_point(packet: Packet[Any], stream: VideoStream) -> bool:
    """Whether frames shown at or after ``packet``'s own can be decoded from it on, exactly."""
    if not packet.is_keyframe:
        return False
    if stream.codec_context.codec.canonical_name != "h264":
        return True
    return begins_exactly(bytes(packet), stream.codec_context.extradata or b"")


def begins_exactly(data: bytes, extradata: bytes) -> bool:
    """Whether an H.264 access unit, of which ``data`` is all or the beginning, is an IDR picture or a recovery point
    that is exact at once. ``extradata`` as `h264_units`."""
    for kind, body in h264_units(data, extradata):
        if kind == _IDR or (kind == _SEI and recovery_frames(body) == 0):
            return True
    return False


def h264_units(data: bytes, extradata: bytes) -> Iterator[tuple[int, bytes]]:
    """(NAL unit type, bytes behind its header) of an access unit, in either of its two framings.

    ``extradata`` that is an avcC box (first byte 1) means length prefixes; else start codes separate the
    units.
    """
    boxed = extradata[:1] == b"\x01" and len(extradata) > 4
    for unit in nal_units(data, (extradata[4] & 3) + 1 if boxed else 0):
        yield unit[0] & 31, unit[1:]


def nal_units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units of an access unit, each behind a length of so many bytes, or a start code where that is 0."""
    if length_bytes:
        at = 0
        while at + length_bytes < len(data):
            end = at + length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
            if unit := data[at + length_bytes : end]:
                yield unit
            at = end
    else:
        yield from filter(None, data.split(b"\x00\x00\x01")[1:])


def recovery_frames(sei: bytes) -> int | None:
    """``recovery_frame_cnt`` of the recovery point among the SEI messages ``sei``; None when there is
    none."""
    sei = sei.replace(b"\x00\x00\x03", b"\x00\x00")
    at = 0
    while at + 2 < len(sei):
        kind, at = _ff_coded(sei, at)
        size, at = _ff_coded(sei, at)
        if kind == _RECOVERY_POINT:
            return _exp_golomb(sei[at : at + size])
        at += size
    return None


def _ff_coded(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while at < len(data) and data[at] == 0xFF:
        value += 255
        at += 1
    return value + (data[at] if at < len(data) else 0), at + 1


def _exp_golomb(data: bytes) -> int:
    bits = "".join(f"{byte:08b}" for byte in data[:8])
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1
