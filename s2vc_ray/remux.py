"""Putting carried streams into an output file: which fit, and their packets in step with the pictures.

Takes a ``Passthrough`` and an open muxer. A stream that the container cannot hold is found by trying it
alone first, and reported; the pictures never fail because of it. It must not know how pictures are encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from typing import Any, cast

import av
from av.container import OutputContainer
from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal
from av.stream import Disposition, Stream

from s2vc_ray.passthrough_format import CORRUPT, KEY, Omitted, PassPacket, PassStream, Passthrough

_WRITTEN_BY_MUXER = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "handler_name", "vendor_id"}
)

_new_side_data = cast(Any, PacketSideData)


@dataclass(slots=True)
class Remux:
    """The carried streams of one output file, in the making: ``add_streams``, then ``write_until`` as time goes.

    Attributes:
        omitted: streams and attachments left out so far, with reasons.
        carried: source indices of the streams that are in.
        rounded: source index to the largest error in seconds of a packet time that the container's
            clock could not express; exact streams are absent.
    """

    out: OutputContainer
    passthrough: Passthrough
    shift: Fraction = Fraction(0)
    omitted: list[Omitted] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)
    rounded: dict[int, Fraction] = field(default_factory=dict)
    _streams: dict[int, Stream] = field(default_factory=dict)
    _packets: Iterator[PassPacket] = field(init=False)
    _waiting: PassPacket | None = None

    def __post_init__(self) -> None:
        self._packets = self.passthrough.packets()
        self.omitted.extend(self.passthrough.head.omitted)

    def add_streams(self) -> None:
        """Add what the container can hold of streams, attachments, tags and chapters, before its header is written."""
        head = self.passthrough.head
        self.out.metadata.update(portable_tags(head.metadata))
        if head.chapters:
            self.out.set_chapters(
                [
                    {
                        "id": chapter.id,
                        "start": chapter.start,
                        "end": chapter.end,
                        "time_base": chapter.time_base,
                        "metadata": chapter.metadata,
                    }
                    for chapter in head.chapters
                ]
            )
        first = self._first_packets()
        for number, stream in enumerate(head.streams):
            reason = _why_not(self.out.format.name, stream, first.get(number))
            if reason:
                self.omitted.append(Omitted(stream.index, stream.kind, stream.codec, reason))
            else:
                self._streams[number] = _add(self.out, stream)
                self.carried.append(stream.index)
        for attachment in head.attachments:
            if self.out.format.name == "matroska":
                self.out.add_attachment(attachment.name, attachment.mimetype, attachment.data)
            else:
                reason = f"{self.out.format.name} holds no attached files"
                self.omitted.append(Omitted(-1, "attachment", attachment.name, reason))

    def write_until(self, time: Fraction | None) -> None:
        """Mux carried packets whose decode time in seconds is at most ``time``; all of them when it is None."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            stream = self._streams.get(packet.stream)
            if stream is None:
                continue
            unit = self.passthrough.head.streams[packet.stream].time_base
            clock = packet.dts if packet.dts is not None else packet.pts
            if time is not None and clock is not None and clock * unit + self.shift > time:
                self._waiting = packet
                return
            self._mux(packet, stream, unit)

    def _mux(self, packet: PassPacket, stream: Stream, unit: Fraction) -> None:
        source = self.passthrough.head.streams[packet.stream].index
        grid = stream.time_base or unit
        made = restore_packet(packet, stream, unit)
        if self.shift:
            made.pts, made.dts = (
                _shifted(packet.pts, unit, self.shift),
                _shifted(packet.dts, unit, self.shift),
            )
        if packet.pts is not None:
            exact = packet.pts * unit / grid
            error = abs(exact - round(exact)) * grid
            if error:
                self.rounded[source] = max(self.rounded.get(source, Fraction(0)), error)
        self.out.mux(made)

    def _first_packets(self) -> dict[int, PassPacket]:
        found: dict[int, PassPacket] = {}
        for packet in self.passthrough.packets():
            found.setdefault(packet.stream, packet)
            if len(found) == len(self.passthrough.head.streams):
                break
        return found


def portable_tags(tags: dict[str, str]) -> dict[str, str]:
    """``tags`` without those that a muxer writes itself about its own file."""
    return {key: value for key, value in tags.items() if key.lower() not in _WRITTEN_BY_MUXER}


def restore_packet(packet: PassPacket, stream: Stream, time_base: Fraction) -> Packet[Stream]:
    """A muxable packet of ``stream``. The discard and disposable flags follow from the container's own edits."""
    made: Packet[Stream] = Packet(len(packet.data))
    if packet.data:
        made.update(packet.data)
    made.stream = stream
    made.time_base = time_base
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.is_keyframe = bool(packet.flags & KEY)
    made.is_corrupt = bool(packet.flags & CORRUPT)
    for name, data in packet.side:
        # Built by number and size: the constructor that the library uses itself, absent from its type stubs.
        side = _new_side_data(packet_sidedata_type_from_literal(cast(Any, name)), len(data))
        side.update(data)
        side.to_packet(made, move=True)
    return made


def _shifted(time: int | None, unit: Fraction, shift: Fraction) -> int | None:
    return None if time is None else time + round(shift / unit)


def _why_not(container: str, stream: PassStream, first: PassPacket | None) -> str:
    """Why ``container`` cannot hold ``stream``: found by muxing its first packet alone. Empty when it can."""
    if not stream.template:
        return f"no muxer for a {stream.kind} stream without a known codec"
    if first is None:
        return "holds no packets"
    try:
        with av.open(BytesIO(), "w", format=container) as trial:
            added = _add(trial, stream)
            trial.mux(restore_packet(first, added, stream.time_base))
    except (av.FFmpegError, ValueError) as error:
        return f"{container} cannot hold {stream.codec} ({error})"
    return ""


def _add(out: OutputContainer, stream: PassStream) -> Stream:
    with av.open(BytesIO(stream.template), "r", format=stream.template_format) as file:
        added = out.add_stream_from_template(file.streams[0], opaque=True)
    added.time_base = stream.time_base
    added.disposition = Disposition(stream.disposition)
    added.metadata.clear()
    added.metadata.update(portable_tags(stream.metadata))
    return added
