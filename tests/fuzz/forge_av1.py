"""AV1 payloads that claim to be right and are not: other bits in their head, their frames, or the order of these."""

from __future__ import annotations

import random
import struct

from tests.fuzz.damage import damage

_HEAD = struct.Struct("<BBHHII")
_DELIMITER = b"\x12\0"
_SEQUENCE_ENDS = 15
"""Bytes from the stream's beginning that are delimiter and sequence header: changed there, little is decoded."""


def forged_av1(payload: bytes, rng: random.Random) -> bytes:
    """A payload that was right, changed in one way."""
    head, frames = bytearray(payload[: _HEAD.size]), _HEAD.unpack_from(payload)[4]
    checks, stream = payload[_HEAD.size :][:frames], payload[_HEAD.size + frames :]
    units = [_DELIMITER + unit for unit in stream.split(_DELIMITER)[1:]]
    match rng.randrange(6):
        case 0:
            head[rng.randrange(len(head))] = rng.randrange(256)
        case 1:
            stream = damage(stream, rng)
        case 2:
            at = rng.randrange(len(units))
            units[at] = _DELIMITER + damage(units[at][2:], rng, 1)
            stream = b"".join(units)
        case 3:
            rng.shuffle(units)
            stream = b"".join(units)
        case _:
            # Sizes mostly stay right, so this reaches furthest into the decoder.
            bits = bytearray(stream)
            for _ in range(rng.randint(1, 8)):
                bits[rng.randrange(min(_SEQUENCE_ENDS, len(bits) - 1), len(bits))] ^= 1 << rng.randrange(8)
            stream = bytes(bits)
    return bytes(head) + checks + stream
