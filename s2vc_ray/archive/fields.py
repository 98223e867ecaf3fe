"""Integers as the archive stores them: unsigned LEB128 and zigzag, written and read with bounds.

Knows nothing of blocks, records or files.
"""

from __future__ import annotations

from s2vc_ray.errors import CorruptArchive

_MAX_UINT = (1 << 64) - 1


class Fields:
    """A cursor over the bytes of one block; every step is checked against what is really there."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > len(self.data) - self.at:
            raise CorruptArchive(f"{self.where}: ends inside a field")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        """The next byte, 0..255."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next unsigned LEB128 integer below 2^64, in its shortest form only."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _MAX_UINT or (byte == 0 and shift):
                    break
                return value
        raise CorruptArchive(f"{self.where}: holds an over-long integer")


def put_varint(out: bytearray, value: int) -> None:
    """Append ``value`` (0..2^64-1) as unsigned LEB128."""
    if not 0 <= value <= _MAX_UINT:
        raise ValueError(f"{value} does not fit an unsigned 64-bit field")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def zigzag(value: int) -> int:
    """Signed to unsigned: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """Inverse of ``zigzag``."""
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1
