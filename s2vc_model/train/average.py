"""The moving average of a network in training: what its checkpoints and weights are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMA_DECAY = 0.999


class Average:
    """Exponential moving average of a network's tensors, warmed up over its first steps."""

    def __init__(self, net: nn.Module) -> None:
        self.live = [v.detach() for v in net.state_dict().values() if v.is_floating_point()]
        self.kept = [v.clone() for v in self.live]
        self.names = [k for k, v in net.state_dict().items() if v.is_floating_point()]
        self.steps = 0

    def update(self) -> None:
        """Fold the live tensors in."""
        self.steps += 1
        decay = min(EMA_DECAY, self.steps / (self.steps + 50))
        torch._foreach_lerp_(self.kept, self.live, 1 - decay)

    def restart(self) -> None:
        """Forget the past: the live tensors changed by hand."""
        for kept, live in zip(self.kept, self.live, strict=True):
            kept.copy_(live)
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        """The averaged tensors by name."""
        return dict(zip(self.names, self.kept, strict=True))
