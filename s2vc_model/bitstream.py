"""One coded GOP as a value, and its byte layout.

Owns the payload that travels between an encoder and a decoder: everything needed to get the frames
back except the model itself. Knows nothing of archives, files, time stamps or networks.

Payload layout (little-endian; ``varint`` is unsigned LEB128)::

    u16 width | u16 height | u8 q, scale | varint frames, fine | varint len(intra) | u32 symbol_crc
    frames x u8 check | intra bytes | inter bytes (to the end)

The lower six bits of the fifth byte are ``q``, the upper two the scale, a place in `picture_scale.SCALES`: how much
larger than they are the pictures were coded, and how much lower than ``q`` the model's own quality index is. The lower
17 bits of ``frames, fine`` are the number of frames, the rest how many quarters of an index above ``q`` the quality is.

``check`` of frame t is the low byte of the CRC-32C of the scale, a byte unless it is 0, and the digests of all frames
up to and including t (see `s2vc_model.latents.digests`: every integer decoded, means included); ``symbol_crc`` is the
whole CRC after the last frame. A decoder that disagrees with the encoder anywhere therefore stops with an error within
a frame or two, and cannot pass the end of the GOP.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from s2vc_model.config import QUALITIES, QUARTERS
from s2vc_model.errors import BitstreamError
from s2vc_model.picture_scale import SCALES, coded_size

MAX_SIDE = 65535
MAX_FRAMES = 1 << 16
_HEAD = struct.Struct("<HHB")
_FRAME_BITS = 17


@dataclass(frozen=True, slots=True)
class EncodedGop:
    """A coded group of pictures: one intra frame, then ``frames - 1`` inter frames.

    Attributes:
        width, height: true frame size in pixels (1..65535), before enlarging and padding.
        frames: number of frames, at least 1.
        q: quality index 0 (smallest) .. 63 (best).
        intra: rANS stream of frame 0.
        inter: rANS stream of all later frames; empty when ``frames == 1``.
        checks: one rolling checksum byte per frame.
        symbol_crc: CRC-32C of all frame digests of the GOP.
        scale: place in `SCALES` of the size that the pictures were coded at; 0 is their own.
        fine: quarters of a quality index, 0..3, above ``q``; none above 63.
    """

    width: int
    height: int
    frames: int
    q: int
    intra: bytes
    inter: bytes
    checks: bytes
    symbol_crc: int
    scale: int = 0
    fine: int = 0

    @property
    def quantiser(self) -> int:
        """Index, 0..63, of the model's quality that the GOP is coded with, or just below it."""
        return self.q - SCALES[self.scale].coarser

    @property
    def table_row(self) -> int:
        """Row of the priors' quality tables that it is coded with; see `s2vc_model.prior.QualityTables`."""
        return self.quantiser + QUALITIES * self.fine

    @property
    def coded_size(self) -> tuple[int, int]:
        """Height and width that the pictures were coded at, before padding."""
        return coded_size(self.height, self.width, self.scale)

    @property
    def bits_p(self) -> int:
        """Bits spent on inter frames."""
        return 8 * len(self.inter)

    @property
    def bits_i(self) -> int:
        """Bits spent on the intra frame and on the GOP's own header and checksums."""
        return 8 * len(self.to_payload()) - self.bits_p

    def to_payload(self) -> bytes:
        """Serialise to the layout in the module docstring."""
        return b"".join(
            (
                _HEAD.pack(self.width, self.height, self.scale << 6 | self.q),
                _varint(self.fine << _FRAME_BITS | self.frames),
                _varint(len(self.intra)),
                struct.pack("<I", self.symbol_crc),
                self.checks,
                self.intra,
                self.inter,
            )
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> EncodedGop:
        """Parse a payload.

        Raises:
            BitstreamError: the bytes are not a whole, plausible payload.
        """
        if len(payload) < _HEAD.size:
            raise BitstreamError(f"GOP payload of {len(payload)} bytes is shorter than its header")
        width, height, packed = _HEAD.unpack_from(payload)
        q, scale = packed & 63, packed >> 6
        counted, at = _read_varint(payload, _HEAD.size)
        frames, fine = counted & (1 << _FRAME_BITS) - 1, counted >> _FRAME_BITS
        intra_len, at = _read_varint(payload, at)
        highest = QUALITIES - 1 if not fine else QUALITIES - 2 if fine < QUARTERS else -1
        known = 0 <= q - SCALES[scale].coarser <= highest
        if not (width and height and 1 <= frames <= MAX_FRAMES and known):
            raise BitstreamError(
                f"implausible GOP header: {width}x{height}, {frames} frames, q {q} and {fine} quarters at scale {scale}"
            )
        body = at + 4 + frames
        if body + intra_len > len(payload):
            raise BitstreamError(f"GOP payload ends early: {len(payload)} bytes, needs {body + intra_len}")
        (crc,) = struct.unpack_from("<I", payload, at)
        return cls(
            width=width,
            height=height,
            frames=frames,
            q=q,
            intra=payload[body : body + intra_len],
            inter=payload[body + intra_len :],
            checks=payload[at + 4 : body],
            symbol_crc=crc,
            scale=scale,
            fine=fine,
        )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            raise BitstreamError("GOP payload ends inside a varint")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise BitstreamError("GOP payload holds an over-long varint")
