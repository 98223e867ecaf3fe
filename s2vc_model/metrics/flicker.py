"""Temporal flicker: how wrongly a decoded clip changes from one frame to the next.

With source frames s and decoded frames d in 8-bit levels, one score per pair of consecutive frames::

    flicker(t) = mean over pixels and channels of |(d[t] - d[t-1]) - (s[t] - s[t-1])|,   t = 1 .. T-1

A constant error scores 0 however large it is, so flicker is read beside a fidelity metric, never alone. A
codec that freezes the picture scores the source's own motion.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from s2vc_model.metrics.base import DEFAULT_RATE, Frames, Scores, as_clip, per_batch


def flicker(reference: Frames, decoded: Frames, rate: float = DEFAULT_RATE) -> Scores:
    """Flicker of each of the T - 1 pairs of consecutive frames, in 8-bit levels; ``rate`` plays no part.

    Raises:
        ValueError: fewer than 2 frames.
    """
    a, b = as_clip(reference), as_clip(decoded)
    if len(a) < 2:
        raise ValueError("flicker compares consecutive frames: it needs at least 2")
    # A pair at a time: a batch of differences would need both neighbours in fp32 at once.
    return np.concatenate(
        [
            per_batch(_pair, a[t - 1 : t + 1], b[t - 1 : t + 1], pixels=a[0].numel() * 2)
            for t in range(1, len(a))
        ]
    )


def _pair(a: Tensor, b: Tensor) -> Tensor:
    """The score (1,) of a batch of two consecutive frames."""
    return ((b[1:] - b[:-1]) - (a[1:] - a[:-1])).abs().mean((1, 2, 3))
