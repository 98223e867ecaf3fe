"""What stays open of a source between the GOPs that are read from it, where nothing of one can reach the next.

Two things may. A reading that stands behind one GOP's frames goes on to a later one's: it is what that would have had
to begin, and gives the same frames. So GOPs that come in order cost one reading where they need to be read from far
ahead, or from the source's beginning. And an MP4's container, whose tables would be read anew with each opening (80 ms
of CPU time for two hours), is sought in again, and its decoder flushed. That makes it as new where the decoder learns
nothing for later from what it is given; what could teach it ends the holding. Knows no GOPs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from s2vc_ray.block_cache import BlockCache
from s2vc_ray.seek_points import h264_units, h265_units, sei_kinds
from s2vc_ray.source_io import Source
from s2vc_ray.sources import open_media
from s2vc_ray.tape import Tape

_WITH_TABLES = "mov,mp4,m4a,3gp,3g2,mj2"

_STATELESS = frozenset({"dnxhd", "prores", "rawvideo", "v210"})
"""Codecs whose pictures say all about themselves."""

_H264_PICTURES, _H264_SEI, _H264_ASIDE = range(1, 6), 6, frozenset({9, 12})
_H265_PICTURES, _H265_SEI, _H265_ASIDE = range(32), frozenset({39, 40}), frozenset({35, 38})
_UNREGISTERED = 5
"""An SEI message that may name the encoder, whose faults FFmpeg's decoders then allow for ever after."""

_LATER_BYTES = 64 << 20
"""Of pictures behind a GOP's last that a reading keeps for the next."""

_IDLE = 4
"""Sources that a worker holds while it reads none of them: so many videos take turns (`s2vc_ray.gop_queue`)."""

Opened = tuple[InputContainer, VideoStream]

Met = tuple[int, int, VideoFrame]
"""A frame, its time stamp and what was met on the way to it."""


class Reading:
    """Frames that come out of a source on one way, for one GOP after the other.

    Args:
        key: which reading: those of one key give the same frames from their beginning on.
    """

    def __init__(self, key: Hashable, frames: Generator[Met]) -> None:
        self.key = key
        self._frames = frames
        self._again: deque[Met] = deque()
        self._later: list[Met] = []
        self._last: int | None = None
        self._gone: int | None = None

    def leads_to(self, key: Hashable, first: int) -> bool:
        """Whether whoever begins a reading of ``key`` finds the same here of all frames shown at ``first`` or later."""
        return self.key == key and (self._gone is None or self._gone < first)

    def until(self, last: int) -> Iterator[Met]:
        """The frames from here on, for a GOP whose last one is shown at ``last``: later ones come again."""
        self._again.extendleft(reversed(self._later))
        self._later, size = [], 0
        while True:
            try:
                met = self._again.popleft() if self._again else next(self._frames)
            except StopIteration:
                return
            pts, _, frame = met
            if pts > last:
                size += sum(plane.buffer_size for plane in frame.planes)
            if pts > last and size <= _LATER_BYTES:
                self._later.append(met)
            else:
                self._gone = pts if self._gone is None else max(self._gone, pts)
            yield met

    def close(self) -> None:
        """Let go of the source."""
        self._frames.close()


