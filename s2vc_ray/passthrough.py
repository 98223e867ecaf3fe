"""Taking everything but the pictures out of a source, byte for byte.

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
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from s2vc_ray.passthrough_format import (
    CORRUPT,
    DISCARD,
    DISPOSABLE,
    KEY,
    Omitted,
    PassAttachment,
    PassChapter,
    PassHead,
    PassPacket,
    PassStream,
    Passthrough,
    write_passthrough,
)
from s2vc_ray.source_io import Source, choose_video, is_picture, name_of, open_source, read_packets

if TYPE_CHECKING:
    from av.container.core import Chapter

__all__ = ["Omitted", "PassHead", "PassPacket", "PassStream", "Passthrough", "copy_packet", "extract"]

_TEMPLATE_FORMATS = ("matroska", "mov", "nut", "mpegts")


def extract(source: Source, *, uri: str = "") -> Passthrough:
    """Everything of ``source`` but its main video stream.

    Args:
        source: a path or a seekable binary file.
        uri: what to call the source in error messages.

    Returns:
        A ``Passthrough``; beyond 64 MiB its bytes lie in a temporary file that lives as long as it.

    Raises:
        SourceError: the source cannot be opened or has no video stream.
    """
    name = name_of(source, uri)
    with open_source(source, uri) as container:
        video = choose_video(container, name)
        carried, omitted = _sort_streams(container, video.index)
        first = _first_packets(container, carried)
        silent = [stream for stream in carried if stream.index not in first]
        omitted += [_omit(stream, "holds no packets") for stream in silent]
        carried = [stream for stream in carried if stream.index in first]
        head = PassHead(
            streams=tuple(_describe(stream, first[stream.index]) for stream in carried),
            attachments=tuple(
                PassAttachment(stream.name or "", stream.mimetype or "", stream.data)
                for stream in container.streams
                if isinstance(stream, AttachmentStream)
            ),
            chapters=tuple(_chapter(chapter) for chapter in container.chapters()),
            metadata=dict(container.metadata),
            video_metadata=dict(video.metadata),
            video_disposition=int(video.disposition),
            omitted=tuple(sorted(omitted, key=lambda one: one.index)),
        )
        wanted = [stream.index for stream in carried]
    with open_source(source, uri) as container:
        return write_passthrough(head, _packets(container, wanted))


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
    return Omitted(stream.index, stream.type, _codec_name(stream), reason)


def _codec_name(stream: Stream) -> str:
    context = _context(stream)
    return context.codec.canonical_name if context is not None else getattr(stream, "name", None) or ""


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


def _first_packets(container: InputContainer, carried: list[Stream]) -> dict[int, PassPacket]:
    """The first packet of each stream in ``carried``; streams without packets are absent."""
    found: dict[int, PassPacket] = {}
    order = [stream.index for stream in carried]
    for packet in _packets(container, order):
        found.setdefault(order[packet.stream], packet)
        if len(found) == len(order):
            break
    return found


def _packets(container: InputContainer, order: list[int]) -> Iterator[PassPacket]:
    """All packets of the streams in ``order``, numbered by their place in it."""
    streams = [stream for stream in container.streams if stream.index in order]
    if not streams:
        return
    for stream in container.streams:
        stream.discard = av.stream.Discard.none if stream in streams else av.stream.Discard.all
    for packet in read_packets(container, streams):
        yield copy_packet(packet, order.index(packet.stream_index))


def copy_packet(packet: Packet[Any], stream: int) -> PassPacket:
    """``packet`` as a value, numbered ``stream``."""
    flags = (
        KEY * packet.is_keyframe
        | DISCARD * packet.is_discard
        | CORRUPT * packet.is_corrupt
        | DISPOSABLE * packet.is_disposable
    )
    side = tuple((item.data_type, bytes(item)) for item in packet.iter_sidedata())
    return PassPacket(stream, flags, packet.pts, packet.dts, packet.duration or 0, side, bytes(packet))


def _describe(stream: Stream, first: PassPacket) -> PassStream:
    template_format, template = _template(stream, first)
    context = _context(stream)
    return PassStream(
        index=stream.index,
        kind=stream.type,
        codec=_codec_name(stream),
        time_base=stream.time_base or Fraction(1, 1000),
        extradata=(context.extradata or b"") if context is not None else b"",
        disposition=int(stream.disposition),
        metadata=dict(stream.metadata),
        parameters=codec_parameters(stream),
        template=template,
        template_format=template_format,
    )


def codec_parameters(stream: Stream) -> dict[str, int | str]:
    """What a decoder of ``stream`` must know besides its extradata, as plain values."""
    context: Any = _context(stream)
    if context is None:
        return {}
    if stream.type == "audio":
        return {
            "sample_rate": context.sample_rate,
            "channels": context.layout.nb_channels,
            "layout": context.layout.name,
            "sample_format": context.format.name,
            "frame_size": context.frame_size,
            "padding": int(context.delay),
        }
    if stream.type == "video":
        return {"width": context.width, "height": context.height}
    return {}


def _template(stream: Stream, first: PassPacket) -> tuple[str, bytes]:
    """A tiny file holding ``stream``'s parameters: the format that returns them all, else the closest."""
    if _context(stream) is None:
        return "", b""
    wanted = _identity(stream)
    best: tuple[int, str, bytes] = (0, "", b"")
    for kind in _TEMPLATE_FORMATS:
        try:
            data = _one_stream_file(stream, first, kind)
            with av.open(BytesIO(data), "r", format=kind) as again:
                got = _identity(again.streams[0])
        except (av.FFmpegError, ValueError, IndexError):
            continue  # this format cannot hold the codec; the next one may
        if got.get("codec") != wanted["codec"]:
            continue
        score = sum(got.get(key) == value for key, value in wanted.items())
        best = max(best, (score, kind, data), key=lambda one: one[0])
        if score == len(wanted):
            break
    return best[1], best[2]


def _identity(stream: Stream) -> dict[str, object]:
    context = _context(stream)
    if context is None:
        return {}
    return {
        "codec": context.codec.id,
        "extradata": context.extradata,
        **codec_parameters(stream),
    }


def _one_stream_file(stream: Stream, first: PassPacket, kind: str) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format=kind, container_options={"fflags": "+bitexact"}) as out:
        copy = out.add_stream_from_template(stream, opaque=True)
        packet = Packet(len(first.data))
        packet.update(first.data)
        packet.stream, packet.is_keyframe = copy, True
        packet.time_base = stream.time_base or Fraction(1, 1000)
        packet.pts = packet.dts = 0
        packet.duration = first.duration
        out.mux(packet)
    return file.getvalue()
