"""Symbols out of a stream by its tables, with the standard library alone, from docs/format.md's words on rANS."""

from __future__ import annotations

import struct
from collections.abc import Sequence


class Stream:
    """One rANS stream, read symbol by symbol."""

    def __init__(self, data: bytes) -> None:
        self._words = list(struct.unpack(f"<{len(data) // 4}I", data))
        self._state = self._words.pop(0) | self._words.pop(0) << 32

    def symbol(self, row: Sequence[int], offset: int) -> int:
        """The next symbol. ``row`` holds the cumulative counts of its places, from 0 to 2^16."""
        low = self._state & 0xFFFF
        place = next(at for at, end in enumerate(row[1:]) if low < end)
        self._drop(16, row[place + 1] - row[place], low - row[place])
        escape = len(row) - 2
        if place == escape:
            count = group = self._group()
            while group == 15:
                group = self._group()
                count += group
            value = sum(self._group() << 4 * at for at in range(count))
            place = -(value + 1) // 2 if value % 2 else escape + value // 2
        return place + offset

    def _group(self) -> int:
        """Four bits of equal probability."""
        value = self._state & 15
        self._drop(4, 1, 0)
        return value

    def _drop(self, bits: int, count: int, beyond: int) -> None:
        self._state = count * (self._state >> bits) + beyond
        if self._state < 1 << 31:
            self._state = self._state << 32 | self._words.pop(0)
