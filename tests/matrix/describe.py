"""What a media file says of itself, as plain lines to compare: everything that FFmpeg's demuxers tell, by way of PyAV.

``python -m tests.matrix.describe FILE [FILE]`` prints one description, or the difference of two.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
from av.stream import AttachmentStream, Disposition, Stream

PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
OWN_TAGS = frozenset({"encoder", "duration", "major_brand", "minor_version", "compatible_brands"})
"""What a muxer says of the very file that it writes."""


def describe(path: Path, *, video: bool = False, packets: bool = True) -> list[str]:
    """One line for each thing that the file says; the video stream itself only when asked for."""
    with av.open(str(path), metadata_errors="surrogateescape") as file:
        lines = [f"format {file.format.name}", *_tags("format", file.metadata, OWN_TAGS)]
        for number, chapter in enumerate(file.chapters()):
            unit = chapter["time_base"] or 0
            span = f"{float(chapter['start'] * unit):.6f}..{float(chapter['end'] * unit):.6f}"
            lines.append(f"chapter {number}: {span}")
            lines += _tags(f"chapter {number}", chapter["metadata"])
        shown = [one for one in file.streams if video or one.type != "video" or one.disposition & PICTURES]
        for stream in shown:
            lines += _stream(stream)
        timed = [stream for stream in shown if not isinstance(stream, AttachmentStream)]
        if packets and timed:
            lines += _packets(file, timed)
    return lines


def _tags(where: str, tags: dict[str, str], skipped: frozenset[str] = frozenset()) -> Iterator[str]:
    for key, value in sorted(tags.items(), key=lambda item: item[0].lower()):
        if key.lower() not in skipped:
            yield f"{where}: {key} = {value.encode('utf-8', 'surrogateescape')!r}"


def _stream(stream: Stream) -> Iterator[str]:
    where = f"stream {stream.index}"
    context: Any = stream.codec_context
    codec = context.codec.canonical_name if context is not None else getattr(stream, "name", None)
    if isinstance(stream, AttachmentStream):
        yield f"{where}: attachment, {len(stream.data)} bytes, sha256 {_digest(stream.data)}"
    else:
        yield f"{where}: {stream.type} {codec}, {stream.codec_tag if context else ''!r}, per {stream.time_base}"
        yield f"{where}: start {stream.start_time}"
    if context is not None:
        extradata = context.extradata or b""
        yield f"{where}: extradata {len(extradata)} bytes, sha256 {_digest(extradata)}"
        yield f"{where}: profile {stream.profile}"
        if stream.type == "audio":
            form = context.format.name if context.format else None
            yield f"{where}: {context.sample_rate} Hz, {context.layout.name}, {form}, {context.frame_size} samples"
            yield f"{where}: delay {context.delay}"
        elif stream.type == "video":
            yield f"{where}: {context.width}x{context.height}"
    yield f"{where}: disposition {Disposition(stream.disposition)!r}"
    yield from _tags(where, dict(stream.metadata), frozenset({"duration"}))


def _packets(file: av.container.InputContainer, streams: list[Stream]) -> Iterator[str]:
    count: dict[int, int] = defaultdict(int)
    spans: dict[int, list[int]] = defaultdict(list)
    digests: dict[tuple[int, str], Any] = defaultdict(hashlib.sha256)
    for packet in file.demux(streams):
        if not packet.size:
            continue
        index = packet.stream_index
        count[index] += 1
        spans[index] += [
            time for time in (packet.pts, (packet.pts or 0) + (packet.duration or 0)) if time is not None
        ]
        side = [(item.data_type, bytes(item)) for item in packet.iter_sidedata()]
        flags = (packet.is_keyframe, packet.is_discard, packet.is_corrupt, packet.is_disposable)
        for what, value in {
            "data": bytes(packet),
            "times": repr((packet.pts, packet.dts)).encode(),
            "durations": repr(packet.duration).encode(),
            "flags": repr(flags).encode(),
            "side data": repr(side).encode() if side else b"",
        }.items():
            digests[index, what].update(value)
    for stream in streams:
        index = stream.index
        where = f"stream {index}: packets"
        yield f"{where}: {count[index]}, from {min(spans[index], default=None)} to {max(spans[index], default=None)}"
        for what in ("data", "times", "durations", "flags", "side data"):
            yield f"{where}: {what} sha256 {digests[index, what].hexdigest()[:16]}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def difference(
    before: Path, after: Path, keep: Callable[[str], bool] = lambda line: True, **options: Any
) -> str:
    """The unified diff of two descriptions without context lines; empty when they are equal."""
    both = [[line for line in describe(path, **options) if keep(line)] for path in (before, after)]
    return "\n".join(difflib.unified_diff(*both, before.name, after.name, lineterm="", n=0))


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]]
    print("\n".join(describe(files[0])) if len(files) == 1 else difference(*files) or "no difference")
