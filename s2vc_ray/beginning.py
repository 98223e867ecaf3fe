"""A seek point found by reading a source's packets from its beginning, once for all GOPs of a source that is held.

It must not know RGB, digests, codecs of ours or archives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Protocol, TypeVar

from av.container import InputContainer
from av.video.stream import VideoStream

from s2vc_ray.avi_index import without_index
from s2vc_ray.seek_points import is_seek_point
from s2vc_ray.source_io import VideoPacket, lacks_pts, open_video, packets_of
from s2vc_ray.standby import Standby
from s2vc_ray.tape import NO_LABEL, Labelled, Tape
from s2vc_ray.ticks import ticked_packets
from s2vc_ray.values import GopSpec

_Found = TypeVar("_Found", covariant=True)


class Search(Protocol[_Found]):
    """Looks for a seek point among packets."""

    def __call__(self, packets: Iterator[Labelled], seek: int, *, whole: bool) -> _Found | None:
        """What is to be decoded from the seek point labelled ``seek`` on; None where it is not among the packets.

        Args:
            packets: begin with a keyframe, or, where they are ``whole``, with the very first.
        """
        ...


def from_beginning(
    container: InputContainer,
    stream: VideoStream,
    spec: GopSpec,
    standby: Standby | None,
    search: Search[_Found],
) -> _Found | None:
    """What ``search`` finds of a GOP's seek point among all packets of a source.

    The packets are those of ``container``, or of the tape of ``standby``, which goes on where it stands: what is gone
    of it lies before the seek point. Whoever played the tape must be done.
    """
    if standby is None:
        return search(_labelled(container, stream), spec.seek_pts, whole=True)
    tape = standby.tape
    if tape and tape.holds(spec.seek_pts):
        found = search(tape.play(), spec.seek_pts, whole=tape.whole)
        if found is not None:
            return found
    return search(standby.put(_new_tape(standby, spec)).play(), spec.seek_pts, whole=True)


def at_time(
    packets: Iterator[Labelled], seek: int, stream: VideoStream, *, whole: bool
) -> Iterator[VideoPacket] | None:
    """`Search` for a seek point by its time stamp: the packets from there on."""
    for _, packet in packets:
        if packet.pts == seek and is_seek_point(packet, stream):
            return chain([packet], (following for _, following in packets))
    return None


def _new_tape(standby: Standby, spec: GopSpec) -> Tape:
    with ExitStack() as resources:
        source = resources.enter_context(standby.reopen())
        readable = resources.enter_context(without_index(source)) if spec.index_hidden else source
        container, stream = open_video(readable, spec.source_uri, spec.stream_index, 1)
        resources.callback(container.close)
        return Tape(_labelled(container, stream), resources.pop_all(), spec.pts[0])


def _labelled(container: InputContainer, stream: VideoStream) -> Iterator[Labelled]:
    if lacks_pts(container, stream):
        return ticked_packets(container, stream)
    packets = packets_of(container, stream)
    return ((NO_LABEL if packet.pts is None else packet.pts, packet) for packet in packets)
