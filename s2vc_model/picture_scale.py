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


_LIKELY = 36
"""A quality index in the middle of those that are used."""


@dataclass(frozen=True, slots=True)
class Size:
    """One size that pictures can be coded at.

    Attributes:
        larger: whether they are enlarged; None: where the rules say so.
        lowest: the least quality index there is at that size.
    """

    larger: bool | None = None
    lowest: int = 0


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

    def larger(self, height: int, width: int, q: float) -> int:
        """The place in `SCALES` of pictures that are to be enlarged whether or not the rules say so at this quality.

        Raises:
            ValueError: no rule is about such pictures, or quantisers that coarse are none.
        """
        by_rule = self.scale(height, width, q)
        known = [scale for scale in self._about(height, width) if SCALES[scale].coarser <= q]
        if not by_rule and not known:
            raise ValueError(f"pictures of {width}x{height} pixels are not coded larger at quality {q:g}")
        return by_rule or min(known, key=lambda scale: SCALES[scale].coarser)

    def sizes(self, height: int, width: int) -> tuple[Size, ...]:
        """The sizes that pictures can be coded at, the likelier one first; one, by the rules, where these know none."""
        known = [SCALES[scale].coarser for scale in self._about(height, width)]
        if not known:
            return (Size(),)
        own, larger = Size(False), Size(True, min(known))
        return (larger, own) if self.scale(height, width, _LIKELY) else (own, larger)

    def _about(self, height: int, width: int) -> list[int]:
        return [rule.scale for rule in self.rules if min(height, width) <= rule.lines]


def coded_size(height: int, width: int, scale: int) -> tuple[int, int]:
    """Height and width that pictures of a size are coded at, before they are padded."""
    halves = SCALES[scale].halves
    return -(-height * halves // 2), -(-width * halves // 2)
