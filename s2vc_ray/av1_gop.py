"""One GOP coded as AV1, as a value and as the payload of codec name ``av1`` in ``docs/format.md``.

Owns the layout: a head of ours and, behind it to the end, a plain AV1 stream of OBUs that any AV1 player plays once it
is cut out. Knows no encoder, decoder or archive.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from s2vc_model.bitstream import MAX_FRAMES
from s2vc_model.errors import BitstreamError

VERSION = 1
MAX_CRF = 63
LEAST_SIDE = 16
"""The least width and height of a coded picture; smaller ones are padded."""
MAX_WIDTH, MAX_HEIGHT = 16384, 8704
"""The largest pictures, those that SVT-AV1 takes: a bound for the memory that a forged payload takes."""
_HEAD = struct.Struct("<BBHHII")
_DELIMITER = b"\x12\0"
_SEQUENCE = 1
_HAS_SIZE = 2
_MAX_OBUS = 64
"""The most OBUs of one frame: a bound for the time that a forged payload takes."""


@dataclass(frozen=True, slots=True)
class Av1Gop:
    """A coded group of pictures: a key frame and what follows it.

    Attributes:
        width, height: true frame size in pixels (1..16384, 1..8704), before padding.
        q: the constant rate factor it was coded with, 0 (best) .. 63 (smallest).
        plane_crc: CRC-32C of the decoded planes of all frames.
        checks: of frames 0..t the low byte of the same CRC, one byte for each t.
        units: one AV1 temporal unit for each frame.
    """

    width: int
    height: int
    q: int
    plane_crc: int
    checks: bytes
    units: tuple[bytes, ...]

    @property
    def frames(self) -> int:
        """Number of frames, at least 1."""
        return len(self.units)

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height of the coded pictures."""
        return coded_size(self.width, self.height)

    @property
    def fine(self) -> int:
        """Parts of a level above ``q``: there are none."""
        return 0

    @property
    def scale(self) -> int:
        """The place in `s2vc_model.picture_scale.SCALES`: pictures are as large as they are."""
        return 0

    @property
    def bits_p(self) -> int:
        """Bits of all frames but the first."""
        return 8 * sum(map(len, self.units[1:]))

    @property
    def bits_i(self) -> int:
        """Bits of the first frame and of the payload's head."""
        return 8 * (_HEAD.size + len(self.checks) + len(self.units[0]))

    @property
    def stream(self) -> bytes:
        """The AV1 stream: what an ``.obu`` file holds."""
        return b"".join(self.units)

    def to_payload(self) -> bytes:
        """Serialise to the layout in ``docs/format.md``."""
        head = _HEAD.pack(VERSION, self.q, self.width, self.height, self.frames, self.plane_crc)
        return head + self.checks + self.stream

    @classmethod
    def from_payload(cls, payload: bytes) -> Av1Gop:
        """Parse a payload.

        Raises:
            BitstreamError: the bytes are not a whole, plausible payload.
        """
        if len(payload) < _HEAD.size:
            raise BitstreamError(f"AV1 payload of {len(payload)} bytes is shorter than its head")
        version, q, width, height, frames, crc = _HEAD.unpack_from(payload)
        if version != VERSION:
            raise BitstreamError(f"AV1 payload has version {version}; this program reads version {VERSION}")
        if not (
            0 < width <= MAX_WIDTH and 0 < height <= MAX_HEIGHT and 1 <= frames <= MAX_FRAMES and q <= MAX_CRF
        ):
            raise BitstreamError(f"implausible AV1 head: {width}x{height}, {frames} frames, CRF {q}")
        begin = _HEAD.size + frames
        checks = payload[_HEAD.size : begin]
        if len(checks) < frames or checks[-1] != crc & 255:
            raise BitstreamError("AV1 payload ends inside its checks, or its last check is not its CRC's")
        return cls(width, height, q, crc, checks, temporal_units(payload[begin:], frames))


def coded_size(width: int, height: int) -> tuple[int, int]:
    """Width and height that pictures are padded to: even, and 16 at least."""
    return max(LEAST_SIDE, width + width % 2), max(LEAST_SIDE, height + height % 2)


def temporal_units(stream: bytes, frames: int) -> tuple[bytes, ...]:
    """Cut an AV1 stream (low-overhead format, AV1 specification section 5) into its ``frames`` temporal units.

    Raises:
        BitstreamError: it has another number of them, or is not made of whole OBUs with a size and no extension; or
            the first has no sequence header.
    """
    starts, at, obus = list[int](), 0, 0
    while at < len(stream):
        if stream[at : at + 2] == _DELIMITER:
            starts.append(at)
            obus = 0
        obus += 1
        kind, end = _obu(stream, at)
        if not starts or len(starts) > frames or obus > _MAX_OBUS:
            raise BitstreamError(f"AV1 stream has no temporal unit of {frames} at byte {at}")
        if at == 2 and kind != _SEQUENCE:
            raise BitstreamError("AV1 stream does not begin with a sequence header")
        at = end
    if len(starts) != frames:
        raise BitstreamError(f"AV1 stream has {len(starts)} temporal units, not {frames}")
    ends = [*starts[1:], len(stream)]
    return tuple(stream[start:end] for start, end in zip(starts, ends, strict=True))


def _obu(stream: bytes, at: int) -> tuple[int, int]:
    """The type of the OBU at ``at``, and where it ends."""
    head, size = stream[at], 0
    for shift in range(0, 35, 7):
        at += 1
        if at >= len(stream):
            break
        size |= (stream[at] & 0x7F) << shift
        if stream[at] < 0x80:
            if head & ~(15 << 3) != _HAS_SIZE or at + 1 + size > len(stream):
                break
            return head >> 3, at + 1 + size
    raise BitstreamError(f"AV1 stream: no whole OBU ends behind byte {at} of {len(stream)}")
