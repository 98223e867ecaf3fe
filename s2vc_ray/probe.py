"""A source in, a ``VideoInfo`` out: which frames exist, when they are shown, and where decoding can begin.

Of an MP4 or MOV it reads the tables, of other containers that say when each frame is shown the packets, and decodes one
frame for its true size, rotation and colour. Sources without trustworthy presentation times are decoded once. It must
not know GOPs or archives.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.avi_index import index_lies, without_index
from s2vc_ray.colour import UNSPECIFIED, scaler_matrix
from s2vc_ray.errors import SourceError
from s2vc_ray.sample_tables import SeenPacket, table_timeline
from s2vc_ray.seek_points import encoder_note
from s2vc_ray.side_data import content_light, display_matrix, mastering_display, not_kept, rotation
from s2vc_ray.source_io import (
    Source,
    bytes_of,
    choose_video,
    decode_packet,
    is_picture,
    name_of,
    open_source,
    packets_of,
    without_read_ahead,
)
from s2vc_ray.timeline import SLACK_SECONDS, Timeline, decoded_timeline, packet_timeline
from s2vc_ray.values import FIELD_ORDERS, ColourTags, PictureTags, VideoInfo

_EDITED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers with edit lists."""

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)$")
_LAST_ORDER = FIELD_ORDERS.index("bt")


def probe(source: Source, *, uri: str = "", tables: bool = True) -> VideoInfo:
    """Describe the video stream of ``source``.

    Args:
        source: a local path, or a seekable binary file (read by ranges; it is left open).
        uri: what to call the source in error messages; default its path.
        tables: take the times of an MP4 or MOV from its tables where those tell everything; without it, as for any
            other source, all packets are read. Both give the same.

    Raises:
        SourceError: missing, empty, not media, no video stream, audio only, no decodable frame, pictures with
            an alpha channel or of several sizes, a clock that jumps back, or two frames that share a time stamp.
    """
    name = name_of(source, uri)
    info = _probe(source, name, tables=tables, believed=False)
    if info is None:
        with without_index(source) as chunks:
            info = _probe(chunks, name, tables=tables, believed=True)
            assert info is not None
            return replace(info, index_hidden=True)
    return info


def _probe(source: Source, name: str, *, tables: bool, believed: bool) -> VideoInfo | None:
    """None where the source has an index that lies, unless that is ``believed``."""
    with without_read_ahead(source) as sparse, open_source(sparse, name) as container:
        stream = choose_video(container, name)
        if not believed:
            with bytes_of(sparse) as file:
                if index_lies(container, stream, file):
                    return None
        first, seen, note = _first_frame(container, stream, name)
        _refuse_alpha(first.format, stream, name)
        try:
            scaler_matrix(first.colorspace, first.width, first.height)
        except SourceError as error:
            raise SourceError(f"{name}: {error}") from None
        if tables and container.format.name in _EDITED:
            with bytes_of(sparse) as file:
                timeline = table_timeline(file, stream, seen)
            if timeline is not None:
                return replace(_describe(container, stream, first, timeline, name), encoder_note=note)
    with open_source(source, name) as container:
        stream = choose_video(container, name)
        timeline = packet_timeline(container, stream, first, name)
        if timeline is None:
            with open_source(source, name) as again:
                timeline = decoded_timeline(again, choose_video(again, name), first, name)
        return replace(_describe(container, stream, first, timeline, name), encoder_note=note)


def _first_frame(
    container: InputContainer, stream: VideoStream, name: str
) -> tuple[VideoFrame, list[SeenPacket], bytes]:
    """The first frame that decodes, the packets up to the one it came out with, and the first one's `encoder_note`."""
    stream.thread_count = 1
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    seen: list[SeenPacket] = []
    note = b""
    for packet in packets_of(container, stream):
        if not seen:
            note = encoder_note(codec, bytes(packet), extradata)
        seen.append(SeenPacket.of(packet))
        frames, _ = decode_packet(stream, packet)
        if frames:
            return frames[0], seen, note
    frames, _ = decode_packet(stream, None)
    if frames:
        return frames[0], seen, note
    if not seen:
        raise SourceError(f"{name}: zero frames; the video stream holds no packets")
    raise SourceError(f"{name}: none of the {len(seen)} packets of the video stream decodes")


def _refuse_alpha(pix_fmt: VideoFormat, stream: VideoStream, name: str) -> None:
    beside = stream.metadata.get("alpha_mode") == "1"  # VP8, VP9: a second picture that decoders leave aside
    if beside or any(component.is_alpha for component in pix_fmt.components):
        raise SourceError(
            f"{name}: its pictures ({pix_fmt.name}{' and alpha_mode 1' if beside else ''}) have an alpha channel, "
            "which would be lost; lay them over a background, or convert them to a format without alpha"
        )


def _describe(
    container: InputContainer, stream: VideoStream, first: VideoFrame, timeline: Timeline, name: str
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
        brief=timeline.brief,
        durations=timeline.durations,
        trail=timeline.trail,
        keyframe_trail=timeline.keyframe_trail,
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


def _declared(container: InputContainer, stream: VideoStream, timeline: Timeline) -> int:
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
    if there <= 0 or ends - there < max(SLACK_SECONDS, 2 * there / len(timeline.pts)):
        return len(timeline.pts)
    return round(len(timeline.pts) * ends / there)


def _tag(of_frame: int, of_stream: int) -> int:
    return int(of_stream if of_frame == UNSPECIFIED else of_frame)
