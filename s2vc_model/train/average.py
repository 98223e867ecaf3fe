"""The moving average of a network in training: what its checkpoints and weights are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMA_DECAY = 0.999
QUICK = 50
"""In its first steps the average spans a 50th of the steps so far: for networks that are far from where they go."""
STEADY = 3
"""A third of the steps so far: for few steps near the end, whose noise is most of what they do."""


class Average:
    """Exponential moving average of a network's tensors, warmed up over its first steps."""

    def __init__(self, net: nn.Module) -> None:
        self.live = [v.detach() for v in net.state_dict().values() if v.is_floating_point()]
        self.kept = [v.clone() for v in self.live]
        self.names = [k for k, v in net.state_dict().items() if v.is_floating_point()]
        self.steps, self.warm_up = 0, QUICK

    def update(self) -> None:
        """Fold the live tensors in."""
        self.steps += 1
        decay = min(EMA_DECAY, self.steps / (self.steps + self.warm_up))
        torch._foreach_lerp_(self.kept, self.live, 1 - decay)

    def restart(self, warm_up: int = QUICK) -> None:
        """Forget the past: the live tensors changed by hand."""
        for kept, live in zip(self.kept, self.live, strict=True):
            kept.copy_(live)
        self.steps, self.warm_up = 0, warm_up

    def state(self) -> dict[str, Tensor]:
        """The averaged tensors by name."""
        return dict(zip(self.names, self.kept, strict=True))
