"""The buffers that live inside one GOP. Frozen values, created by the intra step, passed and returned explicitly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class FeatureBuffer:
    """What the conditional codec keeps of the previous frame; encoder and decoder hold the same.

    Attributes:
        feature: f_{t-1}, (B, C, H/8, W/8).
        picture: light reconstruction from the feature alone, (B, 3, H, W) in [-1, 1]. No U-Net is needed for it.
        flow: decoded motion at 1/8, (B, 2, H/8, W/8) in pixels.
    """

    feature: Tensor
    picture: Tensor
    flow: Tensor

    def detach(self) -> FeatureBuffer:
        """The same values without gradient history."""
        return FeatureBuffer(self.feature.detach(), self.picture.detach(), self.flow.detach())


@dataclass(frozen=True, slots=True)
class DiffusionBuffer:
    """What the one-step U-Net keeps of the previous frame (Temporal Consistency Guidance); decoder only.

    Attributes:
        features: outputs of the first down blocks, finest first.
        picture: the decoded picture, (B, 3, H, W) in [-1, 1].
    """

    features: tuple[Tensor, ...]
    picture: Tensor

    def detach(self) -> DiffusionBuffer:
        """The same values without gradient history."""
        return DiffusionBuffer(tuple(f.detach() for f in self.features), self.picture.detach())


@dataclass(frozen=True, slots=True)
class GopState:
    """Everything one GOP carries from frame to frame.

    Attributes:
        buffer: float features for the transforms.
        prior: integers for the temporal prior, (B, P, H/16, W/16).
        diffusion: the generator's buffer; ``None`` while encoding.
    """

    buffer: FeatureBuffer
    prior: Tensor
    diffusion: DiffusionBuffer | None = None
