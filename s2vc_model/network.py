"""The whole model as one module: two transforms, two integer priors, one generator. Holds no per-GOP state."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from s2vc_model.config import CodecConfig
from s2vc_model.generator import SmallGenerator
from s2vc_model.layers import SameConv3
from s2vc_model.prior import Prior
from s2vc_model.transforms import InterTransform, IntraTransform


class S2vcNetwork(nn.Module):
    """S2VC's networks for one configuration.

    Attributes:
        intra, inter: pixel/latent transforms of the first and the later frames of a GOP.
        intra_prior, inter_prior: their integer priors.
        folded: whether :meth:`for_inference` has left it unfit to be trained or saved.
        generator: the one-step diffusion U-Net and picture decoder (see :class:`s2vc_model.generator.Generator`).
    """

    def __init__(self, config: CodecConfig, generator: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.intra, self.inter = IntraTransform(config), InterTransform(config)
        self.intra_prior, self.inter_prior = Prior(config, temporal=False), Prior(config, temporal=True)
        self.folded = False
        self.generator: Any = generator if generator is not None else build_generator(config)

    def priors(self) -> dict[str, Prior]:
        """The priors by frame type."""
        return {"intra": self.intra_prior, "inter": self.inter_prior}

    def freeze(self) -> None:
        """Turn both priors into their exact integer form, proving their overflow bounds."""
        for prior in self.priors().values():
            prior.load_integers(prior.quantise())

    def thaw(self) -> None:
        """Make loaded weights trainable again: float masters, and all parameters but those that adapters stand for."""
        self.requires_grad_(True)
        for prior in self.priors().values():
            prior.thaw()
        if self.config.lora_rank:
            self.generator.freeze_adapted()

    def for_inference(self, dtype: torch.dtype | None, quick: bool = False) -> None:
        """Fold adapters in.

        Args:
            dtype: of an ``sd`` generator's weights, which are too many to be cast for every frame.
            quick: the float networks will compute in float32 on a CPU; see `s2vc_model.layers.SameConv3`.
        """
        for module in self.modules():
            if isinstance(module, SameConv3):
                module.quick = quick
        if self.config.generator == "sd":
            self.generator.for_inference(dtype)
            self.folded = True


def build_generator(config: CodecConfig) -> nn.Module:
    """The generator a configuration names, with fresh weights."""
    if config.generator == "small":
        return SmallGenerator(config)
    from s2vc_model.sd import SdGenerator

    return SdGenerator.from_scratch(config)



