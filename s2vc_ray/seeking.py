"""The way to a GOP's frames: seek, and prove that this led where planning had been, or else read on from the beginning.

An index may lie: of an AVI about which chunk is which frame, of any container about which packets are keyframes. So
frames found behind a seek are given out only where their trail (`s2vc_ray.trail`) is the planned one, and the decoder
itself calls the first picture a keyframe. Slow is better than wrong. It must not know RGB, digests, codecs of ours or
archives.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from enum import Enum
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import TypeVar, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.avi_index import without_index
from s2vc_ray.beginning import at_time, from_beginning
from s2vc_ray.seek_points import is_seek_point
from s2vc_ray.source_io import (
    Source,
    VideoPacket,
    decode_packet,
    lacks_pts,
    name_of,
    open_video,
    packets_of,
)
from s2vc_ray.standby import Met, Reading, Standby
from s2vc_ray.ticks import frame_step, frames_from_tick, from_tick, ticked_packets
from s2vc_ray.trail import UNKNOWN, onward
from s2vc_ray.values import GopSpec

_log = logging.getLogger(__name__)

_SEEK_TRIES = 6

_SPARSE_TIMES = frozenset({"mpeg", "mpegts"})

_SEEKABLE_BY_TICK = frozenset({"avi", "mxf"})
"""Formats with an index, among those whose frames are named by count."""

_SETTLE_SECONDS = Fraction(3, 2)

_CODECS = """
    av1 ffv1 flv1 h263 h264 hevc mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4v3 rv10 rv20 snow theora vp8 vp9
    wmv1 wmv2
"""
_TELLS_KEYS = frozenset(_CODECS.split())
"""Codecs with predicted pictures whose decoders say by the picture's own header whether it is a keyframe."""

_Found = TypeVar("_Found")


class Way(Enum):
    """How a GOP's frames are come by."""

    SEEK = "from its seek point"
    BEFORE = "from the seek point before"
    WALK = "from the source's beginning, and decoded from its seek point"
    START = "and decoded from the source's beginning"


class _Detour(Exception):
    """This way does not lead to the frames, and which to go instead; ``why`` where the source is to blame."""

    def __init__(self, way: Way, why: str = "") -> None:
        super().__init__(why)
        self.way = way
        self.why = why


def frames_on_the_way(
    source: Source | Standby, spec: GopSpec, *, threads: int = 1, further_back: bool = False
) -> Generator[tuple[int, VideoFrame, bool]]:
    """Decoded frames in presentation order from some seek point on: time stamp, picture, and whether it took a way
    around because the source leads elsewhere than it did when it was planned.

    Frames of ``spec`` are those that reading from the beginning gives, though one may come twice. Frames before them
    may be anything, or left out. What is held open serves the next GOP once this is closed.

    Raises:
        SourceError: the source cannot be opened.
    """
    way, strayed = Way.BEFORE if further_back else Way.SEEK, False
    while True:
        try:
            with closing(_frames(source, spec, threads, way)) as found:
                for pts, _, frame in found:
                    yield pts, frame, strayed
            return
        except _Detour as detour:
            way = detour.way
            if detour.why:
                strayed = True
                name = _name(source, spec)
                _log.warning("%s: GOP %d: %s; it is read %s", name, spec.index, detour.why, way.value)


def timed_frames(
    stream: VideoStream,
    packets: Iterator[VideoPacket],
    seek_pts: int | None = None,
    seek_trail: int = UNKNOWN,
) -> Iterator[Met]:
    """The frames that ``packets`` hold, of a stream whose packets say when they are shown.

    Args:
        seek_pts: time stamp of the packet in front of which the trail is ``seek_trail``; None for the first.
    """
    trail = UNKNOWN
    met: dict[int, int] = {}
    for packet in chain(packets, [None]):
        if packet is not None:
            if packet.pts == seek_pts and packet.is_keyframe:
                trail = seek_trail
            trail = onward(trail, packet.pts, packet)
            if packet.pts is not None and not packet.is_discard:
                met.setdefault(packet.pts, trail)
        for frame in decode_packet(stream, packet)[0]:
            if frame.pts is not None:
                yield frame.pts, met.pop(frame.pts, UNKNOWN), frame


def _name(source: Source | Standby, spec: GopSpec) -> str:
    return name_of(source.source if isinstance(source, Standby) else source, spec.source_uri)


def _frames(source: Source | Standby, spec: GopSpec, threads: int, way: Way) -> Generator[Met]:
    """The frames on one way, of a reading that is begun or goes on; those of ``spec`` are the planned ones."""
    if not isinstance(source, Standby):
        with closing(_read(source, None, spec, threads, way)) as found:
            yield from _proven(found, spec, way)
        return
    place = Way.SEEK if way is Way.BEFORE else way
    point = () if way is Way.START else (spec.seek_pts, spec.seek_trail)
    key = (way, point, spec.stream_index, spec.index_hidden, spec.encoder_note, threads)
    reading = source.reading(place, key, spec.pts[0]) or Reading(
        key, _read(source.source, source, spec, threads, way)
    )
    failed = True
    try:
        yield from _proven(reading.until(spec.pts[-1]), spec, way)
        failed = False
    except GeneratorExit:
        failed = False  # whoever asked has all frames
        raise
    finally:
        if failed:
            reading.close()
        else:
            source.keep(place, reading)


