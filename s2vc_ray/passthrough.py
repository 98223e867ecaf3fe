"""Taking everything but the pictures out of a source, byte for byte, in one reading.

Reads audio, subtitle, data and attachment streams, cover art, tags and chapters into a ``Passthrough``. A
stream that cannot be carried is listed with its reason, never dropped in silence. It must not know how
they are muxed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet, PacketSideData
from av.stream import AttachmentStream, Discard, Stream

from s2vc_ray.passthrough_format import PacketSpool, Passthrough
from s2vc_ray.passthrough_head import (
    TEMPLATE_FORMATS,
    Omitted,
    PassAttachment,
    PassChapter,
    PassHead,
    PassStream,
)
from s2vc_ray.passthrough_packets import CORRUPT, DISCARD, DISPOSABLE, KEY, PassPacket
from s2vc_ray.source_io import (
    TAG_ERRORS,
    Source,
    choose_video,
    is_picture,
    name_of,
    open_source,
    read_packets,
)

if TYPE_CHECKING:
    from av.container.core import Chapter

__all__ = ["Omitted", "PassHead", "PassPacket", "PassStream", "Passthrough", "copy_packet", "extract"]

_LARGEST_SAMPLE = 1 << 16
"""A larger first packet stays out of a stream's template: it would be kept twice."""


def extract(source: Source, *, uri: str = "") -> Passthrough:
    """Everything of ``source`` but its main video stream.

    Args:
        source: a path or a seekable binary file.
        uri: what to call the source in error messages.

    Returns:
        A ``Passthrough``; beyond 4 MiB its bytes lie in temporary files that live as long as it.

    Raises:
        SourceError: the source cannot be opened, has no video stream, or has tags beyond all measure.
    """
    name = name_of(source, uri)
    with open_source(source, uri) as container:
        video = choose_video(container, name)
        carried, omitted = _sort_streams(container, video.index)
        # Damage in an MPEG stream can make a stream another kind while it is read: it stays what it was.
        kinds = [stream.type for stream in carried]
        # Cover art is shown at no time.
        units = [
            None if kind == "video" else _unit(stream) for stream, kind in zip(carried, kinds, strict=True)
        ]
        records, first = PacketSpool(units), dict[int, PassPacket]()
        for packet in _packets(container, carried):
            first.setdefault(packet.stream, packet)
            records.put(packet)
        attached = [stream for stream in container.streams if isinstance(stream, AttachmentStream)]
        head = PassHead(
            format=container.format.name,
            metadata=dict(container.metadata),
            video_index=video.index,
            video_disposition=int(video.disposition),
            video_metadata=dict(video.metadata),
            streams=tuple(
                _describe(stream, kind, first.get(number))
                for number, (stream, kind) in enumerate(zip(carried, kinds, strict=True))
            ),
            attachments=tuple(PassAttachment(stream.index, dict(stream.metadata)) for stream in attached),
            chapters=tuple(_chapter(chapter) for chapter in container.chapters()),
            omitted=tuple(omitted),
        )
        return records.close(head, (stream.data for stream in attached))


def _sort_streams(container: InputContainer, video: int) -> tuple[list[Stream], list[Omitted]]:
    carried: list[Stream] = []
    omitted: list[Omitted] = []
    for stream in container.streams:
        if stream.index == video or isinstance(stream, AttachmentStream):
            continue
        if stream.type in ("audio", "subtitle", "data") or is_picture(stream):
            carried.append(stream)
        elif stream.type == "video":
            omitted.append(_omit(stream, "a second video stream; only one is compressed"))
        else:
            omitted.append(_omit(stream, "a stream of unknown type"))
    return carried, omitted


def _omit(stream: Stream, reason: str) -> Omitted:
    return Omitted(stream.index, stream.type, codec_name(stream), reason)


def codec_name(stream: Stream) -> str:
    """FFmpeg's name of the codec, empty when it has none."""
    context = _context(stream)
    if context is not None:
        return context.codec.canonical_name
    return getattr(stream, "name", None) or ""


def _context(stream: Stream) -> CodecContext | None:
    """The decoder's context; None where FFmpeg has no decoder, which the library's own types leave out."""
    return stream.codec_context


def _chapter(chapter: Chapter) -> PassChapter:
    return PassChapter(
        id=chapter["id"],
        start=chapter["start"],
        end=chapter["end"],
        time_base=chapter["time_base"] or Fraction(1, 1000),
        metadata=dict(chapter["metadata"]),
    )


