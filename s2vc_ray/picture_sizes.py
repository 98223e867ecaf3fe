"""Where a stream's pictures change size, found while its packets are read. An archive's pictures all have one.

Only a keyframe can begin a new size, and it brings new parameter sets along: that keyframe alone is decoded. H.264,
H.265 and MPEG-2 are understood, and what a container says of any codec. It must not know GOPs or archives.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.errors import SourceError
from s2vc_ray.seek_points import h264_units, h265_units

_HEAD = 1 << 12
"""Bytes of a keyframe among which its parameter sets are."""

_H264_SPS, _H265_SPS = 7, 33
_MPEG2_SEQUENCE = b"\x00\x00\x01\xb3"

Size = tuple[int, int]


def size_changes(
    name: str, size: Size, expected: Size, frame: int, seconds: float | None = None
) -> SourceError:
    """The error of a source whose frame number ``frame`` (from 0) is the first of another size."""
    when = "" if seconds is None else f" ({seconds:.3f} s)"
    here = "THERE" if seconds is None else f"{seconds:.3f}"
    return SourceError(
        f"{name}: the picture size changes to {size[0]}x{size[1]} at frame {frame}{when}, from "
        f"{expected[0]}x{expected[1]}, and the pictures of an archive have one size: split the source there "
        f"(ffmpeg -i SOURCE -map 0 -c copy -t {here} FIRST; ffmpeg -ss {here} -i SOURCE -map 0 -c copy SECOND), "
        "or scale all of it to one size"
    )


def check_size(
    name: str, frame: VideoFrame, expected: Size, number: int, seconds: float | None = None
) -> None:
    """Refuse a source whose decoded frame ``number`` is not of the ``expected`` size.

    Raises:
        SourceError: as `size_changes`.
    """
    if (frame.width, frame.height) != expected:
        raise size_changes(name, (frame.width, frame.height), expected, number, seconds)


class SizeWatch:
    """Keeps an eye on the keyframes of ``stream``, whose first picture has ``expected`` size."""

    def __init__(self, stream: VideoStream, expected: Size) -> None:
        self._codec = stream.codec_context.codec
        self._extradata = stream.codec_context.extradata or b""
        self._expected = expected
        self._seen: set[bytes] = set()

    def changed(self, packet: Packet[VideoStream]) -> Size | None:
        """The size that pictures have from this keyframe on, when it is another one."""
        brought = b"".join(self._parameter_sets(packet))
        if not brought or brought in self._seen:
            return None
        first = not self._seen
        self._seen.add(brought)
        if first and not packet.has_sidedata("new_extradata"):
            return None  # those of the first picture
        size = self._decoded_size(packet)
        return None if size in (None, self._expected) else size

    def _parameter_sets(self, packet: Packet[VideoStream]) -> Iterator[bytes]:
        if packet.has_sidedata("new_extradata"):
            yield from (bytes(one) for one in packet.iter_sidedata() if one.data_type == "new_extradata")
        head = bytes(memoryview(packet)[:_HEAD])
        if self._codec.canonical_name == "h264":
            yield from (body for kind, body in h264_units(head, self._extradata) if kind == _H264_SPS)
        elif self._codec.canonical_name == "hevc":
            units = h265_units(head, self._extradata)
            yield from (unit for unit in units if unit[0] >> 1 & 63 == _H265_SPS)
        elif self._codec.canonical_name == "mpeg2video" and (at := head.find(_MPEG2_SEQUENCE)) >= 0:
            yield head[at + 4 : at + 7]  # 12 bits of width, 12 of height

    def _decoded_size(self, packet: Packet[VideoStream]) -> Size | None:
        decoder = CodecContext.create(self._codec, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata, decoder.thread_count = self._extradata, 1
        for one in (packet, None):
            try:
                for frame in decoder.decode(one):
                    return frame.width, frame.height
            except av.FFmpegError:
                pass  # damage, or a field whose other half is in the next packet
        return None
