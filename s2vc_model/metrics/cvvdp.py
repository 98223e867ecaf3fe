"""ColorVideoVDP (Mantiuk et al., SIGGRAPH 2024) by its authors' package ``cvvdp``.

It models contrast sensitivity in space, time and colour for one display and distance: ``standard_fhd``, a
24-inch 1920x1080 monitor of 200 cd/m2 in an office, seen from 0.6 m. One score per sequence, in
just-objectionable differences (JOD): 10 is indistinguishable, one less means that
three viewers in four prefer the source.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from s2vc_model.metrics.base import DEFAULT_RATE, Frames, Scores, as_clip
from s2vc_model.metrics.tools import optional_package

DISPLAY = "standard_fhd"


def cvvdp(reference: Frames, decoded: Frames, rate: float = DEFAULT_RATE) -> Scores:
    """One score, in JOD up to 10, of consecutive frames at ``rate`` frames per second.

    Raises:
        ToolMissing: the package is not installed.
    """
    a, b = as_clip(reference), as_clip(decoded)
    metric = _metric(str(a.device))
    with torch.inference_mode():
        score, _ = metric.predict(b, a, dim_order="FHWC", frames_per_second=rate)
    return np.array([float(score)])


@lru_cache(maxsize=2)
def _metric(device: str) -> Any:
    package = optional_package("pycvvdp", "CVVDP")
    return package.cvvdp(display_name=DISPLAY, device=torch.device(device), quiet=True)
