"""A source in, a ``VideoInfo`` out: which frames exist, when they are shown, and where decoding can begin.

Reads packets, not pictures, wherever the container says when each frame is shown: one frame is decoded for
its true size, rotation and colour. Sources without trustworthy presentation times are decoded once. It must
not know GOPs or archives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise

from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.colour import UNSPECIFIED, scaler_matrix
from s2vc_ray.errors import SourceError
from s2vc_ray.seek_points import is_seek_point
from s2vc_ray.side_data import content_light, display_matrix, mastering_display, not_kept, rotation
from s2vc_ray.source_io import (
    Source,
    choose_video,
    decode_packet,
    is_picture,
    lacks_pts,
    name_of,
    open_source,
    packets_of,
)
from s2vc_ray.ticks import VideoPacket, count_frames, frame_step
from s2vc_ray.values import FIELD_ORDERS, ColourTags, PictureTags, VideoInfo

_HIDDEN_FRAMES = frozenset({"vp8"})
"""Codecs whose packets may carry a picture that is never shown."""

_FIELD_PACKETS = frozenset({"mpegts", "mpeg"})
"""Containers in which the two fields of an interlaced frame may come as two packets."""


_EDITED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers with edit lists."""

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)$")
_SLACK_SECONDS = Fraction(1, 2)
_LAST_ORDER = FIELD_ORDERS.index("bt")


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Frames and seek points in presentation order."""

    pts: tuple[int, ...]
    keyframes: tuple[int, ...]
    last_duration: int
    untimed: int = 0
    """Frames that decode and that nobody says when to show."""


def probe(source: Source, *, uri: str = "") -> VideoInfo:
    """Describe the video stream of ``source``.

    Args:
        source: a local path, or a seekable binary file (read by ranges; it is left open).
        uri: what to call the source in error messages; default its path.

    Raises:
        SourceError: missing, empty, not media, no video stream, audio only, no decodable frame, pictures with
            an alpha channel, a clock that jumps back, or two frames that share a time stamp.
    """
    name = name_of(source, uri)
    with open_source(source, uri) as container:
        stream = choose_video(container, name)
        first = _first_frame(container, stream, name)
        _refuse_alpha(first.format, stream, name)
        try:
            scaler_matrix(first.colorspace, first.width, first.height)
        except SourceError as error:
            raise SourceError(f"{name}: {error}") from None
    with open_source(source, uri) as container:
        stream = choose_video(container, name)
        timeline = _timeline(container, stream, first, name)
        if timeline is None:
            with open_source(source, uri) as again:
                timeline = _decoded_timeline(again, choose_video(again, name), name)
        return _describe(container, stream, first, timeline, name)


def _first_frame(container: InputContainer, stream: VideoStream, name: str) -> VideoFrame:
    stream.thread_count = 1
    packets = 0
    for packet in packets_of(container, stream):
        packets += 1
        frames, _ = decode_packet(stream, packet)
        if frames:
            return frames[0]
    frames, _ = decode_packet(stream, None)
    if frames:
        return frames[0]
    if not packets:
        raise SourceError(f"{name}: zero frames; the video stream holds no packets")
    raise SourceError(f"{name}: none of the {packets} packets of the video stream decodes")


def _refuse_alpha(pix_fmt: VideoFormat, stream: VideoStream, name: str) -> None:
    beside = stream.metadata.get("alpha_mode") == "1"  # VP8, VP9: a second picture that decoders leave aside
    if beside or any(component.is_alpha for component in pix_fmt.components):
        raise SourceError(
            f"{name}: its pictures ({pix_fmt.name}{' and alpha_mode 1' if beside else ''}) have an alpha channel, "
            "which would be lost; lay them over a background, or convert them to a format without alpha"
        )


def _steady(packets: Iterable[VideoPacket], stream: VideoStream, name: str) -> Iterator[VideoPacket]:
    """``packets``, as long as their clock does not jump back, as it does where recordings were joined.

    A step back of less than half a second is damage, or a muxer's carelessness, and does no harm.
    """
    unit = stream.time_base or Fraction(1)
    slack = _SLACK_SECONDS // unit
    last: int | None = None
    for packet in packets:
        dts = packet.dts
        if dts is not None:
            if last is not None and last - dts > slack:
                raise SourceError(
                    f"{name}: its clock jumps back from {float(last * unit):.3f} s to "
                    f"{float(dts * unit):.3f} s, as where recordings were joined; remux it so that times "
                    "ascend (ffmpeg -i SOURCE -map 0 -c copy NEW)"
                )
            last = dts
        yield packet


def _timeline(
    container: InputContainer, stream: VideoStream, first: VideoFrame, name: str
) -> _Timeline | None:
    """The timeline from packets alone, or None where only decoding can tell."""
    if lacks_pts(container, stream):
        return None
    shown: list[int] = []
    keys: list[int] = []
    last, last_duration = None, 0
    tail: VideoPacket | None = None
    for packet in _steady(packets_of(container, stream), stream, name):
        usable = is_seek_point(packet, stream)
        if packet.pts is None or (not keys and not usable):
            return None
        if usable:
            keys.append(packet.pts)
        if packet.is_discard:
            continue
        tail = packet
        shown.append(packet.pts)
        if last is None or packet.pts > last:
            last, last_duration = packet.pts, packet.duration or 0
    if tail is not None and tail.is_corrupt and len(shown) > 1:
        shown.pop()  # the file ends inside this picture
    shown.sort()
    duplicates = any(a == b for a, b in pairwise(shown))
    leading = bool(shown and shown[0] < keys[0])
    fields = first.interlaced_frame and container.format.name in _FIELD_PACKETS
    if duplicates or leading or fields or stream.codec_context.name in _HIDDEN_FRAMES:
        return None
    return _Timeline(tuple(shown), tuple(sorted(set(keys))), last_duration)


def _decoded_timeline(container: InputContainer, stream: VideoStream, name: str) -> _Timeline:
    """The timeline of the frames that come out of the decoder, for sources whose packets do not tell."""
    stream.thread_type = "AUTO"
    if lacks_pts(container, stream):
        ticks, keyframes = count_frames(container, stream)
        return _Timeline(ticks, keyframes, frame_step(stream))
    keyed: dict[int, bool] = {}
    usable: set[int | None] = set()
    last_duration = untimed = 0
    for packet in chain(_steady(packets_of(container, stream), stream, name), [None]):
        if packet is not None and is_seek_point(packet, stream):
            usable.add(packet.pts)
        for frame in decode_packet(stream, packet)[0]:
            if frame.pts in keyed:
                raise SourceError(
                    f"{name}: two frames claim the same time (pts {frame.pts}); "
                    "remux the source so that each has its own"
                )
            if frame.pts is None:
                untimed += 1
            else:
                keyed[frame.pts] = frame.key_frame
                last_duration = frame.duration
    pts = tuple(sorted(keyed))
    return _Timeline(pts, tuple(p for p in pts if keyed[p] and p in usable), last_duration, untimed=untimed)


def _describe(
    container: InputContainer, stream: VideoStream, first: VideoFrame, timeline: _Timeline, name: str
) -> VideoInfo:
    if not timeline.pts:
        raise SourceError(f"{name}: zero frames; nothing of the video stream is ever shown")
    context = stream.codec_context
    return VideoInfo(
        width=first.width,
        height=first.height,
        time_base=stream.time_base or Fraction(1, 1000),
        pts=timeline.pts,
        keyframe_pts=timeline.keyframes,
        last_duration=timeline.last_duration,
        average_rate=stream.average_rate or None,
        rotation=rotation(first),
        sample_aspect=stream.sample_aspect_ratio or Fraction(0),
        pix_fmt=first.format.name,
        codec=context.codec.canonical_name,
        container=container.format.name,
        colour=ColourTags(
            range=first.color_range or context.color_range,
            primaries=_tag(first.color_primaries, context.color_primaries),
            transfer=_tag(first.color_trc, context.color_trc),
            matrix=_tag(first.colorspace, context.colorspace),
        ),
        stream_index=stream.index,
        frames_declared=max(_declared(container, stream, timeline), len(timeline.pts) + timeline.untimed),
        untimed=timeline.untimed,
        not_kept=not_kept(first),
        bit_depth=max(component.bits for component in first.format.components),
        tags=PictureTags(
            field_order=_field_order(stream, first),
            display_matrix=display_matrix(first),
            mastering_display=mastering_display(first),
            content_light=content_light(first),
        ),
        other_videos=tuple(
            one.index for one in container.streams.video if one.index != stream.index and not is_picture(one)
        ),
    )


def _field_order(stream: VideoStream, first: VideoFrame) -> str:
    code = stream.codec_context.field_order
    order = FIELD_ORDERS[code] if 0 <= code <= _LAST_ORDER else "unknown"
    return "interlaced" if first.interlaced_frame and order in ("unknown", "progressive") else order


def _declared(container: InputContainer, stream: VideoStream, timeline: _Timeline) -> int:
    """Frames that the header announces; 0 when it says nothing of use.

    MP4 and AVI count frames, MP4 also those that its edit list hides. Matroska gives the track's duration in a tag,
    which is taken to mean frames only when so much of it is missing that rounding or an unknown last duration cannot
    be why.
    """
    if stream.frames and container.format.name in _EDITED:
        # The index has what the edit list leaves, and is whole in a file that is cut short behind it.
        return sum(not entry.is_discard for entry in stream.index_entries)
    if stream.frames:
        return stream.frames
    announced = _DURATION.match(stream.metadata.get("DURATION", ""))
    if not announced or not stream.time_base or not timeline.pts:
        return 0
    hours, minutes, seconds = announced.groups()
    ends = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    there = (timeline.pts[-1] + timeline.last_duration) * stream.time_base
    if there <= 0 or ends - there < max(_SLACK_SECONDS, 2 * there / len(timeline.pts)):
        return len(timeline.pts)
    return round(len(timeline.pts) * ends / there)


def _tag(of_frame: int, of_stream: int) -> int:
    return int(of_stream if of_frame == UNSPECIFIED else of_frame)
