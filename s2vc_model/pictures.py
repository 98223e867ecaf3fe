"""What is done to pictures outside of the networks: padding, enlarging and shrinking, sharpening."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 32
"""Pictures are padded to multiples of this many pixels, by repeating their edges."""


def padded_side(side: int) -> int:
    """A side in pixels, rounded up to the grid."""
    return -(-side // GRID) * GRID


def padded(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) with sides rounded up to the grid."""
    h, w = pictures.shape[2:]
    return F.pad(pictures, (0, padded_side(w) - w, 0, padded_side(h) - h), mode="replicate")


def resized(pictures: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, H, W) float to (B, 3, height, width): bicubic, and not smoothed where it shrinks.

    Decoded pictures have no detail to alias: smoothed, they are measurably worse (LPIPS +10 % and more).
    """
    if pictures.shape[2:] == (height, width):
        return pictures
    return F.interpolate(pictures, (height, width), mode="bicubic", align_corners=False)


def sharpened(pictures: Tensor, amount: float) -> Tensor:
    """(B, 3, H, W) float with ``amount`` times what a binomial blur of five pixels takes away added. 0: itself."""
    if not amount:
        return pictures
    soft = F.pad(pictures, (2, 2, 2, 2), mode="replicate")
    for side in (2, 3):
        for _ in range(2):
            inner = soft.shape[side] - 2
            soft = (
                soft.narrow(side, 0, inner) + 2 * soft.narrow(side, 1, inner) + soft.narrow(side, 2, inner)
            ) / 4
    return torch.lerp(soft, pictures, 1 + amount)
