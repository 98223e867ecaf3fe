"""Putting carried streams into an output file: which fit, and their packets in step with the pictures.

Takes a ``Passthrough`` and an open muxer. A stream that the container cannot hold is found by trying it
alone first, and reported; the pictures never fail because of it. It must not know how pictures are encoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal
from av.stream import Disposition, Stream

from s2vc_ray.passthrough_format import CORRUPT, KEY, PassPacket, Passthrough
from s2vc_ray.passthrough_head import Omitted, PassStream
from s2vc_ray.source_io import TAG_ERRORS

_WRITTEN_BY_MUXER = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "handler_name", "vendor_id"}
)

_USUAL_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo"}
"""Names for channels that a source left unnamed: what every player takes them for, and MP4 requires."""

_new_side_data = cast(Any, PacketSideData)


@dataclass(slots=True)
class Remux:
    """The carried streams of one output file, in the making: ``add_streams``, then ``write_until``.

    Attributes:
        omitted: streams and attachments left out so far, with reasons.
        carried: source indices of the streams that are in.
        written: output stream index to the number of its packets and the CRC-32 of their payloads.
        times: output stream index to its packets' time stamps, in the source's units.
        sources: output stream index to the stream's index in the source.
    """

    out: OutputContainer
    passthrough: Passthrough
    shift: Fraction = Fraction(0)
    omitted: list[Omitted] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)
    written: dict[int, tuple[int, int]] = field(default_factory=dict)
    times: dict[int, list[int | None]] = field(default_factory=dict)
    _streams: dict[int, Stream] = field(default_factory=dict)
    _steps: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    _packets: Iterator[PassPacket] = field(init=False)
    _waiting: PassPacket | None = None

    def __post_init__(self) -> None:
        self._packets = self.passthrough.packets()
        self.omitted.extend(self.passthrough.head.omitted)

    def add_streams(self) -> None:
        """Add the streams, attachments, tags and chapters the container can hold, before its header."""
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
                self.sources[self._streams[number].index] = stream.index
        for number, attachment in enumerate(head.attachments):
            if self.out.format.name == "matroska":
                data = self.passthrough.attachment(number)
                mimetype = attachment.metadata.get("mimetype", "application/octet-stream")
                self.out.add_attachment(attachment.name, mimetype, data)
            else:
                reason = f"{self.out.format.name} holds no attached files"
                self.omitted.append(Omitted(attachment.index, "attachment", attachment.name, reason))

    def write_until(self, time: Fraction | None) -> None:
        """Mux carried packets whose decode time in seconds is at most ``time``; None means all of them."""
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
        made = restore_packet(packet, stream, unit)
        made.duration = self._duration(packet)
        count, crc = self.written.get(stream.index, (0, 0))
        self.written[stream.index] = (count + 1, zlib.crc32(packet.data, crc))
        if self.shift:
            made.pts, made.dts = (
                _shifted(packet.pts, unit, self.shift),
                _shifted(packet.dts, unit, self.shift),
            )
        self.times.setdefault(stream.index, []).append(made.pts)
        self.out.mux(made)

    def _duration(self, packet: PassPacket) -> int:
        """The packet's duration, or the step before it: a last packet of duration 0 would be cut off."""
        before, step = self._steps.get(packet.stream, (packet.pts, 0))
        if packet.pts is not None and before is not None and packet.pts > before:
            step = packet.pts - before
        self._steps[packet.stream] = (packet.pts, step)
        return packet.duration or step

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
    """A muxable packet of ``stream``. FFmpeg's discard flag follows from the container's edit list."""
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
    if isinstance(added, AudioStream):
        layout = str(stream.parameters.get("layout", ""))
        added.codec_context.layout = _USUAL_LAYOUTS.get(layout, layout)
    added.time_base = stream.time_base
    added.disposition = Disposition(stream.disposition)
    added.metadata.clear()
    added.metadata.update(portable_tags(stream.metadata))
    return added


def check_carried(path: Path, remux: Remux) -> tuple[dict[int, Fraction], list[str]]:
    """Read the finished file back and compare it with what was given.

    Returns:
        source index to the largest difference in seconds of a packet's time, for streams that have one;
        and one sentence for every stream or tag that is not in the file as it was given.
    """
    found: dict[int, tuple[int, int]] = {}
    times: dict[int, list[Fraction | None]] = {}
    with av.open(str(path), metadata_errors=TAG_ERRORS) as file:
        kept = {key.lower() for key in file.metadata}
        streams = [stream for stream in file.streams if stream.index in remux.sources]
        for packet in file.demux(streams) if streams else ():
            if packet.size:
                count, crc = found.get(packet.stream_index, (0, 0))
                found[packet.stream_index] = (count + 1, zlib.crc32(bytes(packet), crc))
                time = None if packet.pts is None else packet.pts * packet.time_base
                times.setdefault(packet.stream_index, []).append(time)
    notes = []
    rounded = {}
    for index, source in remux.sources.items():
        given, got = remux.written.get(index, (0, 0)), found.get(index, (0, 0))
        if given[0] != got[0]:
            notes.append(f"stream {source}: {given[0]} packets were given, the file shows {got[0]}")
            continue
        if given != got:
            notes.append(f"stream {source}: the container stores its packets in another form")
        error = _largest_difference(remux, index, times.get(index, []))
        if error:
            rounded[source] = error
    missing = sorted(key for key in portable_tags(remux.passthrough.head.metadata) if key.lower() not in kept)
    if missing:
        notes.append(f"the container did not keep the tags {', '.join(missing)}")
    return rounded, notes


def _largest_difference(remux: Remux, index: int, got: list[Fraction | None]) -> Fraction:
    source = remux.sources[index]
    unit = next(stream.time_base for stream in remux.passthrough.head.streams if stream.index == source)
    given = remux.times.get(index, [])
    pairs = zip(given, got, strict=True)
    return max((abs(a * unit - b) for a, b in pairs if a is not None and b is not None), default=Fraction(0))
