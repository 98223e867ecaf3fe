"""``Frame`` and ``Stretch``: a decoded picture, and which of an archive are asked for. Values: no I/O, no codec."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    Attributes:
        number: the frame's number in the source, counted from 0. Behind frames that were lost inside its GOP
            it is too small by as many.
        pts: its time stamp in the header's ``time_base``, as in the source.
        seconds: since the first picture of the archive; exact.
        rgb: uint8, shape (H, W, 3), full range, before any rotation.
    """

    number: int
    pts: int
    seconds: Fraction
    rgb: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of pictures: which they are, and which GOPs it takes to decode them.

    Attributes:
        gops: positions of the GOPs in the archive's index.
        frames: how many pictures it has.
        payload_bytes: of the GOPs, to be read and decoded.
        begin: pts of the first picture; None when it is the archive's first.
        end: pts at which the last picture ends; None when it is the archive's last.
        until: pictures from this pts on are out, in ``time_base`` units; None: all are in.
        last_duration: of the last picture in ``time_base`` units, 0 when unknown.
    """

    gops: range
    frames: int
    payload_bytes: int
    begin: int | None
    end: int | None
    until: Fraction | None
    last_duration: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the archive."""
        return self.begin is None and self.end is None

    def holds(self, pts: int) -> bool:
        """Whether a picture with this time stamp, of one of ``gops``, is in it."""
        return (self.begin is None or pts >= self.begin) and (self.until is None or pts < self.until)
