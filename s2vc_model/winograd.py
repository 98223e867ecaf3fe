"""3x3 convolutions on a CPU with 36 multiplications for each 4x4 outputs instead of 144.

    x ─ rows ─ columns ─ V (36, tiles, C) ── 36 matrix products with the filters' U (36, C, O) ── M ─ columns ─ rows ─ y

Winograd's minimal filtering F(4x4, 3x3) as Lavin & Gray use it for convolutions (2015, arXiv:1509.09308), over the
points 0, 1, -1, 2, -2 and infinity. Both transforms are sums of a few slices, first along one axis, then along the
other, channels last, so that only the matrix products multiply. In float32 results are off by 1.2e-6 to 1.9e-6 of
their standard deviation (root mean square; a direct convolution: 0.3e-6 to 0.7e-6): nothing exact may come here.

What the transforms cost grows with pixels and channels, what they save with pixels times both widths: below 64 channels
they cost more, and on a few tiles the filters, four times as large, take longer to read than to use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4
"""Outputs of a tile, along each axis; it is made from 6 inputs."""
_SPAN = TILE + 2
_MIN_CHANNELS, _MIN_PIXELS = 64, 256
_BAND = 1 << 15
"""Numbers of one of the 36 operands that are worked on at once, which bounds the workspace to some 10 MB."""


def pays(cin: int, cout: int, height: int, width: int) -> bool:
    """Whether a convolution of this shape is faster this way, by measurement on AVX2."""
    return min(cin, cout) >= _MIN_CHANNELS and height * width >= _MIN_PIXELS


def transformed(weight: Tensor) -> Tensor:
    """Filters (O, C, 3, 3) -> U (36, C, O) float32, computed in float64."""
    rows = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
    g = torch.tensor(rows, dtype=torch.float64) / 24
    u = torch.einsum("iy,jx,ocyx->ijco", g, g, weight.double())
    return u.reshape(_SPAN**2, weight.shape[1], weight.shape[0]).float().contiguous()


def convolve(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """Convolve with zeros around, at the same size.

    Args:
        x: (B, C, H, W) float32, best channels-last.
        filters: (36, C, O) of :func:`transformed`.
        bias: (O,).

    Returns:
        (B, O, H, W), channels-last.
    """
    b, c, height, width = x.shape
    down, across, o = -(-height // TILE), -(-width // TILE), filters.shape[2]
    margins = (1, across * TILE + 1 - width, 1, down * TILE + 1 - height)
    padded = F.pad(x, margins).permute(0, 2, 3, 1)
    out = x.new_empty(b, down, TILE, across * TILE, o)
    step = max(1, _BAND // (b * across * max(c, o)))
    for top in range(0, down, step):
        band = out[:, top : top + step]
        _band(padded[:, top * TILE :], filters, bias, band)
    whole = out.view(b, down * TILE, across * TILE, o)[:, :height, :width].permute(0, 3, 1, 2)
    return whole.contiguous(memory_format=torch.channels_last)


def _band(padded: Tensor, filters: Tensor, bias: Tensor, out: Tensor) -> None:
    """One band of tiles: ``padded`` (B, >= 4 rows + 2, W + 2, C) from the band's top on, ``out`` (B, rows, 4, W, O)."""
    b, rows, _, width, o = out.shape
    c, across = padded.shape[3], width // TILE
    tall = padded.new_empty(_SPAN, b, rows, width + 2, c)
    _to_points([padded[:, i : i + TILE * rows - 3 : TILE] for i in range(_SPAN)], tall)
    points = padded.new_empty(_SPAN, _SPAN, b, rows, across, c)
    _to_points([tall[:, :, :, i : i + width - 3 : TILE] for i in range(_SPAN)], points.unbind(1))
    del tall
    products = torch.bmm(points.view(_SPAN**2, -1, c), filters)
    del points
    # The value at point 1 of both axes goes into each output once.
    products[_SPAN + 1] += bias
    wide = products.new_empty(_SPAN, b, rows, across, TILE, o)
    _from_points(products.view(_SPAN, _SPAN, b, rows, across, o).unbind(1), wide.unbind(4))
    _from_points(wide.view(_SPAN, b, rows, width, o), out.unbind(2))


def _to_points(d: Sequence[Tensor], out: Sequence[Tensor] | Tensor) -> None:
    """Values at the six points of the polynomials whose coefficients are inputs ``d[0..5]`` (B^T d), into ``out``."""
    even, odd = d[4] - d[2], d[3] - d[1]
    torch.sub(d[0], d[2], out=out[0])
    torch.add(even, out[0], alpha=4, out=out[0])
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    torch.sub(d[5], d[3], out=out[5])
    out[5].sub_(odd, alpha=4)
    even.sub_(d[2], alpha=3)
    odd.sub_(d[1], alpha=3)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])


def _from_points(m: Sequence[Tensor] | Tensor, out: Sequence[Tensor]) -> None:
    """Four outputs from the products at the six points (A^T m), into ``out``."""
    one, one_odd = m[1] + m[2], m[1] - m[2]
    two, two_odd = m[3] + m[4], m[3] - m[4]
    torch.add(one, two, out=out[0]).add_(m[0])
    torch.add(one_odd, two_odd, alpha=2, out=out[1])
    torch.add(one, two, alpha=4, out=out[2])
    torch.add(one_odd, two_odd, alpha=8, out=out[3]).add_(m[5])
