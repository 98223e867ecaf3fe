"""The size that pictures are coded at: their own, or larger.

Transforms keep as much detail to the pixel as the pictures had that they were trained on. A small picture has more of
it, so it is enlarged before it is coded, with coarser quantisers, and shrunk after it is decoded: the same weights then
keep far more of it in the same bytes. Which sizes gain, and from which quality on, is a property of weights, measured
and kept beside them; every payload says what was done to its pictures, so that decoding needs no rule. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from s2vc_model.config import QUALITIES

AS_IT_IS = 2
"""Scales are counted in halves: 2 is a picture's own size, 3 one and a half times, 4 twice, 5 two and a half."""
COARSER = {AS_IT_IS: 0, 3: 13, 4: 21, 5: 27}
"""By scale: how many quantisers below its quality index a GOP is coded with, so that an index costs about as many bytes
at every scale. Part of the format."""


@dataclass(frozen=True, slots=True)
class Enlarging:
    """Pictures of up to so many lines are coded larger from a quality on.

    Attributes:
        lines: longest shorter side, in pixels.
        quality: least quality index, one that has quantisers so much coarser.
        halves: the scale.
    """

    lines: int
    quality: int
    halves: int

    def __post_init__(self) -> None:
        least = COARSER.get(self.halves, 0)
        if not least or not least <= self.quality < QUALITIES or self.lines < 1:
            raise ValueError(f"no way to enlarge pictures: {self}")


@dataclass(frozen=True, slots=True)
class PictureScales:
    """The rules of a model. Where several hold, the largest scale; where none does, a picture's own size."""

    rules: tuple[Enlarging, ...] = ()

    @classmethod
    def from_json(cls, rows: Iterable[dict[str, Any]]) -> PictureScales:
        """Rules as a model's ``config.json`` has them.

        Raises:
            TypeError, ValueError: they are none.
        """
        return cls(tuple(Enlarging(**row) for row in rows))

    def halves(self, height: int, width: int, q: int = QUALITIES - 1) -> int:
        """The scale of pictures of a size at a quality index; without one, the largest of that size."""
        short = min(height, width)
        found = (rule.halves for rule in self.rules if short <= rule.lines and q >= rule.quality)
        return max(found, default=AS_IT_IS)


def coded_size(height: int, width: int, halves: int) -> tuple[int, int]:
    """Height and width that pictures of a size are coded at, before they are padded."""
    return -(-height * halves // 2), -(-width * halves // 2)
