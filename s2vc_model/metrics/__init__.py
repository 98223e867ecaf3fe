"""Full-reference quality metrics, one table of them, and one function that measures a clip.

To add a metric: write a function like ``psnr`` (two ``uint8`` RGB clips (T, H, W, 3) to T scores) in a file
of its own and add one line to ``METRICS``. One that needs consecutive frames is a ``SequenceMetric``, like
``flicker``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from s2vc_model.metrics.base import (
    DEFAULT_RATE,
    Frames,
    Metric,
    MetricFunction,
    MetricResult,
    SequenceFunction,
    SequenceMetric,
    as_clip,
    run_indices,
    sample_indices,
)
from s2vc_model.metrics.cvvdp import cvvdp
from s2vc_model.metrics.dists import Dists, dists
from s2vc_model.metrics.flicker import flicker
from s2vc_model.metrics.lpips import Lpips, LpipsVgg, lpips_alex, lpips_vgg
from s2vc_model.metrics.msssim import ms_ssim
from s2vc_model.metrics.psnr import psnr
from s2vc_model.metrics.tools import ToolFailed, ToolMissing
from s2vc_model.metrics.vmaf import vmaf, vmaf_neg
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
    "SequenceFunction",
    "SequenceMetric",
    "ToolFailed",
    "ToolMissing",
    "cvvdp",
    "dists",
    "flicker",
    "lpips_alex",
    "lpips_vgg",
    "measure",
    "ms_ssim",
    "psnr",
    "run_indices",
    "sample_indices",
    "vmaf",
    "vmaf_neg",
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
            SequenceMetric("vmaf", vmaf, higher_is_better=True),
            SequenceMetric("vmaf_neg", vmaf_neg, higher_is_better=True),
            SequenceMetric("cvvdp", cvvdp, higher_is_better=True, unit="JOD"),
            SequenceMetric("flicker", flicker, higher_is_better=False, unit="levels"),
        )
    }
)


def measure(
    reference: Frames,
    decoded: Frames,
    names: Sequence[str],
    sample: int | None = None,
    device: torch.device | str | None = None,
    rate: float = DEFAULT_RATE,
) -> dict[str, MetricResult]:
    """Score ``decoded`` against ``reference`` with each named metric.

    Args:
        reference, decoded: ``uint8`` RGB clips of one shape (T, H, W, 3).
        names: keys of ``METRICS``.
        sample: measure at most this many evenly spaced frames (see ``sample_indices``), or for a sequence
            metric so many consecutive ones (see ``run_indices``); None measures all.
        device: where to compute; None computes where ``reference`` is.
        rate: frames per second of the whole clip, for sequence metrics.

    Raises:
        ValueError: an unknown name, clips that differ in shape, or no frame at all.
        MetricWeightsMissing: a learned metric was named and its weights were never fetched.
        ToolMissing: a metric was named that needs the extra ``bench``, which is not installed.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}")
    a, b = as_clip(reference), as_clip(decoded)
    if a.shape != b.shape or not a.shape[0]:
        raise ValueError(f"clips must have one shape and a frame: {tuple(a.shape)} and {tuple(b.shape)}")
    where = a.device if device is None else device
    results: dict[str, MetricResult] = {}
    for choose, kind in ((sample_indices, Metric), (run_indices, SequenceMetric)):
        chosen = [METRICS[name] for name in names if type(METRICS[name]) is kind]
        if chosen:
            frames = choose(a.shape[0], sample)
            x, y = (clip[list(frames)].to(where) for clip in (a, b))
            results |= {metric.name: _result(metric, x, y, frames, rate) for metric in chosen}
    return {name: results[name] for name in names}


def _result(
    metric: Metric, a: torch.Tensor, b: torch.Tensor, frames: tuple[int, ...], rate: float
) -> MetricResult:
    values = metric.function(a, b, rate) if isinstance(metric, SequenceMetric) else metric.function(a, b)
    worst = values.min() if metric.higher_is_better else values.max()
    return MetricResult(float(values.mean()), float(worst), frames, values)
