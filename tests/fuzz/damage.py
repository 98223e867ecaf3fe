"""Damage that knows nothing of what it damages: flipped bits, lost, added and overwritten bytes."""

from __future__ import annotations

import random

EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\xff" * 8)
_LONGEST = 200


def damage(data: bytes, rng: random.Random, times: int = 3) -> bytes:
    """``data`` after one to ``times`` flips, cuts, insertions, deletions, copies or overwritten integers."""
    out = bytearray(data)
    for _ in range(rng.randint(1, times)):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(9):
            case 0 if out:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 40))
            case 3:
                del out[at : at + rng.randint(1, 40)]
            case 4:
                out[at:at] = out[at : at + rng.randint(1, _LONGEST)]
            case 5:
                value = rng.choice(EXTREMES)
                out[at : at + len(value)] = value
            case 6 if out:
                out[at] = rng.randrange(256)
            case 7:
                run = rng.randint(1, _LONGEST)
                out[at : at + run] = bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * run
            case 8:
                run, to = rng.randint(1, _LONGEST), rng.randrange(len(out) + 1)
                moved = out[at : at + run]
                del out[at : at + run]
                out[to:to] = moved
    return bytes(out)
