"""What a benchmarked codec gives back, and the protocol that a classical one fulfils.

Knows no codec, no metric and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from jobs.bench_clips import Pixels


@dataclass(frozen=True, slots=True)
class Coded:
    """A clip after its way through a codec.

    Attributes:
        bytes: everything a decoder needs.
        payload_bytes: the same without container overhead (equal where there is no container).
        decoded: uint8 RGB of the clip's shape, decoded from those bytes alone.
        encode_seconds, decode_seconds: wall time, colour conversion included.
    """

    bytes: int
    payload_bytes: int
    decoded: Pixels = field(repr=False)
    encode_seconds: float
    decode_seconds: float


class Anchor(Protocol):
    """A codec with one quality setting per run.

    Attributes:
        name: for tables.
        ladder: its default quality settings, best first.
        version: of the program behind it; part of the key under which results are kept.
    """

    @property
    def name(self) -> str: ...
    @property
    def ladder(self) -> Sequence[int]: ...
    @property
    def version(self) -> str: ...

    def settings(self, point: int, gop: int | None) -> Mapping[str, str]:
        """All that decides the bytes, besides the pictures and ``version``."""
        ...

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
        """Encode and decode uint8 RGB (T, H, W, 3), both sides even.

        With closed GOPs of ``gop`` frames; None leaves GOPs to the encoder's defaults, which on a clip of a
        second or so is one long GOP.
        """
        ...
