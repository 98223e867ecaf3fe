"""Networks without one of their parts, to be trained beside whole ones: what is that part worth?

What lets a part have a say is held at zero, so checkpoints and exported weights lack it too, and are measured as any
others are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from s2vc_model.errors import TrainingError
from s2vc_model.network import S2vcNetwork

_NEVER = -30.0
"""Bias of a mask that is shut."""
_SAY = {
    "csg": ("generator.semantic.steps.4.proj",),
    "tcg": (
        *(f"generator.unet.guide.{level}" for level in range(3)), "generator.unet.pixels", "generator.decoder.mask",
    ),
    "unet": ("generator.unet.leave",),
    "temporal-prior": ("intra_prior.t_b", "inter_prior.t_b"),
}
PARTS = tuple(_SAY)
"""Contextual Semantic Guidance, Temporal Consistency Guidance, the one-step U-Net, the priors' memory of frames."""


@torch.no_grad()
def ablate(network: S2vcNetwork, parts: Iterable[str]) -> None:
    """Silence parts of a trainable network, for good: what holds them silent no longer learns.

    Raises:
        TrainingError: no such part, or not ``small``'s generator.
    """
    if network.config.generator != "small":
        raise TrainingError(f"--ablate knows the parts of small's generator, not of {network.config.preset}'s")
    for part in parts:
        if part not in _SAY:
            raise TrainingError(f"--ablate: no part {part!r}; there are {', '.join(PARTS)}")
        for name in _SAY[part]:
            layer = network.get_submodule(name)
            for value in layer.parameters():
                nn.init.zeros_(value).requires_grad_(False)
            if name.endswith("mask"):
                nn.init.constant_(layer.get_parameter("bias"), _NEVER)
