"""A ``GopSpec`` in, its RGB pictures out: seek, decode, and keep exactly the frames the spec names.

Owns seeking and the conversion to RGB. It never makes a frame up: what cannot be decoded is left out and
counted. It must not know codecs of ours, archives or Ray.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from s2vc_ray.colour import EXACT, scaler_matrix, scaler_range
from s2vc_ray.deinterlace import deinterlaced
from s2vc_ray.errors import SourceError
from s2vc_ray.frame_digests import FrameHasher
from s2vc_ray.picture_sizes import check_size
from s2vc_ray.seek_points import is_seek_point
from s2vc_ray.source_io import (
    Source,
    choose_video,
    decode_packet,
    lacks_pts,
    name_of,
    open_source,
    packets_of,
)
from s2vc_ray.ticks import VideoPacket, frame_step, frames_from_tick
from s2vc_ray.values import FrameDigest, GopSpec, VideoInfo

_SEEK_TRIES = 6

_SPARSE_TIMES = frozenset({"mpeg", "mpegts"})

_SEEKABLE_BY_TICK = frozenset({"avi", "mxf"})
"""Formats with an index, among those whose frames are named by count."""

_SETTLE_SECONDS = Fraction(3, 2)


@dataclass(frozen=True, slots=True)
class DecodedGop:
    """The frames of one GOP that could be decoded.

    Attributes:
        frames: uint8 RGB, shape (T, H, W, 3), full range, in presentation order, before any rotation.
        pts: time stamp of each frame; a subset of the spec's.
        corrupt: how many of ``frames`` the decoder marked as damaged.
        interlaced: how many of ``frames`` it flagged as interlaced, as they are in the source.
        missing: how many frames of the spec did not come out at all.
        digests: of each of ``frames``, in its native planes before any conversion.
    """

    frames: npt.NDArray[np.uint8]
    pts: tuple[int, ...]
    corrupt: int
    interlaced: int
    missing: int
    digests: tuple[FrameDigest, ...]


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame: its time stamp, uint8 RGB of shape (H, W, 3), and of the source's own picture whether the decoder
    marked it as damaged and as interlaced, and its digest."""

    pts: int
    rgb: npt.NDArray[np.uint8]
    corrupt: bool
    interlaced: bool
    digest: FrameDigest


_Fact = tuple[int, bool, bool, FrameDigest]
"""What is said of a decoded picture: pts, damaged, interlaced, digest."""


def decode_gop(source: Source, spec: GopSpec, *, threads: int = 1, deinterlace: bool = False) -> DecodedGop:
    """Decode the frames of ``spec`` from ``source`` (a path or a seekable binary file).

    When frames do not come out from the spec's own seek point, decoding is tried once more from further
    back, since some encoders flag as keyframes pictures that need what lies before them.

    Args:
        deinterlace: as `read_gop`.

    Raises:
        SourceError: nothing of the GOP decodes, or its pictures are not of the size the spec names.
    """
    place = {pts: at for at, pts in enumerate(spec.pts)}
    # Filled in place: a list of frames and the array stacked from it would take the memory twice.
    frames = np.empty((spec.frames, spec.height, spec.width, 3), np.uint8)
    found: dict[int, _Fact] = {}
    for further_back in (False, True):
        if len(found) < spec.frames:
            for frame in read_gop(
                source, spec, threads=threads, further_back=further_back, deinterlace=deinterlace
            ):
                if frame.pts not in found:
                    frames[place[frame.pts]] = frame.rgb
                    found[frame.pts] = frame.pts, frame.corrupt, frame.interlaced, frame.digest
    if not found:
        raise SourceError(
            f"{name_of(source, spec.source_uri)}: none of the {spec.frames} frames of GOP {spec.index} "
            f"decodes (pts {spec.pts[0]}..{spec.pts[-1]})"
        )
    pts = tuple(pts for pts in spec.pts if pts in found)
    return DecodedGop(
        frames=frames if len(pts) == spec.frames else frames[[place[one] for one in pts]],
        pts=pts,
        corrupt=sum(corrupt for _, corrupt, _, _ in found.values()),
        interlaced=sum(interlaced for _, _, interlaced, _ in found.values()),
        missing=spec.frames - len(pts),
        digests=tuple(found[one][3] for one in pts),
    )


def read_gop(
    source: Source,
    spec: GopSpec,
    *,
    threads: int = 1,
    further_back: bool = False,
    deinterlace: bool = False,
) -> Iterator[DecodedFrame]:
    """Yield the frames of ``spec`` in presentation order, one at a time, so that memory stays flat.

    Args:
        deinterlace: see `s2vc_ray.deinterlace`; only frames of ``spec`` are looked at for it.
        further_back: begin at the seek point before the spec's own (at the very beginning for sources without
            presentation times).

    Raises:
        SourceError: the source cannot be opened, or a frame's size is not the spec's.
    """
    to_rgb, digest = RgbConverter(), FrameHasher()
    frames: Iterator[tuple[_Fact, VideoFrame]] = (
        ((pts, frame.is_corrupt, frame.interlaced_frame, digest(frame)), frame)
        for pts, frame in _wanted_frames(source, spec, threads, further_back)
    )
    for (pts, corrupt, interlaced, md5), frame in deinterlaced(frames) if deinterlace else frames:
        yield DecodedFrame(pts, to_rgb(frame), corrupt, interlaced, md5)


