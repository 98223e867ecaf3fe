"""Between coded pictures and RGB: which matrix and range a conversion uses.

Knows FFmpeg's colour codes; it must not know files or streams.
"""

from __future__ import annotations

from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from s2vc_ray.errors import SourceError

UNSPECIFIED = 2
LIMITED, FULL = 1, 2

EXACT = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
)
"""Scaler flags: full chroma resolution, and the same bytes on every CPU."""

_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
"""FFmpeg's AVColorSpace codes (ITU-T H.273 MatrixCoefficients) that the scaler can convert."""


def effective_matrix(matrix: int, width: int, height: int) -> int:
    """The matrix code to convert with: ``matrix``, or where unspecified BT.709 for HD and BT.601 for SD.

    HD is wider than 1279 or taller than 576, the rule that common players use. RGB (code 0) is
    treated as unspecified, for YUV formats that carry it by mistake.
    """
    if matrix not in (0, UNSPECIFIED):
        return matrix
    return 1 if width >= 1280 or height > 576 else 6


def scaler_matrix(matrix: int, width: int, height: int) -> Colorspace:
    """The scaler's code for an AVColorSpace code.

    Raises:
        SourceError: no conversion for this matrix (YCgCo, ICtCp, ...), and a guess would change every colour.
    """
    code = effective_matrix(matrix, width, height)
    if code not in _MATRICES:
        raise SourceError(
            f"colour matrix {code} (ITU-T H.273) cannot be converted to RGB; convert the pictures to BT.709 first"
        )
    return _MATRICES[code]


def scaler_range(colour_range: int, pix_fmt: str) -> ColorRange:
    """The range to convert with: as tagged, else full for RGB and JPEG formats and limited for the rest."""
    if colour_range in (LIMITED, FULL):
        return ColorRange(colour_range)
    full = pix_fmt.startswith(("yuvj", "pal8", "mono")) or VideoFormat(pix_fmt).is_rgb
    return ColorRange.JPEG if full else ColorRange.MPEG
