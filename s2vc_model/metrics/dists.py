"""DISTS, deep image structure and texture similarity (Ding, Ma, Wang, Simoncelli, TPAMI 2020).

On VGG-16 features whose max pooling is replaced by blurred L2 pooling, plus the image itself: per channel,
texture compares spatial means and structure compares covariances; 1 minus their learned weighted sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model.metrics.base import Frames, Scores, as_clip, per_batch
from s2vc_model.metrics.trunks import VGG16, Trunk
from s2vc_model.metrics.weight_store import load_metric_weights

_CHANNELS = (3, 64, 128, 256, 512, 512)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_C1 = _C2 = 1e-6


class Dists(nn.Module):
    """DISTS between batches of RGB images (N, 3, H, W) in [0, 1]; frozen, differentiable in both inputs.

    Args:
        vgg, dists: tensors named as in ``metrics.weight_store``; None loads the cached ones.

    Raises:
        MetricWeightsMissing: the weights were never fetched.
    """

    def __init__(
        self, vgg: Mapping[str, Tensor] | None = None, dists: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.trunk = Trunk(VGG16, load_metric_weights("vgg") if vgg is None else vgg, pool=_l2_pool)
        parameters = load_metric_weights("dists") if dists is None else dists
        total = parameters["alpha"].sum() + parameters["beta"].sum()
        self.register_buffer("alpha", parameters["alpha"] / total)
        self.register_buffer("beta", parameters["beta"] / total)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """The image and five stages of features, finest first."""
        return [x, *self.trunk((x - self.get_buffer("mean")) / self.get_buffer("std"))]

    def forward(self, reference: Tensor, decoded: Tensor) -> Tensor:
        """Distances (N,), fp32; 0 for equal images, lower is better."""
        similarities = [
            _similarity(a.float(), b.float())
            for a, b in zip(self.features(reference), self.features(decoded), strict=True)
        ]
        texture = torch.cat([t for t, _ in similarities], 1)
        structure = torch.cat([s for _, s in similarities], 1)
        return 1 - (texture @ self.get_buffer("alpha") + structure @ self.get_buffer("beta"))


def dists(reference: Frames, decoded: Frames) -> Scores:
    """DISTS per frame, on the device of ``reference``, at full resolution; lower is better."""
    model = _frozen(str(as_clip(reference).device))
    return per_batch(lambda a, b: model(a / 255, b / 255), reference, decoded, pixels=1 << 19)


@lru_cache(maxsize=2)
def _frozen(device: str) -> Dists:
    return Dists().eval().to(device)


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Texture and structure terms, each (N, C)."""
    mean_a, mean_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
    centred_a, centred_b = a - mean_a, b - mean_b
    texture = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    variance = centred_a.square().mean((2, 3)) + centred_b.square().mean((2, 3))
    covariance = (centred_a * centred_b).mean((2, 3))
    return texture.flatten(1), (2 * covariance + _C2) / (variance + _C2)


def _l2_pool(x: Tensor) -> Tensor:
    """Halve the size by the root of Hann-weighted squares over 3x3."""
    taps = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    channels = x.shape[1]
    window = (taps[:, None] * taps[None, :]).expand(channels, 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()
