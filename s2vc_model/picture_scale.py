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


@dataclass(frozen=True, slots=True)
class Scale:
    """One way to code pictures.

    Attributes:
        halves: how large, in halves of their size.
        coarser: how many quantisers below its quality index a GOP is coded with.
    """

    halves: int
    coarser: int


SCALES = (Scale(2, 0), Scale(3, 11), Scale(4, 19), Scale(3, 14))
"""Part of the format: payloads have a place in this table. Quantisers are so much coarser that an index costs about as
many bytes, and never fewer, where a scale takes over from the one before: the second at low qualities of small
pictures, the third at their high ones, the fourth at high qualities of larger pictures."""


@dataclass(frozen=True, slots=True)
class Enlarging:
    """Pictures of up to so many lines are coded larger from a quality on.

    Attributes:
        lines: longest shorter side, in pixels.
        quality: least quality index, one that has quantisers so much coarser.
        scale: place in `SCALES`.
    """

    lines: int
    quality: int
    scale: int

    def __post_init__(self) -> None:
        known = 1 <= self.scale < len(SCALES)
        if not known or not SCALES[self.scale].coarser <= self.quality < QUALITIES or self.lines < 1:
            raise ValueError(f"no way to enlarge pictures: {self}")


@dataclass(frozen=True, slots=True)
class PictureScales:
    """The rules of a model. Where several hold, the scale of most bytes; where none does, a picture's own size."""

    rules: tuple[Enlarging, ...] = ()

    @classmethod
    def from_json(cls, rows: Iterable[dict[str, Any]]) -> PictureScales:
        """Rules as a model's ``config.json`` has them.

        Raises:
            TypeError, ValueError: they are none.
        """
        return cls(tuple(Enlarging(**row) for row in rows))

    def scale(self, height: int, width: int, q: float = QUALITIES - 1) -> int:
        """The place in `SCALES` of pictures of a size at a quality index; without one, at the highest."""
        short = min(height, width)
        found = (rule.scale for rule in self.rules if short <= rule.lines and q >= rule.quality)
        return max(found, key=lambda scale: (SCALES[scale].halves, -SCALES[scale].coarser), default=0)


def coded_size(height: int, width: int, scale: int) -> tuple[int, int]:
    """Height and width that pictures of a size are coded at, before they are padded."""
    halves = SCALES[scale].halves
    return -(-height * halves // 2), -(-width * halves // 2)
