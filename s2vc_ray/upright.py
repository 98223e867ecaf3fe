"""Pictures as they are shown: turned and mirrored upright, and stretched to square samples.

For outputs that cannot say either. Works on arrays; it must not know files or archives.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from s2vc_ray.values import DisplayMatrix


@dataclass(frozen=True, slots=True)
class Turn:
    """A quarter turn or a mirroring or both: first rows become columns, then columns and rows are reversed."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def of(cls, rotation: int, matrix: DisplayMatrix | None = None) -> Turn | None:
        """What makes pictures upright.

        Args:
            rotation: degrees to rotate counter-clockwise for display.
            matrix: FFmpeg's display matrix, which says it better; its scale and its shift are not looked at.

        Returns:
            None when pixels would have to be computed anew: any other angle.
        """
        if matrix is not None:
            a, b, _, c, d, *_ = matrix
            if not b and not c and a and d:
                return cls(False, a < 0, d < 0)
            if not a and not d and b and c:
                return cls(True, c < 0, b < 0)
            return None
        return _QUARTERS.get(rotation % 360)

    def __bool__(self) -> bool:
        return self.transposed or self.mirrored or self.flipped

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """``rgb`` (H, W, 3) turned: (W, H, 3) when ``transposed``."""
        if not self:
            return rgb
        turned = rgb.swapaxes(0, 1) if self.transposed else rgb
        rows, columns = (slice(None, None, -1 if back else 1) for back in (self.flipped, self.mirrored))
        return np.ascontiguousarray(turned[rows, columns])


_QUARTERS = {
    0: Turn(),
    90: Turn(True, False, True),
    180: Turn(False, True, True),
    270: Turn(True, True, False),
}


def square(rgb: npt.NDArray[np.uint8], sample_aspect: Fraction) -> npt.NDArray[np.uint8]:
    """``rgb`` (H, W, 3) resampled to square samples: wider or taller, never smaller. 0 is unknown: unchanged."""
    if sample_aspect in (0, 1):
        return rgb
    from PIL import Image

    height, width, _ = rgb.shape
    if sample_aspect > 1:
        width = max(1, round(width * sample_aspect))
    else:
        height = max(1, round(height / sample_aspect))
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))
