"""LPIPS, the learned perceptual distance of Zhang et al. (CVPR 2018), v0.1 "lin" heads, and its loss form.

Features of each stage are normalised to unit length along channels, subtracted, squared, weighted per
channel by the learned head, averaged over space and summed over stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from s2vc_model.metrics.base import Frames, Scores, as_clip, per_batch
from s2vc_model.metrics.trunks import TRUNKS, Trunk
from s2vc_model.metrics.weight_store import load_metric_weights

Net = Literal["alex", "vgg"]
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """LPIPS between batches of images; frozen, differentiable in both inputs.

    Made for use as a training loss too: no host synchronisation and no shape that depends on data, so it can
    be captured in a CUDA graph. Under autocast the convolutions run in its type, the distances in fp32.

    Args:
        net: the backbone.
        stages: keep only the first stages (1..5). Fewer than 5 is a cheaper loss, no longer LPIPS.
        weights: tensors named as in ``metrics.weight_store``; None loads the cached ones.

    Raises:
        MetricWeightsMissing: the weights were never fetched.
    """

    def __init__(
        self, net: Net = "vgg", stages: int = 5, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        tensors = load_metric_weights(net) if weights is None else weights
        self.trunk = Trunk(TRUNKS[net], tensors, stages)
        for stage in range(stages):
            self.register_buffer(f"head{stage}", tensors[f"head{stage}"].clone())
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """Raw feature maps of RGB images (N, 3, H, W) in [-1, 1], one per stage, finest first."""
        normalised: Tensor = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        features: list[Tensor] = self.trunk(normalised)
        return features

    def distance(self, reference: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """Distances (N,), fp32, between two results of ``features``."""
        with torch.autocast(reference[0].device.type, enabled=False):
            total = reference[0].new_zeros(reference[0].shape[0], dtype=torch.float32)
            for stage, (a, b) in enumerate(zip(reference, decoded, strict=True)):
                squared = (_unit(a.float()) - _unit(b.float())).square()
                head = self.get_buffer(f"head{stage}")
                total = total + torch.einsum("nchw,c->n", squared, head) / (a.shape[-2] * a.shape[-1])
        return total

    def forward(self, reference: Tensor, decoded: Tensor) -> Tensor:
        """Distances (N,), fp32, between RGB images (N, 3, H, W) in [-1, 1]; 0 for equal images."""
        return self.distance(self.features(reference), self.features(decoded))


class LpipsVgg(Lpips):
    """The VGG-16 form, the usual training loss. See ``Lpips``."""

    def __init__(self, stages: int = 5, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__("vgg", stages, weights)


def lpips_alex(reference: Frames, decoded: Frames) -> Scores:
    """LPIPS with AlexNet per frame, on the device of ``reference``; lower is better."""
    return _measure("alex", reference, decoded, pixels=1 << 20)


def lpips_vgg(reference: Frames, decoded: Frames) -> Scores:
    """LPIPS with VGG-16 per frame, on the device of ``reference``; lower is better."""
    return _measure("vgg", reference, decoded, pixels=1 << 19)


def _measure(net: Net, reference: Frames, decoded: Frames, pixels: int) -> Scores:
    model = _frozen(net, str(as_clip(reference).device))
    return per_batch(lambda a, b: model(a / 127.5 - 1, b / 127.5 - 1), reference, decoded, pixels)


@lru_cache(maxsize=4)
def _frozen(net: Net, device: str) -> Lpips:
    return Lpips(net).eval().to(device)


def _unit(x: Tensor) -> Tensor:
    # The small term inside the root keeps the gradient finite where a whole feature vector is zero.
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-10)
