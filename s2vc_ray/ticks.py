"""Naming frames by count, for sources that store no presentation times (raw elementary streams, AVI, some MXF).

Frame k in presentation order takes the k-th packet time ("tick") in file order: the decode time, or k times
the packet duration in a raw stream. A keyframe is a usable seek point when its packet is the last key packet
at or before the tick of its frame: a later decode then finds the packet from the tick alone. It must not know
GOPs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.picture_sizes import check_size
from s2vc_ray.source_io import VideoPacket, decode_packet, packets_of
from s2vc_ray.tape import Labelled
from s2vc_ray.times import Times
from s2vc_ray.trail import UNKNOWN, onward

_DELAY = 64
"""Packets behind a picture's after which it has come out of its decoder, or never will: H.264 allows 16 frames, each of
which may be two packets."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The frames and the seek points of a source by their ticks, both ascending, with their trails
    (`s2vc_ray.trail`)."""

    ticks: Times
    trail: Times
    keyframes: Times
    keyframe_trail: Times


def frame_step(stream: VideoStream) -> int:
    """A frame's nominal duration in stream time units, at least 1."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * (stream.time_base or Fraction(1, 25)))))


def ticked_packets(container: InputContainer, stream: VideoStream) -> Iterator[tuple[int, VideoPacket]]:
    """Demux from where the container stands: each packet with its tick, ascending."""
    step = frame_step(stream)
    last: int | None = None
    for packet in packets_of(container, stream):
        tick = packet.dts
        # Times of damaged files may stand still or fall back, and two frames would claim the same one.
        if tick is None or (last is not None and tick <= last):
            tick = (-step if last is None else last) + (packet.duration or step)
        last = tick
        yield tick, packet


def count_frames(
    container: InputContainer, stream: VideoStream, expected: tuple[int, int], name: str
) -> Counted:
    """Decode the whole source.

    Raises:
        SourceError: a frame is not of the ``expected`` size.
    """
    ticks, trails, keys = array("q"), array("q", [UNKNOWN]), array("q")
    trail, key_frames = array("q"), list[tuple[int, int | None]]()
    for count, frame in enumerate(
        _decode_numbered(stream, ticked_packets(container, stream), ticks, trails, keys)
    ):
        check_size(name, frame, expected, count)
        trail.append(UNKNOWN if frame.pts is None else trails[frame.pts + 1])
        if frame.key_frame:
            key_frames.append((count, frame.pts))
    count = len(trail)
    step = frame_step(stream)
    while len(ticks) < count:
        ticks.append(ticks[-1] + step if ticks else 0)
    # The first frame is a seek point whatever its picture: there decoding begins with the first packet.
    seekable = dict.fromkeys(ticks[: min(1, count)], UNKNOWN)
    for k, packet in key_frames:
        if packet is not None and packet == _last(keys, k):
            seekable.setdefault(ticks[k], trails[packet])
    keyframes = sorted(seekable)
    return Counted(
        Times(ticks[:count]), Times(trail), Times(keyframes), Times(seekable[tick] for tick in keyframes)
    )


def _last(keys: Sequence[int], number: int) -> int | None:
    at = bisect_right(keys, number)
    return keys[at - 1] if at else None


def _decode_numbered(
    stream: VideoStream,
    packets: Iterator[tuple[int, VideoPacket]],
    ticks: array[int],
    trails: array[int],
    keys: array[int],
) -> Iterator[VideoFrame]:
    """Frames in presentation order; each one's ``pts`` is the number of the packet it came from.

    Appends to ``ticks`` the ticks of the packets that decode, to ``trails``, which holds the one in front of the first
    packet, those behind each, and to ``keys`` the numbers of key packets.
    A packet that the decoder refuses takes its tick with it: the frames behind damage keep their own times.
    """
    for number, (tick, packet) in enumerate(packets):
        ticks.append(tick)
        trails.append(onward(trails[-1], tick, packet))
        if packet.is_keyframe:
            keys.append(number)
        packet.pts = packet.dts = number
        frames, refused = decode_packet(stream, packet)
        if refused:
            ticks.pop()
        yield from frames
    yield from decode_packet(stream, None)[0]


def from_tick(
    packets: Iterator[Labelled], seek: int, *, whole: bool
) -> tuple[Iterator[Labelled], int | None] | None:
    """The packets from the keyframe in front of a seek point on, and the tick to know it by: None where it is the very
    first packet. Nothing where there is no packet with that tick.

    Args:
        packets: begin at or before that keyframe, with their ticks.
        seek: a seek point's tick, found by `count_frames`.
        whole: they begin with the very first.
    """
    pending: list[Labelled] = []
    passed = 0
    for tick, packet in packets:
        if packet.is_keyframe and tick <= seek:
            passed += len(pending)
            pending = []
        pending.append((tick, packet))
        if tick >= seek:
            break
    if not pending or pending[-1][0] != seek:
        return None
    first = whole and passed == 0 and len(pending) == 1
    return chain(pending, packets), None if first else seek


def frames_from_tick(
    packets: Iterator[Labelled], stream: VideoStream, seek: int | None = None, trail: int = UNKNOWN
) -> Iterator[tuple[int, int, VideoFrame]]:
    """Frames with their ticks and trails.

    Args:
        packets: begin with a keyframe.
        seek: the tick of its picture, from which counting begins, and frames are given; None where that is the very
            first packet, whose picture needs no landmark. Nothing is given where the picture does not come out soon.
        trail: the one in front of it.
    """
    number = 0 if seek is None else None
    lost = False

    def fed() -> Iterator[Labelled]:
        nonlocal lost
        for count, item in enumerate(packets):
            if lost := number is None and count >= _DELAY:
                return
            yield item

    ticks, trails = array("q"), array("q", [trail])
    for frame in _decode_numbered(stream, fed(), ticks, trails, array("q")):
        if seek is not None and number is None and frame.pts == 0 and not lost:
            number = ticks.index(seek) if seek in ticks else None
        if number is not None:
            if number < len(ticks):
                yield ticks[number], UNKNOWN if frame.pts is None else trails[frame.pts + 1], frame
            number += 1
