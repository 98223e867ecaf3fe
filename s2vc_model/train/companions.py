"""The networks that only training needs, and that no weights file holds. Checkpoints keep what they have learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s2vc_model.config import CodecConfig
from s2vc_model.train.adversary import Adversary
from s2vc_model.train.recipe import Stage
from s2vc_model.train.teacher import SemanticLoss


class Companions(nn.Module):
    """What some stage of a run asks for, on its device.

    Attributes:
        semantic: the teacher and the map from tokens to it.
        adversary: the judge of decoded frames.
    """

    def __init__(self, semantic: SemanticLoss | None = None, adversary: Adversary | None = None) -> None:
        super().__init__()
        self.semantic, self.adversary = semantic, adversary

    @classmethod
    def for_stages(cls, stages: Sequence[Stage], config: CodecConfig, device: torch.device) -> Companions:
        """Fresh ones.

        Raises:
            TrainingError: a stage asks for a teacher that is not installed.
        """
        semantic = SemanticLoss(config.tokens, device) if any(s.semantic for s in stages) else None
        adversary = Adversary(device) if any(s.adversarial for s in stages) else None
        return cls(semantic, adversary)

    def beside_the_codec(self) -> list[nn.Parameter]:
        """Parameters that learn with the codec's, from the same loss."""
        return list(self.semantic.reading.parameters()) if self.semantic else []

    def learned(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by name."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name in trained}

    def go_on_from(self, kept: dict[str, Tensor]) -> None:
        """Take over what a checkpoint kept of those that are here."""
        mine = self.learned()
        with torch.no_grad():
            for name, value in kept.items():
                if name in mine and mine[name].shape == value.shape:
                    mine[name].copy_(value)
