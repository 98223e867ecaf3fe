"""Peak signal-to-noise ratio over RGB samples."""

from __future__ import annotations

import torch
from torch import Tensor

from s2vc_model.metrics.base import Frames, Scores, per_batch

PSNR_CAP = 100.0
"""dB at which scores stop, so that identical frames leave means finite."""


def psnr(reference: Frames, decoded: Frames) -> Scores:
    """dB per frame, from the squared error over all three channels; at most ``PSNR_CAP``."""
    return per_batch(_psnr, reference, decoded, pixels=1 << 21)


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    # Squared errors are integers below 2^16; float64 sums them exactly.
    mse = (a - b).square().mean((1, 2, 3), dtype=torch.float64)
    return (10 * torch.log10(255.0**2 / mse)).clamp(max=PSNR_CAP)
