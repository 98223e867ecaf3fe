"""When each frame of a source is shown and where decoding can begin, from its packets, or else from its pictures.

It must not know GOPs or archives.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.errors import SourceError
from s2vc_ray.picture_sizes import SizeWatch, check_size, size_changes
from s2vc_ray.seek_points import is_seek_point
from s2vc_ray.source_io import VideoPacket, decode_packet, lacks_pts, packets_of
from s2vc_ray.ticks import count_frames, frame_step
from s2vc_ray.times import Times
from s2vc_ray.trail import UNKNOWN, onward
from s2vc_ray.values import MOST_DURATIONS, Durations

HIDDEN_FRAMES = frozenset({"vp8"})
"""Codecs whose packets may carry a picture that is never shown."""

_FIELD_PACKETS = frozenset({"mpegts", "mpeg"})
"""Containers in which the two fields of an interlaced frame may come as two packets."""

_TELLS_DURATIONS = frozenset({"matroska,webm"})
"""Containers in which a frame's duration is its own; elsewhere it is the step to the next packet, or a guess."""

SLACK_SECONDS = Fraction(1, 2)
"""What a clock may step back: less is damage, or a muxer's carelessness, and does no harm."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Frames and seek points in presentation order."""

    pts: Sequence[int]
    keyframes: Sequence[int]
    last_duration: int
    untimed: int = 0
    """Frames that decode and that nobody says when to show."""
    trail: Sequence[int] = ()
    keyframe_trail: Sequence[int] = ()
    """Of ``pts`` and of ``keyframes``: see `s2vc_ray.trail`."""
    brief: int = 0
    durations: Durations = ()
    """Frames shown for less than the time to the next one: how many, and theirs where not too many."""


def packet_timeline(
    container: InputContainer, stream: VideoStream, first: VideoFrame, name: str
) -> Timeline | None:
    """The timeline from packets alone, or None where only decoding can tell.

    Args:
        first: the first frame that decodes.

    Raises:
        SourceError: the clock jumps back, or pictures change size.
    """
    if lacks_pts(container, stream):
        return None
    shown, trails, keys, lasting = array("q"), array("q"), dict[int, int](), array("q")
    trail = UNKNOWN
    last, last_duration, first_key = None, 0, 0
    tail: VideoPacket | None = None
    sizes = SizeWatch(stream, (first.width, first.height))
    for packet in _steady(packets_of(container, stream), stream, name):
        usable = is_seek_point(packet, stream)
        if packet.pts is None or (not keys and not usable):
            return None
        if packet.is_keyframe and (size := sizes.changed(packet)):
            before = sum(pts < packet.pts for pts in shown)
            seconds = float((packet.pts - min(shown, default=packet.pts)) * (stream.time_base or 0))
            raise size_changes(name, size, (first.width, first.height), before, seconds)
        if usable:
            first_key = first_key if keys else packet.pts
            keys.setdefault(packet.pts, trail)
        trail = onward(trail, packet.pts, packet)
        if packet.is_discard:
            continue
        tail = packet
        shown.append(packet.pts)
        trails.append(trail)
        lasting.append(packet.duration or 0)
        if last is None or packet.pts > last:
            last, last_duration = packet.pts, packet.duration or 0
    if tail is not None and tail.is_corrupt and len(shown) > 1:
        shown.pop()  # the file ends inside this picture
        trails.pop()
        lasting.pop()
    pts = np.sort(np.frombuffer(shown, np.int64))
    duplicates = bool(np.any(np.diff(pts) == 0))
    leading = bool(shown and pts[0] < first_key)
    fields = first.interlaced_frame and container.format.name in _FIELD_PACKETS
    if duplicates or leading or fields or stream.codec_context.name in HIDDEN_FRAMES:
        return None
    found = _timeline(shown, trails, keys, last_duration)
    if container.format.name not in _TELLS_DURATIONS:
        return found
    brief, durations = _brief(shown, lasting)
    return replace(found, brief=brief, durations=durations)


def _brief(shown: array[int], lasting: array[int]) -> tuple[int, Durations]:
    """Which frames last for less than the time to the next one, by more than a clock's rounding."""
    pts, duration = np.frombuffer(shown, np.int64), np.frombuffer(lasting, np.int64)
    order = pts.argsort()
    pts, duration = pts[order], duration[order]
    brief = np.flatnonzero((duration[:-1] > 0) & (duration[:-1] + 1 < np.diff(pts)))
    if len(brief) > MOST_DURATIONS:
        return len(brief), ()
    return len(brief), tuple(zip(pts[brief].tolist(), duration[brief].tolist(), strict=True))


def decoded_timeline(
    container: InputContainer, stream: VideoStream, first: VideoFrame, name: str
) -> Timeline:
    """The timeline of the frames that come out of the decoder, for sources whose packets do not tell.

    Raises:
        SourceError: the clock jumps back, two frames share a time stamp, or pictures change size.
    """
    size = first.width, first.height
    if lacks_pts(container, stream):
        found = count_frames(container, stream, size, name)
        return Timeline(
            found.ticks,
            found.keyframes,
            frame_step(stream),
            trail=found.trail,
            keyframe_trail=found.keyframe_trail,
        )
    stream.thread_type = "AUTO"
    shown, trails, keys = array("q"), array("q"), set[int]()
    usable, met = dict[int, int](), dict[int, int]()
    trail = UNKNOWN
    last_duration = untimed = 0
    for packet in chain(_steady(packets_of(container, stream), stream, name), [None]):
        if packet is not None:
            if packet.pts is not None and is_seek_point(packet, stream):
                usable.setdefault(packet.pts, trail)
            trail = onward(trail, packet.pts, packet)
            if packet.pts is not None and not packet.is_discard:
                met.setdefault(packet.pts, trail)
        for frame in decode_packet(stream, packet)[0]:
            if frame.pts is None:
                untimed += 1
                continue
            check_size(name, frame, size, len(shown))
            shown.append(frame.pts)
            trails.append(met.pop(frame.pts, UNKNOWN))
            last_duration = frame.duration
            if frame.key_frame:
                keys.add(frame.pts)
    pts = np.sort(np.frombuffer(shown, np.int64))
    for twice in pts[1:][np.diff(pts) == 0]:
        raise SourceError(
            f"{name}: two frames claim the same time (pts {twice}); remux the source so that each has its own"
        )
    both = {pts: trail for pts, trail in usable.items() if pts in keys}
    return _timeline(shown, trails, both, last_duration, untimed)


def _timeline(
    shown: array[int], trails: array[int], keys: Mapping[int, int], last_duration: int, untimed: int = 0
) -> Timeline:
    """Of frames and seek points with their trails, in any order."""
    pts, trail = np.frombuffer(shown, np.int64), np.frombuffer(trails, np.int64)
    order = pts.argsort()
    keyframes = sorted(keys)
    return Timeline(
        Times.from_bytes(pts[order].tobytes()),
        Times(keyframes),
        last_duration,
        untimed,
        Times.from_bytes(trail[order].tobytes()),
        Times(keys[pts] for pts in keyframes),
    )


def _steady(packets: Iterable[VideoPacket], stream: VideoStream, name: str) -> Iterator[VideoPacket]:
    """``packets``, as long as their clock does not jump back, as it does where recordings were joined."""
    unit = stream.time_base or Fraction(1)
    slack = SLACK_SECONDS // unit
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
