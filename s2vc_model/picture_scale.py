"""The size that pictures are coded at: their own, or larger.

Transforms keep as much detail to the pixel as the pictures had that they were trained on. A small picture has more of
it, so it is enlarged before it is coded and shrunk after it is decoded: the same weights then reach qualities that no
quality index reaches at its own size, in fewer bytes. Which sizes gain is a property of weights, measured and kept
beside them; every payload says what was done to its pictures, so that decoding needs no rule. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

AS_IT_IS = 2
"""Scales are counted in halves: 2 is a picture's own size, 3 one and a half times, 4 twice, 5 two and a half."""


@dataclass(frozen=True, slots=True)
class Enlarging:
    """Which pictures are coded larger, by their shorter side in pixels. 0: none.

    Attributes:
        twice: up to this many, at twice their size.
        half_more: above that and up to this many, at one and a half times.
    """

    twice: int = 0
    half_more: int = 0

    def __post_init__(self) -> None:
        if not all(isinstance(side, int) and side >= 0 for side in (self.twice, self.half_more)):
            raise ValueError(f"sides are whole numbers of pixels, not {self.twice!r} and {self.half_more!r}")

    def halves(self, height: int, width: int) -> int:
        """The scale of pictures of a size."""
        short = min(height, width)
        if short <= self.twice:
            return 4
        return 3 if short <= self.half_more else AS_IT_IS


NEVER = Enlarging()


def coded_size(height: int, width: int, halves: int) -> tuple[int, int]:
    """Height and width that pictures of a size are coded at, before they are padded."""
    return -(-height * halves // 2), -(-width * halves // 2)