def _packets(container: InputContainer, streams: list[Stream]) -> Iterator[PassPacket]:
    """All packets of ``streams``, numbered by their place in it."""
    if not streams:
        return
    number = {stream.index: place for place, stream in enumerate(streams)}
    for stream in container.streams:
        stream.discard = Discard.none if stream.index in number else Discard.all
    for packet in read_packets(container, streams):
        yield copy_packet(packet, number[packet.stream_index])


def copy_packet(packet: Packet[Any], stream: int) -> PassPacket:
    """``packet`` as a value, numbered ``stream``."""
    flags = (
        KEY * packet.is_keyframe
        | DISCARD * packet.is_discard
        | CORRUPT * packet.is_corrupt
        | DISPOSABLE * packet.is_disposable
    )
    side = tuple((_side_name(item), bytes(item)) for item in packet.iter_sidedata())
    return PassPacket(stream, flags, packet.pts, packet.dts, packet.duration or 0, side, bytes(packet))


def _side_name(item: PacketSideData) -> str:
    try:
        return item.data_type
    except IndexError:  # FFmpeg knows kinds that the library has no name for yet
        return item.data_desc


def _unit(stream: Stream) -> Fraction:
    return stream.time_base or Fraction(1, 1000)


def _describe(stream: Stream, kind: str, first: PassPacket | None) -> PassStream:
    template_format, template = _template(stream, first)
    context = _context(stream)
    return PassStream(
        index=stream.index,
        id=stream.id,
        kind=kind,
        codec=codec_name(stream),
        tag=_tag(stream),
        time_base=_unit(stream),
        extradata=(context.extradata or b"") if context is not None else b"",
        disposition=int(stream.disposition),
        metadata=dict(stream.metadata),
        parameters=codec_parameters(stream),
        template=template,
        template_format=template_format,
    )


def _tag(stream: Stream) -> str:
    tag = stream.codec_tag if _context(stream) is not None else ""
    return tag if tag.isascii() and tag.isprintable() else ""


def codec_parameters(stream: Stream) -> dict[str, int | str]:
    """What a decoder of ``stream`` must know besides its extradata, as plain values."""
    context: Any = _context(stream)
    if context is None:
        return {}
    if context.type == "audio":
        return {
            "sample_rate": context.sample_rate,
            "channels": context.layout.nb_channels,
            "layout": context.layout.name,
            "sample_format": context.format.name if context.format else "",
            "frame_size": context.frame_size,
            "padding": int(context.delay),
            "profile": stream.profile or "",
        }
    if context.type == "video":
        return {"width": context.width, "height": context.height}
    return {}


def _template(stream: Stream, first: PassPacket | None) -> tuple[str, bytes]:
    """A tiny file holding ``stream``'s parameters: the format that returns them all, else the closest."""
    wanted = _identity(stream)
    best: tuple[int, str, bytes] = (0, "", b"")
    for kind in TEMPLATE_FORMATS:
        try:
            data = _one_stream_file(stream, _sample(stream, first), kind)
            with av.open(BytesIO(data), "r", format=kind, metadata_errors=TAG_ERRORS) as again:
                got = _identity(again.streams[0])
        except (av.FFmpegError, ValueError, IndexError):
            continue  # this format cannot hold the codec; the next one may
        if (got["kind"], got["codec"]) != (wanted["kind"], wanted["codec"]):
            continue
        score = sum(got.get(key) == value for key, value in wanted.items())
        best = max(best, (score, kind, data), key=lambda one: one[0])
        if score == len(wanted):
            break
    return best[1], best[2]


def _sample(stream: Stream, first: PassPacket | None) -> bytes:
    """The first packet, which FFmpeg must see of some codecs, or a stand-in: a picture would be kept twice."""
    if first is None or is_picture(stream) or len(first.data) > _LARGEST_SAMPLE:
        return b"\0"
    return first.data


def _identity(stream: Stream) -> dict[str, object]:
    context = _context(stream)
    return {
        "kind": stream.type,
        "codec": codec_name(stream),
        "extradata": context.extradata if context is not None else None,
        **codec_parameters(stream),
    }


def _one_stream_file(stream: Stream, sample: bytes, kind: str) -> bytes:
    file = BytesIO()
    # Without write_btrt=0 the mov muxer appends a box to the extradata of subtitles.
    options = {"fflags": "+bitexact", "write_btrt": "0"}
    with av.open(file, "w", format=kind, container_options=options, metadata_errors=TAG_ERRORS) as out:
        copy = out.add_stream_from_template(stream, opaque=True)
        packet = Packet(len(sample))
        packet.update(sample)
        packet.stream, packet.is_keyframe = copy, True
        packet.time_base = stream.time_base or Fraction(1, 1000)
        packet.pts = packet.dts = 0
        packet.duration = 1
        out.mux(packet)
    return file.getvalue()