def _read(source: Source, standby: Standby | None, spec: GopSpec, threads: int, way: Way) -> Generator[Met]:
    """The frames on one way, from its beginning on: those of no GOP in particular."""
    seeks = way in (Way.SEEK, Way.BEFORE)
    with ExitStack() as resources:
        if standby and not seeks:
            source = resources.enter_context(standby.reopen())
        readable = resources.enter_context(without_index(source)) if spec.index_hidden else source
        container, stream = (standby.take() if standby and seeks else None) or open_video(
            readable, spec.source_uri, spec.stream_index, threads
        )
        if spec.encoder_note:
            decode_packet(stream, cast("VideoPacket", Packet(spec.encoder_note)))
        yield from _found(container, stream, spec, way, standby)


def _found(
    container: InputContainer, stream: VideoStream, spec: GopSpec, way: Way, standby: Standby | None
) -> Iterator[Met]:
    """The frames in an open container, which is closed or handed back behind them."""
    done = False
    try:
        find = _counted if lacks_pts(container, stream) else _timed
        yield from find(container, stream, spec, way, standby)
        done = True
    except GeneratorExit:
        done = True  # whoever asked has all frames
        raise
    finally:
        if done and standby and way in (Way.SEEK, Way.BEFORE):
            standby.give(container, stream)
        else:
            container.close()


def _proven(found: Iterator[Met], spec: GopSpec, way: Way) -> Iterator[Met]:
    """``found``, as long as their trails are those that were planned; all of those from the beginning."""
    planned = {} if way is Way.START else dict(zip(spec.pts, spec.trail, strict=False))
    for pts, trail, frame in found:
        if planned.get(pts, UNKNOWN) not in (UNKNOWN, trail):
            around = Way.WALK if way is Way.SEEK else Way.START
            raise _Detour(around, f"another frame than was planned lies at pts {pts} behind its seek point")
        yield pts, trail, frame


def _timed(
    container: InputContainer, stream: VideoStream, spec: GopSpec, way: Way, standby: Standby | None
) -> Iterator[Met]:
    """The frames of a stream whose packets say when they are shown."""
    if way is Way.START:
        yield from timed_frames(stream, packets_of(container, stream))
        return
    sparse = container.format.name in _SPARSE_TIMES
    if way is Way.WALK:
        packets = from_beginning(container, stream, spec, standby, partial(at_time, stream=stream))
    elif sparse:
        packets = None if way is Way.BEFORE else _seek_settled(container, stream, spec.seek_pts)
    else:
        packets = _seek(container, stream, spec.seek_pts - (way is Way.BEFORE))
    if packets is None:
        raise _Detour(Way.WALK if way is Way.SEEK else Way.START)
    if standby and way is not Way.WALK:
        packets = standby.watched(container, stream, packets)
    key = next(packets)
    sure = stream.codec_context.codec.canonical_name not in _TELLS_KEYS or key.is_discard
    for pts, trail, frame in timed_frames(stream, chain([key], packets), spec.seek_pts, spec.seek_trail):
        if not sure and key.pts is not None and pts >= key.pts:
            if pts > key.pts and way is not Way.BEFORE:
                raise _Detour(Way.BEFORE if way is Way.SEEK and not sparse else Way.START)
            if pts == key.pts and not frame.key_frame:
                raise _Detour(Way.START, f"its keyframe at pts {pts} is none")
            sure = True
        yield pts, trail, frame


def _counted(
    container: InputContainer, stream: VideoStream, spec: GopSpec, way: Way, standby: Standby | None
) -> Iterator[Met]:
    """The frames of a source that stores no presentation times."""
    if way is Way.START:
        yield from frames_from_tick(ticked_packets(container, stream), stream)
        return
    if way is Way.BEFORE:
        raise _Detour(Way.START)
    indexed = container.format.name in _SEEKABLE_BY_TICK and not spec.index_hidden
    seeks = way is Way.SEEK and indexed and spec.seek_pts > (stream.start_time or 0)
    if seeks:
        try:
            container.seek(spec.seek_pts, stream=stream)
        except av.FFmpegError:
            raise _Detour(Way.WALK) from None
        sought = from_tick(ticked_packets(container, stream), spec.seek_pts, whole=False)
    else:
        if standby:
            standby.end(Way.WALK)  # which may be what plays the tape
        sought = from_beginning(container, stream, spec, standby, from_tick)
    found = frames_from_tick(sought[0], stream, sought[1], spec.seek_trail) if sought else iter(())
    begin = next(found, None)
    if begin is None:
        raise _Detour(
            Way.WALK if seeks else Way.START, "its seek point is not where its index says" if seeks else ""
        )
    yield begin
    yield from found


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
