"""Block motion search on source frames: the encoder's hint, never coded and never needed to decode.

Two levels of exhaustive search over sums of absolute differences of luma, quarter scale then half scale with a
parabolic sub-cell fit. The network sees the field, decides what of it is worth bits, and the decoder works from
the flow it decodes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16
"""Block side in pixels; the field has one vector per block."""
_COARSE = 8
_FINE = 2
_STAY = 0.004
"""Cost per quarter-scale cell of displacement, which settles flat regions at rest."""


def luma(x: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> luma (B, 1, H, W), BT.601 weights."""
    r, g, b = x.float().unbind(1)
    return (0.299 * r + 0.587 * g + 0.114 * b)[:, None]


def _argmin_2d(cost: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    side = 2 * radius + 1
    best = cost.argmin(1, keepdim=True)
    return best % side - radius, best // side - radius, best


def _block_cost(cells: Tensor, block: int) -> Tensor:
    """Mean over overlapping windows of twice the block's side: (N, K, h, w) -> (N, K, h/block, w/block)."""
    half = block // 2
    padded = F.pad(cells, (half, half, half, half), mode="replicate")
    return F.avg_pool2d(padded, 2 * block, block)


def block_motion(current: Tensor, previous: Tensor) -> Tensor:
    """Estimate where each block of ``current`` was in ``previous``.

    Args:
        current, previous: luma (B, 1, H, W), any range, H and W multiples of 64.

    Returns:
        (B, 2, H/16, W/16) float displacement (dx, dy) in pixels, within about +-36: current[p] ~ previous[p + d].
    """
    b, _, h, w = current.shape
    c4, p4 = F.avg_pool2d(current, 4), F.avg_pool2d(previous, 4)
    r, side = _COARSE, 2 * _COARSE + 1
    padded = F.pad(p4, (r, r, r, r), mode="replicate")
    windows = padded.unfold(2, h // 4, 1).unfold(3, w // 4, 1).reshape(b, side * side, h // 4, w // 4)
    cost = _block_cost((c4 - windows).abs(), BLOCK // 4)
    steps = torch.arange(-r, r + 1, device=current.device)
    cost = cost + _STAY * (steps.abs()[None, :] + steps.abs()[:, None]).reshape(1, -1, 1, 1)
    dx, dy, _ = _argmin_2d(cost, r)

    c2, p2 = F.avg_pool2d(current, 2), F.avg_pool2d(previous, 2)
    r, side = _FINE, 2 * _FINE + 1
    reach = 2 * _COARSE + _FINE
    padded = F.pad(p2, (reach, reach, reach, reach), mode="replicate")
    hp, wp = padded.shape[2:]
    base_x = dx.repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 + reach
    base_y = dy.repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 + reach
    gx = torch.arange(w // 2, device=current.device)
    gy = torch.arange(h // 2, device=current.device)[:, None]
    steps = torch.arange(-r, r + 1, device=current.device)
    off = (steps[:, None] * wp + steps[None, :]).reshape(1, -1, 1, 1)
    at = (base_y + gy) * wp + base_x + gx + off
    taken = padded.reshape(b, 1, hp * wp).expand(b, side * side, -1).gather(2, at.reshape(b, side * side, -1))
    cost = _block_cost((c2 - taken.view(b, side * side, h // 2, w // 2)).abs(), BLOCK // 2)
    fx, fy, best = _argmin_2d(cost, r)
    sub_x = _parabola(cost, best, 1, fx.abs() < r)
    sub_y = _parabola(cost, best, side, fy.abs() < r)
    return torch.cat((4.0 * dx + 2.0 * (fx + sub_x), 4.0 * dy + 2.0 * (fy + sub_y)), 1)


def _parabola(cost: Tensor, best: Tensor, stride: int, inside: Tensor) -> Tensor:
    last = cost.shape[1] - 1
    here = cost.gather(1, best)
    left = cost.gather(1, (best - stride).clamp(0, last))
    right = cost.gather(1, (best + stride).clamp(0, last))
    curve = left + right - 2 * here
    shift = 0.5 * (left - right) / curve.clamp_min(1e-6)
    return torch.where(inside & (curve > 1e-5), shift.clamp(-0.5, 0.5), torch.zeros_like(shift))
