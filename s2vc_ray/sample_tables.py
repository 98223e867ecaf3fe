"""The timeline of an MP4 or MOV from its tables: ``moov`` is read, and of the pictures a few heads.

FFmpeg's own index says where each sample lies, when it is decoded, and whether the edit list shows it; it keeps the
offsets from there to the time of presentation to itself, so they are read here (ISO/IEC 14496-12, 8.6.1). Both must
agree on every sample's size and on the steps between them, and with the packets that were read for the first picture.
Where they do not, or anything is out of the ordinary (fragments, several sample descriptions, samples behind the
file's end), there is no answer here, and the packets themselves are asked. It must not know GOPs or archives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from s2vc_ray.seek_points import begins_exactly
from s2vc_ray.source_io import VideoPacket
from s2vc_ray.timeline import HIDDEN_FRAMES, SLACK_SECONDS, Timeline
from s2vc_ray.times import Times
from s2vc_ray.trail import along

_KEY, _DISCARD = 1, 2
"""Flags of an index entry (``AVINDEX_KEYFRAME``, ``AVINDEX_DISCARD_FRAME``)."""

_HEADS = 32
"""Keyframes whose first bytes are looked at. Where encoders flag what is none, they do so throughout."""

_HEAD = 4096
_MOST_BYTES = 1 << 28
_MOST_BOXES = 1024
_MOST_OFFSET = 1 << 28
"""FFmpeg takes no table for true whose offsets are larger."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """Of a packet that was demuxed: where it lies, its time, whether it is a keyframe."""

    pos: int | None
    pts: int | None
    is_keyframe: bool

    @classmethod
    def of(cls, packet: VideoPacket) -> SeenPacket:
        """``packet``'s."""
        return cls(packet.pos, packet.pts, packet.is_keyframe)


@dataclass(frozen=True, slots=True)
class _Samples:
    """What ``moov`` says of each sample of a track: bytes, time units to the next one's decoding, and from its
    decoding to its presentation."""

    sizes: Int64s
    steps: Int64s
    offsets: Int64s


def table_timeline(file: BinaryIO, stream: VideoStream, seen: Sequence[SeenPacket]) -> Timeline | None:
    """The timeline of ``stream`` of an MP4 or MOV, or None where its packets must be asked.

    Args:
        file: the source's bytes; read by small ranges, and left where it stands.
        seen: the stream's first packets.
    """
    if stream.codec_context.name in HIDDEN_FRAMES or not seen:
        return None
    at = file.tell()
    try:
        size = file.seek(0, 2)
        samples = _samples(_moov(file, size), stream.id)
        return None if samples is None else _timeline(file, size, stream, seen, samples)
    finally:
        file.seek(at)


