"""A GOP's figures for the manifest: every metric of a job, over the frames that it measures. Imports torch late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from s2vc_ray.errors import ConfigError
from s2vc_ray.staging import Metric

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from s2vc_model.metrics import MetricResult

    Frames = npt.NDArray[np.uint8]


def check_metrics(names: tuple[str, ...]) -> None:
    """Fail at the start of a job, not at its first GOP, when a metric lacks its weights.

    Raises:
        ConfigError: it does, or its program is not there.
    """
    import numpy as np

    from s2vc_model.metrics import MetricWeightsMissing, ToolMissing, measure

    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    try:
        measure(grey, grey, names)
    except (MetricWeightsMissing, ToolMissing) as error:
        raise ConfigError(f"{error} Or measure without it: --metric psnr, or --metrics none.") from error


def gop_metrics(
    reference: Frames, decoded: Frames, numbers: Sequence[int], names: Sequence[str], device: str
) -> tuple[Metric, ...]:
    """Measure frames that lie at ``numbers`` in their GOP; what they are too few or too small for is left out.

    Args:
        reference, decoded: (N, H, W, 3) uint8 RGB.
        names: keys of `s2vc_model.metrics.METRICS`.
        device: where torch's metrics run.
    """
    from s2vc_model.metrics import measure

    frames, height, width, _ = reference.shape
    chosen = [name for name in names if _applies(name, frames, height, width)]
    results = measure(reference, decoded, chosen, device=device)
    return tuple(_metric(name, result, numbers) for name, result in results.items())


def _applies(name: str, frames: int, height: int, width: int) -> bool:
    """Whether a metric has a value for a GOP of so many frames of this size."""
    from s2vc_model.metrics.vmaf import MIN_SIDE

    if name == "flicker":
        return frames >= 2
    return name not in ("vmaf", "vmaf_neg") or min(height, width) >= MIN_SIDE


def _metric(name: str, result: MetricResult, chosen: Sequence[int]) -> Metric:
    """A result for the manifest; ``chosen`` are its frames' places in the GOP."""
    import numpy as np

    from s2vc_model.metrics import METRICS

    better = METRICS[name].higher_is_better
    p5 = float(np.percentile(result.values, 5 if better else 95))
    at = int(result.values.argmin() if better else result.values.argmax())
    # A score for each pair of frames belongs to the second.
    at += len(result.frames) - len(result.values)
    return Metric(name, result.mean, result.worst, len(result.frames), p5, chosen[result.frames[at]])
