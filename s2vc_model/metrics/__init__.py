"""Full-reference quality metrics, one table of them, and one function that measures a clip.

To add a metric: write a function like ``psnr`` (two ``uint8`` RGB clips (T, H, W, 3) to T scores) in a file
of its own and add one line to ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from s2vc_model.metrics.base import Frames, Metric, MetricFunction, MetricResult, as_clip, sample_indices
from s2vc_model.metrics.dists import Dists, dists
from s2vc_model.metrics.lpips import Lpips, LpipsVgg, lpips_alex, lpips_vgg
from s2vc_model.metrics.msssim import ms_ssim
from s2vc_model.metrics.psnr import psnr
from s2vc_model.metrics.weight_store import MetricWeightsMissing

__all__ = [
    "METRICS",
    "Dists",
    "Lpips",
    "LpipsVgg",
    "Metric",
    "MetricFunction",
    "MetricResult",
    "MetricWeightsMissing",
    "dists",
    "lpips_alex",
    "lpips_vgg",
    "measure",
    "ms_ssim",
    "psnr",
    "sample_indices",
]

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("psnr", psnr, higher_is_better=True, unit="dB"),
            Metric("ms_ssim", ms_ssim, higher_is_better=True),
            Metric("lpips_alex", lpips_alex, higher_is_better=False, learned=True),
            Metric("lpips_vgg", lpips_vgg, higher_is_better=False, learned=True),
            Metric("dists", dists, higher_is_better=False, learned=True),
        )
    }
)


def measure(
    reference: Frames,
    decoded: Frames,
    names: Sequence[str],
    sample: int | None = None,
    device: torch.device | str | None = None,
) -> dict[str, MetricResult]:
    """Score ``decoded`` against ``reference`` with each named metric.

    Args:
        reference, decoded: ``uint8`` RGB clips of one shape (T, H, W, 3).
        names: keys of ``METRICS``.
        sample: measure at most this many evenly spaced frames (see ``sample_indices``); None measures all.
        device: where to compute; None computes where ``reference`` is.

    Raises:
        ValueError: an unknown name, clips that differ in shape, or no frame at all.
        MetricWeightsMissing: a learned metric was named and its weights were never fetched.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}")
    a, b = as_clip(reference), as_clip(decoded)
    if a.shape != b.shape or not a.shape[0]:
        raise ValueError(f"clips must have one shape and a frame: {tuple(a.shape)} and {tuple(b.shape)}")
    frames = sample_indices(a.shape[0], sample)
    where = a.device if device is None else device
    a, b = (clip[list(frames)].to(where) for clip in (a, b))
    return {name: _result(METRICS[name], a, b, frames) for name in names}


def _result(metric: Metric, a: torch.Tensor, b: torch.Tensor, frames: tuple[int, ...]) -> MetricResult:
    values = metric.function(a, b)
    worst = values.min() if metric.higher_is_better else values.max()
    return MetricResult(float(values.mean()), float(worst), frames, values)
