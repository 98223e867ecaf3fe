"""What every metric shares: its description, its result, and how frames become tensors.

Frames are ``uint8`` RGB of shape (T, H, W, 3), as arrays or tensors. A metric's function maps two such
tensors of one shape and device to T scores; it may assume nothing about T and splits its own batches. A
sequence metric's frames are consecutive, it learns their rate, and it says itself what one score belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Frames = NDArray[np.uint8] | Tensor
Scores = NDArray[np.float64]
DEFAULT_RATE = 25.0
"""Frames per second assumed of a sequence whose rate nobody gave."""


class MetricFunction(Protocol):
    """Scores of ``decoded`` against ``reference``, one per frame.

    Example, mean absolute error in grey levels::

        def mae(reference: Frames, decoded: Frames) -> Scores:
            return per_batch(lambda a, b: (a - b).abs().mean((1, 2, 3)), reference, decoded, pixels=1 << 22)
    """

    def __call__(self, reference: Frames, decoded: Frames) -> Scores:
        """Two (T, H, W, 3) ``uint8`` RGB clips to a ``float64`` array of shape (T,)."""
        ...


class SequenceFunction(Protocol):
    """Scores of consecutive frames: per frame, per pair of frames, or one for all, as its docstring says."""

    def __call__(self, reference: Frames, decoded: Frames, rate: float = DEFAULT_RATE) -> Scores:
        """Two (T, H, W, 3) ``uint8`` RGB clips at ``rate`` frames per second to at least one score."""
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the table of metrics.

    Attributes:
        name: the key in tables, manifests and on command lines.
        function: the scores.
        higher_is_better: direction; decides which frame is the worst.
        unit: what one score counts, for axis labels ("dB" or empty).
        learned: needs the downloaded weights.

    `SequenceMetric` is the same for functions that need consecutive frames.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool
    unit: str = ""
    learned: bool = False


@dataclass(frozen=True, slots=True)
class SequenceMetric(Metric):
    """A metric of consecutive frames: sampling keeps an unbroken run of them for it."""

    function: SequenceFunction


@dataclass(frozen=True, slots=True)
class MetricResult:
    """Scores of one metric over the measured frames of one clip.

    Attributes:
        mean: arithmetic mean of the scores.
        worst: the worst score (lowest or highest, by the metric's direction).
        frames: indices of the measured frames in the clip.
        values: one score per measured frame; a sequence metric may give one per pair, or one alone.
    """

    mean: float
    worst: float
    frames: tuple[int, ...]
    values: Scores = field(repr=False)


def sample_indices(frames: int, sample: int | None) -> tuple[int, ...]:
    """Which frames to measure: all, or at most ``sample`` evenly spaced ones, the first and last included.

    One sample means the last frame, where drift in a GOP is largest.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample must be at least 1 frame, not {sample}")
    if sample is None or sample >= frames:
        return tuple(range(frames))
    if sample == 1:
        return (frames - 1,)
    return tuple(round(i * (frames - 1) / (sample - 1)) for i in range(sample))


def run_indices(frames: int, sample: int | None) -> tuple[int, ...]:
    """Which frames a sequence metric sees: all, or the last ``sample`` ones, where drift in a GOP is largest.

    A sequence takes two frames, so a sample of one means the last two.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample must be at least 1 frame, not {sample}")
    kept = frames if sample is None else min(frames, max(sample, 2))
    return tuple(range(frames - kept, frames))


def as_clip(frames: Frames, device: torch.device | str | None = None) -> Tensor:
    """A (T, H, W, 3) ``uint8`` tensor on ``device`` (where it is, if None), without a copy when possible.

    Raises:
        ValueError: another dtype or shape.
    """
    clip = frames if isinstance(frames, Tensor) else torch.from_numpy(np.ascontiguousarray(frames))
    if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), not {clip.dtype} {tuple(clip.shape)}")
    return clip if device is None else clip.to(device)


def batches(reference: Frames, decoded: Frames, pixels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of fp32 (N, 3, H, W) batches in 0..255 with about ``pixels`` pixels each.

    Raises:
        ValueError: the clips differ in shape or are not RGB ``uint8``.
    """
    a, b = as_clip(reference), as_clip(decoded)
    if a.shape != b.shape:
        raise ValueError(f"clips differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    step = max(1, pixels // (a.shape[1] * a.shape[2]))
    for at in range(0, a.shape[0], step):
        yield _planes(a[at : at + step]), _planes(b[at : at + step])


def per_batch(
    function: Callable[[Tensor, Tensor], Tensor], reference: Frames, decoded: Frames, pixels: int
) -> Scores:
    """Apply a batched tensor function (N scores from two fp32 (N, 3, H, W) in 0..255) over whole clips."""
    scores = []
    with torch.inference_mode():
        for a, b in batches(reference, decoded, pixels):
            scores.append(function(a, b).double().cpu().numpy())
    return np.concatenate(scores) if scores else np.zeros(0)


def _planes(clip: Tensor) -> Tensor:
    return clip.permute(0, 3, 1, 2).float()
