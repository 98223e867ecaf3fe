"""The ImageNet convolution stacks that learned metrics read their features from.

Plain convolutions, no torchvision: the layers up to ``relu5`` of AlexNet (Krizhevsky, 2014 variant) and up to
``relu5_3`` of VGG-16 (Simonyan and Zisserman, 2015), tapped after the last ReLU of each of five stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

Pool = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TrunkSpec:
    """Layout of a stack: ``stages[s]`` lists the convolutions of stage s; a pool stands between stages.

    ``pooled[s]`` says whether stage s starts with a pool; ``least`` is the smallest readable side in pixels.
    A convolution is (in, out, kernel, stride, padding).
    """

    stages: tuple[tuple[tuple[int, int, int, int, int], ...], ...]
    pooled: tuple[bool, ...]
    pool: tuple[int, int]
    least: int


def _vgg_stages() -> tuple[tuple[tuple[int, int, int, int, int], ...], ...]:
    widths = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
    return tuple(tuple((i, o, 3, 1, 1) for i, o in pairwise(w)) for w in widths)


ALEX = TrunkSpec(
    stages=(
        ((3, 64, 11, 4, 2),),
        ((64, 192, 5, 1, 2),),
        ((192, 384, 3, 1, 1),),
        ((384, 256, 3, 1, 1),),
        ((256, 256, 3, 1, 1),),
    ),
    pooled=(False, True, True, False, False),
    pool=(3, 2),
    least=32,
)
VGG16 = TrunkSpec(stages=_vgg_stages(), pooled=(False, True, True, True, True), pool=(2, 2), least=16)
TRUNKS: Mapping[str, TrunkSpec] = {"alex": ALEX, "vgg": VGG16}


class Trunk(nn.Module):
    """A frozen stack of convolutions and ReLUs; returns the output of each of its first ``stages`` stages.

    Args:
        spec: the layout.
        weights: ``conv{i}.weight`` and ``conv{i}.bias`` for every convolution, counted from 0.
        stages: how many stages to keep (1..5).
        pool: what to put in the place of max pooling.
    """

    def __init__(
        self, spec: TrunkSpec, weights: Mapping[str, Tensor], stages: int = 5, pool: Pool | None = None
    ) -> None:
        super().__init__()
        if not 1 <= stages <= len(spec.stages):
            raise ValueError(f"stages must be 1..{len(spec.stages)}, not {stages}")
        self.spec = spec
        self._pool: Pool = pool or (lambda x: F.max_pool2d(x, *spec.pool))
        self.convs = nn.ModuleList()
        for layer in (layer for stage in spec.stages[:stages] for layer in stage):
            index, (cin, cout, kernel, stride, padding) = len(self.convs), layer
            conv = nn.Conv2d(cin, cout, kernel, stride, padding)
            conv.load_state_dict({k: weights[f"conv{index}.{k}"] for k in ("weight", "bias")})
            self.convs.append(conv)
        self.stages = stages
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of normalised images (N, 3, H, W), finest first.

        Images under ``spec.least`` pixels a side are extended to it by repeating their last row and column.
        """
        h, w = x.shape[-2:]
        if min(h, w) < self.spec.least:
            x = F.pad(x, (0, max(0, self.spec.least - w), 0, max(0, self.spec.least - h)), mode="replicate")
        features, at = [], 0
        for stage in range(self.stages):
            if self.spec.pooled[stage]:
                x = self._pool(x)
            for _ in self.spec.stages[stage]:
                x = F.relu(self.convs[at](x))
                at += 1
            features.append(x)
        return features