class Standby:
    """What is open of one source, for one thread at a time.

    Args:
        source: for whoever seeks in it.
        reopen: the same, for whoever reads on while others seek.
    """

    def __init__(self, source: Source, reopen: Callable[[], AbstractContextManager[Source]]) -> None:
        self.source = source
        self.reopen = reopen
        self.tape: Tape | None = None
        self._readings: dict[Hashable, Reading] = {}
        self._opened: Opened | None = None
        self._as_new = self._closed = False

    def reading(self, place: Hashable, key: Hashable, first: int) -> Reading | None:
        """The reading kept at ``place``, if it leads to frames from ``first`` on; it is the caller's. Else it ends."""
        if self.tape:
            self.tape.keep_from(first)
        kept = self._readings.pop(place, None)
        if kept is None or kept.leads_to(key, first):
            return kept
        kept.close()
        return None

    def keep(self, place: Hashable, reading: Reading) -> None:
        """Take over a reading, which ends where this is closed or its place taken."""
        self.end(place)
        if self._closed:
            reading.close()
        else:
            self._readings[place] = reading

    def end(self, place: Hashable) -> None:
        """Let the reading kept at ``place`` go, if there is one."""
        if kept := self._readings.pop(place, None):
            kept.close()

    def put(self, tape: Tape) -> Tape:
        """Take over a tape in place of the last. Readings end, for any may have played that."""
        self._end_all()
        self.tape = tape
        return tape

    def take(self) -> Opened | None:
        """The open container, if there is one; it is the caller's."""
        opened, self._opened, self._as_new = self._opened, None, False
        return opened

    def give(self, container: InputContainer, stream: VideoStream) -> None:
        """Take over a container: to hold it for the next who asks where it is as new, or else to close it."""
        if self._closed or self._opened or not self._as_new:
            container.close()
        else:
            self._opened = container, stream

    def watched(
        self, container: InputContainer, stream: VideoStream, packets: Iterator[Packet[VideoStream]]
    ) -> Iterator[Packet[VideoStream]]:
        """``packets``, on their way from ``container`` to the decoder of ``stream``."""
        codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
        boxed = codec in ("h264", "hevc") and extradata[:1] == b"\x01"
        self._as_new = container.format.name == _WITH_TABLES and (boxed or codec in _STATELESS)
        for packet in packets:
            self._as_new = self._as_new and not _teaches(codec, packet, extradata)
            yield packet

    def close(self) -> None:
        """Let go of what is held, now and later."""
        self._closed = True
        self._end_all()
        if self._opened:
            self._opened[0].close()
            self._opened = None

    def _end_all(self) -> None:
        """Whoever went on playing a tape that is closed would end the process."""
        for place in list(self._readings):
            self.end(place)
        if self.tape:
            self.tape.close()
            self.tape = None


@dataclass(frozen=True, slots=True)
class _Idle:
    """A source that nobody reads: which, how far it was read, and how to let go of it."""

    key: tuple[str, Hashable]
    standby: Standby
    stack: ExitStack
    at: int


class Standbys:
    """What a worker holds open: a few sources, a source as often as threads read it at once. Threads may share it."""

    def __init__(self, cache: BlockCache | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []

    @contextmanager
    def of(self, uri: str, version: Hashable, at: int) -> Iterator[Standby]:
        """The source at ``uri``, open or to be opened, to be read from ``at`` on.

        What was held is believed only for the same ``version``, and is held on only when nothing was raised: whoever
        finds that the source has changed says so before the end. No version: nothing is held.
        """
        key = (uri, version)
        idle = self._taken(key, at)
        if idle is None:
            with ExitStack() as opening:
                standby = Standby(
                    opening.enter_context(open_media(uri, self._cache)),
                    partial(open_media, uri, self._cache),
                )
                opening.callback(standby.close)
                idle = _Idle(key, standby, opening.pop_all(), at)
        with ExitStack() as failing:
            failing.callback(idle.stack.close)
            yield idle.standby
            failing.pop_all()
        self._give(replace(idle, at=at))

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all that is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.stack.close()

    def _taken(self, key: tuple[str, Hashable], at: int) -> _Idle | None:
        """Of what is idle: what was read nearest before ``at``, if of this source and version. Other versions end."""
        uri, _ = key
        with self._lock:
            stale = [one for one in self._idle if one.key[0] == uri and one.key != key]
            fitting = [one for one in self._idle if one.key == key]
            found = max(fitting, key=lambda one: (one.at < at, -abs(at - one.at)), default=None)
            self._idle = [one for one in self._idle if one is not found and one not in stale]
        for one in stale:
            one.stack.close()
        return found

    def _give(self, idle: _Idle) -> None:
        """Hold ``idle``, instead of what was idle for the longest where that is too many."""
        if idle.key[1] is None:
            idle.stack.close()
            return
        with self._lock:
            self._idle.append(idle)
            oldest = self._idle.pop(0) if len(self._idle) > _IDLE else None
        if oldest:
            oldest.stack.close()


def _teaches(codec: str, packet: Packet[VideoStream], extradata: bytes) -> bool:
    """Whether a packet may bring what a decoder keeps for later pictures: parameter sets, the encoder's name."""
    if codec == "h264":
        for kind, body in h264_units(bytes(packet), extradata):
            if kind == _H264_SEI and _UNREGISTERED not in sei_kinds(body):
                continue
            if kind not in _H264_PICTURES and kind not in _H264_ASIDE:
                return True
    elif codec == "hevc":
        for unit in h265_units(bytes(packet), extradata):
            kind = unit[0] >> 1 & 63
            if kind in _H265_SEI and _UNREGISTERED not in sei_kinds(unit[2:]):
                continue
            if kind not in _H265_PICTURES and kind not in _H265_ASIDE:
                return True
    return False
