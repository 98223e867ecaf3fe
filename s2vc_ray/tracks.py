"""One carried stream as a track of a muxer: whether a container holds it, the track, and its packets.

Knows one stream at a time, and neither pictures nor the order of a file; see `s2vc_ray.remux`.
"""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from math import ceil
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet, PacketSideData, packet_sidedata_type_from_literal
from av.stream import Disposition, Stream

from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.passthrough_head import PassStream
from s2vc_ray.passthrough_packets import CORRUPT, KEY, PassPacket
from s2vc_ray.portable_tags import stream_tags
from s2vc_ray.source_io import TAG_ERRORS

_USUAL_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo"}
"""Names for channels that a source left unnamed: what every player takes them for, and MP4 requires."""

REFUSALS = (av.ArgumentError, av.InvalidDataError, av.PatchWelcomeError)
"""What muxers say to packets that make no sense, such as times that go back; a full disk is none of them."""

_FINE = 1_000_000
"""Units per second; FFmpeg's own for subtitles, finer than the clock of pictures and sound."""

_new_side_data = cast(Any, PacketSideData)


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
        try:
            number = packet_sidedata_type_from_literal(cast(Any, name))
        except ValueError:
            continue  # a kind that the library cannot name; reading the file back tells that it is missing
        # Built by number and size: the constructor that the library uses itself, absent from its type stubs.
        side = _new_side_data(number, len(data))
        side.update(data)
        side.to_packet(made, move=True)
    return made


def first_packets(passthrough: Passthrough) -> dict[int, PassPacket]:
    """The first packet of each stream that has one, by the stream's number."""
    wanted = sum(stream.packets > 0 for stream in passthrough.head.streams)
    found: dict[int, PassPacket] = {}
    for packet in passthrough.packets() if wanted else ():
        found.setdefault(packet.stream, packet)
        if len(found) == wanted:
            break
    return found


def why_refused(container: str, stream: PassStream, first: PassPacket | None) -> str:
    """Why ``container`` cannot hold ``stream``: found by muxing its first packet alone. Empty when it can."""
    what = stream.codec or f"a {stream.kind} stream without a known codec"
    if stream.kind == "data" and container == "matroska":
        return "matroska holds no data streams"
    if not stream.template:
        return f"no muxer knows the parameters of {what}"
    file = BytesIO()
    try:
        with av.open(file, "w", format=container, metadata_errors=TAG_ERRORS) as trial:
            added = add_track(trial, stream)
            trial.start_encoding()
            if first is not None:
                trial.mux(restore_packet(first, added, stream.time_base))
        # FFmpeg writes some streams into MP4 that nothing can open afterwards.
        if first is not None:
            written = BytesIO(file.getvalue())
            with av.open(written, "r", format=container, metadata_errors=TAG_ERRORS) as again:
                again.streams[0]
    except (av.FFmpegError, ValueError, IndexError):
        return f"{container} cannot hold {what}"
    return ""


def add_track(out: OutputContainer, stream: PassStream) -> Stream:
    """Add ``stream``, with its tags, to a muxer that can hold it (see `why_refused`)."""
    template = BytesIO(stream.template)
    with av.open(template, "r", format=stream.template_format, metadata_errors=TAG_ERRORS) as file:
        if file.streams[0].type != stream.kind:
            raise ValueError(f"the template of stream {stream.index} is not of its kind")
        added = out.add_stream_from_template(file.streams[0], opaque=True)
    if isinstance(added, AudioStream):
        layout = str(stream.parameters.get("layout", ""))
        added.codec_context.layout = _USUAL_LAYOUTS.get(layout, layout)
    added.time_base = _clock(stream, out.format.name)
    added.disposition = Disposition(stream.disposition)
    added.metadata.clear()
    added.metadata.update(stream_tags(stream))
    return added


def _clock(stream: PassStream, container: str) -> Fraction:
    """The unit of a track's times that loses none of them. MP4 counts whole parts of a second."""
    unit = stream.time_base
    if container == "matroska":
        return unit
    if stream.codec == "mov_text":
        # FFmpeg ends a subtitle early when another track's clock is finer than its own.
        return Fraction(1, unit.denominator * ceil(Fraction(_FINE, unit.denominator)))
    return Fraction(1, unit.denominator)
