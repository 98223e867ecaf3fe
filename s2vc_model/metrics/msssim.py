"""Multi-scale structural similarity (Wang, Simoncelli, Bovik, 2003), per RGB channel, then averaged.

The published weights belong to five scales of an 11-tap Gaussian window (sigma 1.5, no padding), which
needs frames over 160 pixels on the shorter side. **Smaller frames use as many of the finest scales as fit,
their weights renormalised to sum to 1**; at 176x144 that is four. Scores of different numbers of scales are
not comparable with one another, so clips of one comparison must have one size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s2vc_model.metrics.base import Frames, Scores, per_batch

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ms_ssim(reference: Frames, decoded: Frames) -> Scores:
    """Score per frame, up to 1. Frames must be at least 11 pixels on each side (``ValueError``)."""
    return per_batch(ms_ssim_planes, reference, decoded, pixels=1 << 20)


def scales(height: int, width: int) -> int:
    """How many scales fit a frame: at the coarsest one the window still has to fit.

    Raises:
        ValueError: not even one does.
    """
    fitting = 0
    side = min(height, width)
    while side >= _WINDOW and fitting < len(WEIGHTS):
        fitting += 1
        side = (side + 1) // 2
    if not fitting:
        raise ValueError(f"MS-SSIM needs frames of at least {_WINDOW} pixels a side, not {width}x{height}")
    return fitting


def ms_ssim_planes(a: Tensor, b: Tensor) -> Tensor:
    """Scores (N,) of two fp32 (N, C, H, W) batches in 0..255."""
    count = scales(a.shape[-2], a.shape[-1])
    weights = torch.tensor(WEIGHTS[:count], device=a.device)
    weights = weights / weights.sum()
    factors = []
    for scale in range(count):
        similarity, contrast = _ssim(a, b)
        # Negative covariance would make a fractional power complex; the usual practice is to clip at zero.
        factors.append(torch.relu(similarity if scale == count - 1 else contrast))
        if scale < count - 1:
            padding = [side % 2 for side in a.shape[-2:]]
            a, b = (F.avg_pool2d(x, 2, padding=padding) for x in (a, b))
    return (torch.stack(factors) ** weights.view(-1, 1, 1)).prod(0).mean(1)


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term, each (N, C)."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    contrast = (2 * covariance + _C2) / (var_a + var_b + _C2)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return (luminance * contrast).mean((-2, -1)), contrast.mean((-2, -1))


def _blur(x: Tensor) -> Tensor:
    taps = torch.arange(_WINDOW, device=x.device, dtype=x.dtype) - _WINDOW // 2
    window = torch.exp(-(taps**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    n, c, h, w = x.shape
    x = F.conv2d(x.reshape(n * c, 1, h, w), window.view(1, 1, -1, 1))
    x = F.conv2d(x, window.view(1, 1, 1, -1))
    return x.view(n, c, *x.shape[-2:])
