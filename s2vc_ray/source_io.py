"""Opening a source with FFmpeg and choosing its picture stream.

The one place that turns a path or a binary file into a demuxer, so that probing, decoding and passthrough
see the same streams and raise the same errors. It must not know GOPs, archives or where a binary file's bytes
come from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import av
from av.container import InputContainer
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.errors import SourceError

Source: TypeAlias = str | os.PathLike[str] | BinaryIO

VideoPacket: TypeAlias = "Packet[VideoStream]"

_FILE_BUFFER = 1 << 18
"""Bytes per read of a file object: a ranged read costs a round trip, so more than FFmpeg's 32 KiB."""

_READ_FAILURES = 16
"""Read errors in a row after which the rest of a file counts as unreadable."""

_NO_TIMESTAMPS = int(FormatFlags.no_timestamps.value)  # type: ignore[call-overload]

TAG_ERRORS = "surrogateescape"
"""Old files hold tags that are not UTF-8: their bytes are kept as they are, through reading and writing."""

_NOT_VIDEO = {
    "tty": "a text file",
    "bin": "text-mode art",
    "xbin": "text-mode art",
    "adf": "text-mode art",
    "idf": "text-mode art",
    "image2": "a still image",
    "hls": "a playlist, not a media file",
    "dash": "a playlist, not a media file",
    "concat": "a playlist, not a media file",
}


def name_of(source: Source, uri: str = "") -> str:
    """What to call ``source`` in messages: ``uri`` when given, else its path or name."""
    if uri:
        return uri
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "<stream>"))


@contextmanager
def without_read_ahead(source: Source) -> Iterator[Source]:
    """``source`` for whoever reads little of it, here and there: a file object's buffer would fetch more than that."""
    raw = getattr(source, "raw", None)
    if raw is None:
        yield source
        return
    at = raw.tell()
    try:
        yield raw
    finally:
        raw.seek(at)  # where the buffer believes it to be


@contextmanager
def bytes_of(source: Source) -> Iterator[BinaryIO]:
    """The bytes of ``source``, unbuffered where it is a path."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb", buffering=0) as file:
            yield cast("BinaryIO", file)
    else:
        yield source


def open_source(source: Source, uri: str = "") -> InputContainer:
    """Open ``source`` for demuxing; the result is a context manager. A file object stays the caller's.

    Raises:
        SourceError: missing, empty, unreadable, not a media file, or a still image, text or playlist.
    """
    name = name_of(source, uri)
    _check_bytes(source, name)
    try:
        if isinstance(source, (str, os.PathLike)):
            # A playlist or a crafted file must never make the job fetch something else.
            options = {"protocol_whitelist": "file"}
            container = av.open(os.fspath(source), "r", container_options=options, metadata_errors=TAG_ERRORS)
        else:
            container = av.open(source, "r", buffer_size=_FILE_BUFFER, metadata_errors=TAG_ERRORS)
    except av.FFmpegError as error:
        raise SourceError(
            f"{name}: not a readable media file ({error.strerror}); check that it is whole"
        ) from error
    kind = container.format.name
    refused = _NOT_VIDEO.get(kind) or ("a still image" if kind.endswith("_pipe") else None)
    if refused:
        container.close()
        raise SourceError(f"{name}: {refused}, not video")
    return container


def _check_bytes(source: Source, name: str) -> None:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise SourceError(f"{name}: no such file")
        if not path.is_file():
            raise SourceError(f"{name}: not a regular file")
        try:
            with path.open("rb") as handle:
                empty = not handle.read(1)
        except OSError as error:
            raise SourceError(f"{name}: cannot be read ({error})") from error
    else:
        source.seek(0)
        empty = not source.read(1)
        source.seek(0)
    if empty:
        raise SourceError(f"{name}: empty file")


def is_picture(stream: Stream) -> bool:
    """Whether ``stream`` is cover art (an attached picture) and so no video to compress."""
    art = Disposition.attached_pic | Disposition.timed_thumbnails
    return bool(stream.disposition & art)


def choose_video(container: InputContainer, name: str, index: int | None = None) -> VideoStream:
    """The stream to compress: ``index`` when given, else the default-flagged video stream, else the first.

    All other streams are set to be skipped while demuxing.

    Raises:
        SourceError: there is no such video stream, or no decoder for it.
    """
    videos = [stream for stream in container.streams.video if not is_picture(stream)]
    if index is not None:
        videos = [stream for stream in videos if stream.index == index]
    if not videos:
        raise SourceError(f"{name}: {_why_no_video(container)}")
    marked = [stream for stream in videos if stream.disposition & Disposition.default]
    chosen = (marked or videos)[0]
    if chosen.codec_context is None:
        raise SourceError(f"{name}: no decoder for video stream {chosen.index}")
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    return chosen


def open_video(source: Source, uri: str, index: int, threads: int) -> tuple[InputContainer, VideoStream]:
    """`open_source`, and its video stream ``index`` to be decoded by so many threads."""
    container = open_source(source, uri)
    try:
        stream = choose_video(container, name_of(source, uri), index)
    except SourceError:
        container.close()
        raise
    stream.thread_count = threads
    if threads > 1 and not lacks_pts(container, stream):
        stream.thread_type = "AUTO"
    return container, stream


def _why_no_video(container: InputContainer) -> str:
    if not len(container.streams):
        return "holds no streams, so no frames at all"
    if any(is_picture(stream) for stream in container.streams.video):
        return "the only picture is cover art; there is no video stream"
    if container.streams.audio:
        return "audio only; there is no video stream"
    kinds = ", ".join(sorted({stream.type for stream in container.streams}))
    return f"no video stream (found: {kinds})"


def lacks_pts(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the format stores no presentation times (raw elementary streams, AVI), or none to be trusted.

    The latter is H.264 and H.265 with reordered pictures in MXF, whose packets FFmpeg gives the times of their storage
    order where the file's index has no offsets.

    Frames of such sources are numbered in presentation order and take the packets' decode times (AVI) or
    multiples of the packet duration (raw streams), in ascending order, as their time stamps.
    """
    if container.format.name == "mxf":
        context = stream.codec_context
        return context.has_b_frames and context.codec.canonical_name in ("h264", "hevc")
    return bool(container.format.flags & _NO_TIMESTAMPS) or container.format.name == "avi"


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The packets of ``stream``, as ``read_packets`` reads them."""
    return cast("Iterator[VideoPacket]", read_packets(container, [stream]))


def read_packets(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet[Stream]]:
    """Demux ``streams``, reading on behind damage as long as the demuxer finds its way.

    The final flush packets (size 0) are left out. Ends where nothing more can be read, as at a truncated end.
    """
    failures = 0
    while failures < _READ_FAILURES:
        try:
            for packet in container.demux(list(streams)):
                if packet.size:
                    failures = 0
                    yield packet
        except av.EOFError:
            return
        except IndexError:
            # Streams appeared while reading, and PyAV trips over them when it flushes: all packets have come by then.
            return
        except av.FFmpegError:
            failures += 1
        else:
            return


def decode_packet(stream: VideoStream, packet: Packet[VideoStream] | None) -> tuple[list[VideoFrame], bool]:
    """Feed one packet (None drains the decoder); returns its frames and whether the decoder refused it."""
    try:
        return stream.codec_context.decode(packet), False
    except av.EOFError:
        return [], False
    except av.FFmpegError:
        return [], True