def _timeline(
    file: BinaryIO, size: int, stream: VideoStream, seen: Sequence[SeenPacket], samples: _Samples
) -> Timeline | None:
    count = len(samples.sizes)
    if not len(seen) <= count == len(stream.index_entries):
        return None
    table = np.fromiter(
        ((one.timestamp, one.pos, one.size, one.flags) for one in stream.index_entries),
        np.dtype((np.int64, 4)),
        count,
    )
    dts, pos, sizes, flags = table.T
    if np.any(sizes != samples.sizes) or np.any(np.diff(dts) != samples.steps[:-1]):
        return None
    if np.any(pos + sizes > size) or np.any(-np.diff(dts) > SLACK_SECONDS // (stream.time_base or 1)):
        return None
    # FFmpeg moves all times by one number where offsets are negative; the first packet tells it.
    pts = dts + samples.offsets
    pts += (seen[0].pts or 0) - pts[0]
    is_key, is_shown = flags & _KEY != 0, flags & _DISCARD == 0
    told = [SeenPacket(int(pos[n]), int(pts[n]), bool(is_key[n])) for n in range(len(seen))]
    if told != list(seen) or not is_key[0] or not _keys_hold(file, stream, pos[is_key], sizes[is_key]):
        return None
    shown, steps = pts[is_shown], samples.steps[is_shown]
    if not len(shown):
        return None
    last = int(steps[shown.argmax()])
    trail = np.array(along(pts, pos, sizes))
    order = shown.argsort()
    shown = shown[order]
    if np.any(np.diff(shown) == 0) or shown[0] < pts[0]:
        return None
    keys, firsts = np.unique(pts[is_key], return_index=True)
    return Timeline(
        Times.from_bytes(shown.tobytes()),
        Times.from_bytes(keys.tobytes()),
        last,
        trail=Times.from_bytes(trail[1:][is_shown][order].tobytes()),
        keyframe_trail=Times.from_bytes(trail[:-1][is_key][firsts].tobytes()),
    )


def _keys_hold(file: BinaryIO, stream: VideoStream, pos: Int64s, sizes: Int64s) -> bool:
    """Whether decoding may begin at what the tables call keyframes, as far as some of them tell."""
    context = stream.codec_context
    chosen = {round(at) for at in np.linspace(0, len(pos) - 1, _HEADS)} | {min(1, len(pos) - 1)}
    for at in sorted(chosen):
        file.seek(int(pos[at]))
        head = file.read(min(_HEAD, int(sizes[at])))
        if not begins_exactly(context.codec.canonical_name, head, context.extradata or b""):
            return False
    return True


def _moov(file: BinaryIO, size: int) -> memoryview | None:
    """The body of the one ``moov`` box of a file without fragments before it."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        kind, begin, end = _head(file.read(16), at, size)
        if kind == b"moov" and end - begin <= _MOST_BYTES:
            file.seek(begin)
            body = file.read(end - begin)
            return memoryview(body) if len(body) == end - begin else None
        if not kind or kind in (b"moov", b"moof"):
            return None
        at = end
    return None


def _head(head: bytes, at: int, stop: int) -> tuple[bytes, int, int]:
    """Kind, begin and end of the body of a box at ``at``; no kind where there is no whole box."""
    length, kind, begin = int.from_bytes(head[:4], "big"), head[4:8], at + 8
    if length == 1:
        length, begin = int.from_bytes(head[8:16], "big"), at + 16
    end = at + length if length else stop
    return (kind if len(head) >= 8 and begin <= end <= stop else b""), begin, end


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(data):
        kind, begin, end = _head(bytes(data[at : at + 16]), at, len(data))
        if not kind:
            return
        yield kind, data[begin:end]
        at = end


def _only(data: memoryview | None, kind: bytes) -> memoryview | None:
    """The body of the one box of that kind in ``data``."""
    found = [body for name, body in _boxes(data) if name == kind] if data is not None else []
    return found[0] if len(found) == 1 else None


def _samples(moov: memoryview | None, track: int) -> _Samples | None:
    if moov is None or any(kind == b"mvex" for kind, _ in _boxes(moov)):
        return None
    tracks = [body for kind, body in _boxes(moov) if kind == b"trak" and _track_id(body) == track]
    if len(tracks) != 1:
        return None
    table = _only(_only(_only(tracks[0], b"mdia"), b"minf"), b"stbl")
    descriptions = _only(table, b"stsd")
    if table is None or descriptions is None or bytes(descriptions[4:8]) != b"\0\0\0\1":
        return None
    sizes = _sizes(_only(table, b"stsz"))
    if sizes is None or not len(sizes):
        return None
    steps = _runs(_only(table, b"stts"), len(sizes))
    if any(kind == b"ctts" for kind, _ in _boxes(table)):
        offsets = _runs(_only(table, b"ctts"), len(sizes))
    else:
        offsets = np.zeros(len(sizes), np.int64)
    if steps is None or offsets is None or np.any(steps < 0) or np.any(abs(offsets) >= _MOST_OFFSET):
        return None
    return _Samples(sizes, steps, offsets)


def _track_id(track: memoryview) -> int:
    header = _only(track, b"tkhd")
    if header is None or not len(header):
        return 0
    at = 20 if header[0] == 1 else 12  # behind two times, of 64 bits in version 1
    return int.from_bytes(header[at : at + 4], "big")


def _sizes(box: memoryview | None) -> Int64s | None:
    """Bytes of each sample by a ``stsz`` box."""
    if box is None or len(box) < 12:
        return None
    each, count = int.from_bytes(box[4:8], "big"), int.from_bytes(box[8:12], "big")
    if each and count <= _MOST_BYTES // 8:
        return np.full(count, each, np.int64)
    if each or len(box) < 12 + 4 * count:
        return None
    return np.frombuffer(box, ">u4", count, 12).astype(np.int64)


def _runs(box: memoryview | None, samples: int) -> Int64s | None:
    """The values of a ``stts`` or ``ctts`` box, one for each sample."""
    if box is None or len(box) < 8:
        return None
    count = int.from_bytes(box[4:8], "big")
    if len(box) < 8 + 8 * count:
        return None
    counts, values = np.frombuffer(box, ">i4", 2 * count, 8).astype(np.int64).reshape(-1, 2).T
    counts &= 0xFFFFFFFF
    return np.repeat(values, counts) if int(counts.sum()) == samples else None
