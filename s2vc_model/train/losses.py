"""Loss terms. All are means over samples and pixels; pictures are in [-1, 1]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model.config import QUALITIES
from s2vc_model.metrics.lpips import Lpips, Net
from s2vc_model.train.recipe import LAMBDA_HIGH, LAMBDA_LOW


def rate_weights(device: torch.device) -> Tensor:
    """Rate weight of each quality index, (64,)."""
    return torch.exp(torch.linspace(math.log(LAMBDA_LOW), math.log(LAMBDA_HIGH), QUALITIES)).to(device)


class Perceptual(nn.Module):
    """LPIPS for training, target features without gradient.

    Args:
        net: the backbone. AlexNet's form is a tenth of the work, and the one that archives are measured with.
        half: whether features are bf16; None: on a GPU.
    """

    def __init__(self, device: torch.device, net: Net = "vgg", half: bool | None = None) -> None:
        super().__init__()
        half = device.type == "cuda" if half is None else half
        self.dtype = torch.bfloat16 if half else torch.float32
        self.lpips = Lpips(net).to(device, self.dtype).to(memory_format=torch.channels_last)
        self.lpips.requires_grad_(False)

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Distances (N,) of pictures (N, 3, H, W)."""
        return self.distance(decoded, self.wanted(target))

    @torch.no_grad()
    def wanted(self, target: Tensor) -> list[Tensor]:
        """What of ``target`` (N, 3, H, W) pictures are compared with."""
        return [_unit(f) for f in self._features(target)]

    def distance(self, decoded: Tensor, wanted: list[Tensor]) -> Tensor:
        """Distances (N,) of pictures from those that ``wanted`` was made of."""
        got = self._features(decoded)
        total = torch.zeros(decoded.shape[0], device=decoded.device)
        for stage, (a, b) in enumerate(zip(got, wanted, strict=True)):
            head = self.lpips.get_buffer(f"head{stage}").view(1, -1, 1, 1)
            total = total + ((_unit(a) - b).square() * head).float().sum(1).mean((1, 2))
        return total

    def _features(self, pictures: Tensor) -> list[Tensor]:
        return self.lpips.features(pictures.to(self.dtype).contiguous(memory_format=torch.channels_last))


def _unit(f: Tensor) -> Tensor:
    return f * (f.float().square().sum(1, keepdim=True) + 1e-8).rsqrt().to(f.dtype)


def motion_loss(flow: Tensor, motion: Tensor, trust: Tensor) -> Tensor:
    """Trusted L1 between decoded flow at 1/8 and searched block motion at 1/16, both in pixels."""
    return (trust * (F.avg_pool2d(flow.float(), 2) - motion).abs()).mean()
