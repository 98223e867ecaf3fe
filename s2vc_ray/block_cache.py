"""Blocks of remote objects that were read before: the head of a source is read once, not once for every GOP of it.

A worker opens most sources anew for each GOP, so that a GOP's bytes never depend on what was read before it. Of a
ten-hour MP4 that alone is 15 MB of tables each time. Only for objects whose bytes cannot change under their name, or
whose change the reads themselves detect. Knows no store.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from s2vc_ray.range_stream import RangeReader

BLOCK = 1 << 18
"""Bytes of a block."""


class BlockCache:
    """Least recently used blocks go first. Threads may share one; two that miss the same block both read it.

    Args:
        capacity: bytes held.
    """

    def __init__(self, capacity: int = 32 << 20) -> None:
        self._most = max(1, capacity // BLOCK)
        self._blocks: OrderedDict[tuple[Hashable, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def reader(self, identity: Hashable, size: int, read_range: RangeReader) -> RangeReader:
        """``read_range`` through the cache; ``identity`` names the object of ``size`` bytes and its version."""

        def read(start: int, end: int) -> bytes:
            first, last = start // BLOCK, -(-end // BLOCK)
            held = self._held(identity, first, last)
            missing = [at for at in range(first, last) if at not in held]
            if missing:
                # One request, though it may repeat a block that lies between two missing ones.
                low, high = missing[0], missing[-1] + 1
                data = read_range(low * BLOCK, min(high * BLOCK, size))
                fresh = {at: data[(at - low) * BLOCK : (at + 1 - low) * BLOCK] for at in range(low, high)}
                held.update(fresh)
                self._keep(identity, fresh)
            return b"".join(held[at] for at in range(first, last))[
                start - first * BLOCK : end - first * BLOCK
            ]

        return read

    def _held(self, identity: Hashable, first: int, last: int) -> dict[int, bytes]:
        with self._lock:
            found = {}
            for at in range(first, last):
                block = self._blocks.get((identity, at))
                if block is not None:
                    self._blocks.move_to_end((identity, at))
                    found[at] = block
            return found

    def _keep(self, identity: Hashable, blocks: dict[int, bytes]) -> None:
        with self._lock:
            for at, block in blocks.items():
                self._blocks[identity, at] = block
                self._blocks.move_to_end((identity, at))
            while len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
