"""Containers that stay open between the GOPs of one source, where opening is dear and leaves nothing behind.

The tables of a long MP4 are read anew with each opening: 80 ms of CPU time for two hours. What is held is sought in
again, and its decoder flushed. That makes it as new where the decoder learns nothing for later from what it is given:
what could teach it ends the holding, for a GOP must never depend on what was read before it. A worker's GOPs are those
of one video after the other: one idle container is held, of the version of the source that was planned. Knows no GOPs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from s2vc_ray.block_cache import BlockCache
from s2vc_ray.seek_points import h264_units, h265_units, sei_kinds
from s2vc_ray.source_io import Source
from s2vc_ray.sources import open_media

_WITH_TABLES = "mov,mp4,m4a,3gp,3g2,mj2"

_STATELESS = frozenset({"dnxhd", "prores", "rawvideo", "v210"})
"""Codecs whose pictures say all about themselves."""

_H264_PICTURES, _H264_SEI, _H264_ASIDE = range(1, 6), 6, frozenset({9, 12})
_H265_PICTURES, _H265_SEI, _H265_ASIDE = range(32), frozenset({39, 40}), frozenset({35, 38})
_UNREGISTERED = 5
"""An SEI message that may name the encoder, whose faults FFmpeg's decoders then allow for ever after."""

Opened = tuple[InputContainer, VideoStream]


class Standby:
    """A place for one open container of ``source``. For one thread at a time."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._opened: Opened | None = None
        self._as_new = self._closed = False

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
        if self._opened:
            self._opened[0].close()
            self._opened = None


class Standbys:
    """What a worker holds open: one source at a time. Threads may share it."""

    def __init__(self, cache: BlockCache | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._idle: tuple[Hashable, Standby, ExitStack] | None = None

    @contextmanager
    def of(self, uri: str, version: Hashable) -> Iterator[Standby]:
        """The source at ``uri``, open or to be opened.

        What was held is believed only for the same ``version``, and is held on only when nothing was raised: whoever
        finds that the source has changed says so before the end. No version: nothing is held.
        """
        key = (uri, version)
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None and (version is None or idle[0] != key):
            idle[2].close()
            idle = None
        if idle is None:
            with ExitStack() as opening:
                standby = Standby(opening.enter_context(open_media(uri, self._cache)))
                opening.callback(standby.close)
                stack = opening.pop_all()
        else:
            _, standby, stack = idle
        with ExitStack() as failing:
            failing.callback(stack.close)
            yield standby
            with self._lock:
                if self._idle is None and version is not None:
                    self._idle = key, standby, stack
                    failing.pop_all()


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
