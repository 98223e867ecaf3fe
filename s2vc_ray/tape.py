"""A source's packets from its beginning on, read once: the latest stay at hand for a decoder that begins among them.

What a seek would have to find is found in what was read anyway, for as long as whoever asks asks in order. Knows no
decoders and no GOPs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack

from s2vc_ray.source_io import VideoPacket

NO_LABEL = -(1 << 63)
"""The label of a packet without one."""

Labelled = tuple[int, VideoPacket]
"""A packet and its label: its time stamp, or its tick where frames are named by count."""

_MOST_BYTES = 32 << 20
_OVERHEAD = 1 << 10
"""Bytes of a packet besides its data, roughly."""


class Tape:
    """Packets in file order; those at hand begin with the very first one, or with one flagged as a keyframe.

    Args:
        packets: all of a source's.
        resources: what they are read from; closed with the tape.
        floor: as of `keep_from`.
    """

    def __init__(self, packets: Iterator[Labelled], resources: ExitStack, floor: int) -> None:
        self._packets = packets
        self._resources = resources
        self._recent: deque[Labelled] = deque()
        self._bytes = 0
        self._floor = floor
        self._gone: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the very first packet is at hand."""
        return self._gone is None

    def holds(self, label: int) -> bool:
        """Whether all that is gone is labelled as earlier than ``label``."""
        return self._gone is None or self._gone < label

    def keep_from(self, label: int) -> None:
        """Nobody will ask for what lies before the last keyframe at or before ``label``: it may go, now and later."""
        self._floor = label
        for after, item in enumerate(reversed(self._recent)):
            if self._begins(item):
                while len(self._recent) > after + 1:
                    self._drop()
                return

    def play(self) -> Generator[Labelled]:
        """The packets at hand, then those that follow; from a keyframe on, or the very first packet.

        One at a time: who played before must play no more.
        """
        begun = self.whole or bool(self._recent)
        yield from list(self._recent)
        for item in self._packets:
            self._record(item)
            begun = begun or item[1].is_keyframe
            if begun:
                yield item

    def close(self) -> None:
        """Let go of the source."""
        self._recent.clear()
        self._resources.close()

    def _record(self, item: Labelled) -> None:
        if self._begins(item):
            self._clear()
        begins = self.whole or item[1].is_keyframe
        self._recent.append(item)
        self._bytes += _size(item)
        if self._bytes > _MOST_BYTES or (len(self._recent) == 1 and not begins):
            self._clear()

    def _begins(self, item: Labelled) -> bool:
        """Whether everything before a packet may go."""
        return item[1].is_keyframe and NO_LABEL < item[0] <= self._floor

    def _clear(self) -> None:
        while self._recent:
            self._drop()

    def _drop(self) -> None:
        item = self._recent.popleft()
        self._bytes -= _size(item)
        self._gone = max(NO_LABEL if self._gone is None else self._gone, item[0])


def _size(item: Labelled) -> int:
    return item[1].size + _OVERHEAD
