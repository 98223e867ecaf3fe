"""Trails: what was met in a source on the way to each of its frames, as one number each.

A trail is a running CRC-32 over the packets of a stream from its first on: each one's label (its time stamp, or its
tick where frames are named by count), place in the file and size. Planning keeps the trail behind each frame's packet
and in front of each seek point. Whoever seeks later goes on from the seek point's, and where both agree at a frame, its
packet and all between the two are those that were planned, under the labels that they had. An index that lies cannot
do that. Knows nothing of containers.
"""

from __future__ import annotations

from struct import Struct
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from av.packet import Packet

UNKNOWN = 0
"""The trail of a frame that no packet is known for. Also where all trails begin."""

_PACKET = Struct("<qqq")
_NO_LABEL = -(1 << 63)


def onward(trail: int, label: int | None, packet: Packet[Any]) -> int:
    """The trail behind ``packet``, from that in front of it."""
    place = -1 if packet.pos is None else packet.pos
    return crc32(_PACKET.pack(_NO_LABEL if label is None else label, place, packet.size), trail)


def along(
    labels: npt.NDArray[np.int64], places: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> list[int]:
    """The trails of packets that tables describe: in front of the first, then behind each."""
    packed = memoryview(np.stack((labels, places, sizes), axis=1).astype("<i8").tobytes())
    trails = [UNKNOWN]
    for at in range(0, len(packed), _PACKET.size):
        trails.append(crc32(packed[at : at + _PACKET.size], trails[-1]))
    return trails
