"""Block motion search on source frames: the encoder's hint, never coded and never needed to decode.

Three levels of exhaustive search over sums of absolute differences of luma: eighth, quarter and half scale, each around
the vector of the level before, with a parabolic fit below the last cell. The network sees the field, decides what of it
is worth bits, and the decoder works from the flow it decodes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16
"""Block side in pixels; the field has one vector per block."""
LEVELS = ((8, 4), (4, 2), (2, 1))
"""(reduction, search radius in cells) of each level: +-32, then +-8, then +-2 pixels."""
_STAY = 0.002
"""Cost per pixel of moving from the level before, which settles flat regions at rest."""


def luma(x: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> luma (B, 1, H, W), BT.601 weights."""
    r, g, b = x.float().unbind(1)
    return (0.299 * r + 0.587 * g + 0.114 * b)[:, None]


def block_motion(current: Tensor, previous: Tensor) -> Tensor:
    """Estimate where each block of ``current`` was in ``previous``.

    Args:
        current, previous: luma (B, 1, H, W) in [-1, 1], H and W multiples of 16.

    Returns:
        (B, 2, H/16, W/16) float displacement (dx, dy) in pixels, within about +-43: current[p] ~ previous[p + d].
    """
    b, _, h, w = current.shape
    found = torch.zeros(b, 2, h // BLOCK, w // BLOCK, dtype=torch.long, device=current.device)
    scales = zip(_pyramid(current), _pyramid(previous), strict=True)
    for (reduction, radius), (now, then) in zip(LEVELS, scales, strict=True):
        cells = BLOCK // reduction
        cost = _costs(now, then, found, radius, cells)
        steps = torch.arange(-radius, radius + 1, device=current.device).abs() * reduction
        stay = _STAY * (steps[None, :] + steps[:, None]).reshape(1, -1, 1, 1)
        side = 2 * radius + 1
        best = (cost + stay).argmin(1, keepdim=True)
        dx, dy = best % side - radius, best // side - radius
        found = found + torch.cat((dx, dy), 1)
        if reduction != LEVELS[-1][0]:
            found = found * 2
    sub_x = _parabola(cost, best, 1, dx.abs() < radius)
    sub_y = _parabola(cost, best, side, dy.abs() < radius)
    return (found + torch.cat((sub_x, sub_y), 1)) * LEVELS[-1][0]


def _pyramid(x: Tensor) -> list[Tensor]:
    """``x`` averaged to each level's scale, coarsest first; each from the next finer one."""
    scales: list[Tensor] = []
    before = 1
    for reduction, _ in reversed(LEVELS):
        x = F.avg_pool2d(x, reduction // before)
        scales.insert(0, x)
        before = reduction
    return scales


def _costs(now: Tensor, then: Tensor, around: Tensor, radius: int, cells: int) -> Tensor:
    """Mean absolute differences of each block over the candidates around its vector: (B, K, blocks)."""
    b, _, h, w = now.shape
    reach = _reach(cells) + radius
    padded = F.pad(then, (reach, reach, reach, reach), mode="replicate")
    wp = padded.shape[3]
    # Places in ``then`` of the first candidate; the others lie at fixed distances, so views stand for sums of indexes.
    x0 = torch.arange(w, device=now.device) + reach - radius
    y0 = (torch.arange(h, device=now.device) + reach - radius)[:, None]
    spread = around.repeat_interleave(cells, 2).repeat_interleave(cells, 3)
    corner = ((spread[:, 1:] + y0) * wp + spread[:, :1] + x0).reshape(b, -1)
    flat = padded.reshape(b, -1)
    target = now.reshape(b, -1)
    side = 2 * radius + 1
    differences = now.new_empty(b, side * side, h * w)
    for k in range(side * side):
        found = flat[:, k // side * wp + k % side :].gather(1, corner)
        torch.sub(found, target, out=differences[:, k])
    return _block_mean(differences.abs_().view(b, -1, h, w), cells)


def _reach(cells: int) -> int:
    """Largest vector, in cells of this level, that the levels before can have found."""
    reduction = BLOCK // cells
    return sum(radius * (before // reduction) for before, radius in LEVELS if before > reduction)


def _block_mean(cells: Tensor, block: int) -> Tensor:
    """Mean over each block and half its neighbours: (B, K, h, w) -> (B, K, h/block, w/block)."""
    half = block // 2
    small = F.avg_pool2d(cells, half) if half > 1 else cells
    padded = F.pad(small, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(padded, 4, 2)


def _parabola(cost: Tensor, best: Tensor, stride: int, inside: Tensor) -> Tensor:
    last = cost.shape[1] - 1
    here = cost.gather(1, best)
    left = cost.gather(1, (best - stride).clamp(0, last))
    right = cost.gather(1, (best + stride).clamp(0, last))
    curve = left + right - 2 * here
    shift = 0.5 * (left - right) / curve.clamp_min(1e-6)
    return torch.where(inside & (curve > 1e-5), shift.clamp(-0.5, 0.5), torch.zeros_like(shift))
