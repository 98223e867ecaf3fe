"""Which packets decoding may begin at and still give every later frame exactly.

What a container flags as a keyframe need not be one, and decoders begin anywhere and show wrong pictures for a while
without a word. Of the usual codecs with predicted pictures the packet itself is asked. H.264 recovery points of streams
that refresh their picture bit by bit (ITU-T H.264, D.2.8) are no seek points. It must not know files or GOPs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from av.packet import Packet
from av.video.stream import VideoStream

_IDR, _SEI = 5, 6
_RECOVERY_POINT = 6
_X264 = re.compile(rb"x264 - core (\d{1,6})\b")
_X264_IS_RIGHT = 151
_H265_VCL = range(32)
_H265_RANDOM_ACCESS = range(16, 22)
_HVCC_LENGTHS = 21
"""Where an hvcC box says how long lengths are (ISO/IEC 14496-15, 8.3.3)."""
_MPEG2_PICTURE, _MPEG4_PICTURE = b"\x00\x00\x01\x00", b"\x00\x00\x01\xb6"


def is_seek_point(packet: Packet[Any], stream: VideoStream) -> bool:
    """Whether frames shown at or after ``packet``'s own can be decoded from it on, exactly."""
    if not packet.is_keyframe:
        return False
    context = stream.codec_context
    return begins_exactly(context.codec.canonical_name, bytes(packet), context.extradata or b"")


def begins_exactly(codec: str, data: bytes, extradata: bytes) -> bool:
    """Whether a packet of ``codec``, of which ``data`` is all or the beginning, needs none before it by its own word.

    True where nobody here knows the codec. ``extradata`` as the decoder is given it.
    """
    asked = _BEGINS.get(codec)
    return asked is None or asked(data, extradata)


def _h264(data: bytes, extradata: bytes) -> bool:
    """An IDR picture, or a recovery point that is exact at once."""
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


def encoder_note(codec: str, data: bytes, extradata: bytes) -> bytes:
    """What the first packet ``data`` of a stream tells its decoder for ever after, as a packet; mostly nothing.

    x264 names itself in its first packet alone. Before build 151 it predicted lossless pictures wrongly, and FFmpeg's
    decoder does so too where it has seen that name: from any other packet on it shows wrong pictures without a word.
    """
    if codec != "h264" or (named := _X264.search(data)) is None or int(named[1]) >= _X264_IS_RIGHT:
        return b""
    boxed = extradata[:1] == b"\x01" and len(extradata) > 4
    length = (extradata[4] & 3) + 1 if boxed else 0
    notes = (unit for unit in nal_units(data, length) if unit[0] & 31 == _SEI)
    return b"".join((len(unit).to_bytes(length, "big") if boxed else b"\0\0\1") + unit for unit in notes)


def _h265(data: bytes, extradata: bytes) -> bool:
    """A picture for random access (ITU-T H.265, 7.4.2.2)."""
    first = next(
        (unit[0] >> 1 & 63 for unit in h265_units(data, extradata) if unit[0] >> 1 & 63 in _H265_VCL), None
    )
    return first in _H265_RANDOM_ACCESS


def _mpeg2(data: bytes, _: bytes) -> bool:
    """An intra picture (ISO/IEC 13818-2 and 11172-2, picture header)."""
    at = data.find(_MPEG2_PICTURE)
    return at >= 0 and len(data) > at + 5 and data[at + 5] >> 3 & 7 == 1


def _mpeg4(data: bytes, _: bytes) -> bool:
    """An intra picture (ISO/IEC 14496-2, 6.2.5)."""
    at = data.find(_MPEG4_PICTURE)
    return at >= 0 and len(data) > at + 4 and data[at + 4] >> 6 == 0


def _vp8(data: bytes, _: bytes) -> bool:
    """A key frame (RFC 6386, 9.1)."""
    return bool(data) and not data[0] & 1


def _vp9(data: bytes, _: bytes) -> bool:
    """A key frame, of the first frame in the packet (VP9 bitstream specification, 6.2)."""
    if not data:
        return False
    at = (
        2 if data[0] >> 4 & 3 == 3 else 3
    )  # of the bit that shows an existing frame; profile 3 has one more before it
    return not data[0] >> at & 1 and not data[0] >> (at - 1) & 1


_BEGINS: dict[str, Callable[[bytes, bytes], bool]] = {
    "h264": _h264,
    "hevc": _h265,
    "mpeg1video": _mpeg2,
    "mpeg2video": _mpeg2,
    "mpeg4": _mpeg4,
    "vp8": _vp8,
    "vp9": _vp9,
}


def h265_units(data: bytes, extradata: bytes) -> Iterator[bytes]:
    """The NAL units of an access unit, in either of its two framings; see `h264_units`."""
    boxed = extradata[:1] == b"\x01" and len(extradata) > _HVCC_LENGTHS
    return nal_units(data, (extradata[_HVCC_LENGTHS] & 3) + 1 if boxed else 0)


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
    return next((_exp_golomb(body) for kind, body in _sei_messages(sei) if kind == _RECOVERY_POINT), None)


def sei_kinds(sei: bytes) -> frozenset[int]:
    """The payload types of the SEI messages ``sei``."""
    return frozenset(kind for kind, _ in _sei_messages(sei))


def _sei_messages(sei: bytes) -> Iterator[tuple[int, bytes]]:
    """(payload type, payload) of each."""
    sei = sei.replace(b"\x00\x00\x03", b"\x00\x00")
    at = 0
    while at + 2 < len(sei):
        kind, at = _ff_coded(sei, at)
        size, at = _ff_coded(sei, at)
        yield kind, sei[at : at + size]
        at += size


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