def decode_all(source: Source, info: VideoInfo, *, uri: str = "") -> Iterator[tuple[int, VideoFrame]]:
    """Decode the whole of a probed source: time stamps and native pictures, as they come out of the decoder.

    Each is one of ``info.pts``, save for frames behind damage or without a place of their own.

    Raises:
        SourceError: the source cannot be opened.
    """
    with open_source(source, uri) as container:
        stream = choose_video(container, name_of(source, uri), info.stream_index)
        stream.thread_type = "AUTO"
        if lacks_pts(container, stream):
            yield from frames_from_tick(container, stream, None, from_start=True)
        else:
            yield from _timed_frames(stream, packets_of(container, stream))


class RgbConverter:
    """Converts decoded pictures to uint8 RGB (H, W, 3) of full range, by each picture's own matrix and range.

    Keeps the scaler between frames of one source.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """Convert one frame.

        Raises:
            SourceError: the picture's colour matrix has no conversion.
        """
        rgb = self._scaler.reformat(
            frame,
            format="rgb24",
            src_colorspace=scaler_matrix(frame.colorspace, frame.width, frame.height),
            src_color_range=scaler_range(frame.color_range, frame.format.name),
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
            threads=1,
        )
        return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _wanted_frames(
    source: Source, spec: GopSpec, threads: int, further_back: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames of ``spec``, each once, with their time stamps."""
    name = name_of(source, spec.source_uri)
    wanted = set(spec.pts)
    for pts, frame in _frames_from(source, spec, threads, further_back):
        if pts in wanted:
            number = spec.first_frame + bisect_left(spec.pts, pts)
            check_size(name, frame, (spec.width, spec.height), number)
            wanted.remove(pts)
            yield pts, frame
        if not wanted or pts > spec.pts[-1]:
            return


def _open(source: Source, spec: GopSpec, threads: int) -> tuple[InputContainer, VideoStream]:
    container = open_source(source, spec.source_uri)
    stream = choose_video(container, name_of(source, spec.source_uri), spec.stream_index)
    stream.thread_count = threads
    if threads > 1:
        stream.thread_type = "AUTO"
    return container, stream


def _frames_from(
    source: Source, spec: GopSpec, threads: int, further_back: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with time stamps in presentation order, from a seek point at or before the GOP on."""
    container, stream = _open(source, spec, threads)
    with container:
        if lacks_pts(container, stream):
            yield from _counted_frames(container, stream, None if further_back else spec.seek_pts)
            return
        if container.format.name not in _SPARSE_TIMES:
            packets = _seek(container, stream, spec.seek_pts - further_back)
        else:
            packets = None if further_back else _seek_settled(container, stream, spec.seek_pts)
        if packets is not None:
            yield from _timed_frames(stream, packets)
            return
    container, stream = _open(source, spec, threads)
    with container:
        yield from _timed_frames(stream, packets_of(container, stream))


def _seek(container: InputContainer, stream: VideoStream, target: int) -> Iterator[VideoPacket] | None:
    """Packets from the last reachable keyframe shown at or before ``target``; None when seeking finds none.

    Demuxers seek by decode time or to any packet nearby, so where a seek landed is checked, and a later
    landing is answered by asking for an earlier time.
    """
    at, back = target, frame_step(stream)
    for _ in range(_SEEK_TRIES):
        try:
            container.seek(at, stream=stream)
        except av.FFmpegError:
            return None
        packets = packets_of(container, stream)
        key = next((packet for packet in packets if is_seek_point(packet, stream)), None)
        if key is not None and key.pts is not None and key.pts <= target:
            return chain([key], packets)
        at, back = at - back, back * 8
    return None


def _seek_settled(
    container: InputContainer, stream: VideoStream, target: int
) -> Iterator[VideoPacket] | None:
    """As ``_seek``, for MPEG program and transport streams, whose packets need not carry a time each.

    Between the times that are stored the demuxer estimates, and right behind a seek it may estimate
    wrongly (a cut frame takes the next one's time). A time must be stored every 0.7 s (ISO/IEC 13818-1,
    2.7.4): reading begins so much earlier that the estimates are again those of a read from the start when
    the keyframe comes.
    """
    settle = round(_SETTLE_SECONDS / (stream.time_base or Fraction(1)))
    try:
        container.seek(target - settle, stream=stream)
    except av.FFmpegError:
        return None
    packets = packets_of(container, stream)
    landed: int | None = None
    for packet in packets:
        if packet.pts is None:
            continue
        landed = packet.pts if landed is None else landed
        if packet.pts == target and is_seek_point(packet, stream):
            return chain([packet], packets) if target - landed >= settle else None
        if packet.dts is not None and packet.dts > target:
            break
    return None


def _timed_frames(stream: VideoStream, packets: Iterator[VideoPacket]) -> Iterator[tuple[int, VideoFrame]]:
    for packet in chain(packets, [None]):
        for frame in decode_packet(stream, packet)[0]:
            if frame.pts is not None:
                yield frame.pts, frame


def _counted_frames(
    container: InputContainer, stream: VideoStream, seek: int | None
) -> Iterator[tuple[int, VideoFrame]]:
    """As ``frames_from_tick``; from the very beginning when ``seek`` is None."""
    from_start = True
    if seek is not None and container.format.name in _SEEKABLE_BY_TICK and seek > (stream.start_time or 0):
        try:
            container.seek(seek, stream=stream)
        except av.FFmpegError:
            return
        from_start = False
    yield from frames_from_tick(container, stream, seek, from_start=from_start)
