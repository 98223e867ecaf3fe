"""Temporal Consistency Guidance inside diffusers' U-Net, without a copy of its forward.

    down block i:  resnets, attentions ── h ──┬─ + ── skip, downsampler
                                              └─ fuse(h, previous frame's h, aligned) ─┘   zero at start

A stateless hook behind the last attention of each guided down block does the fusing. What it needs for one
call travels with that call, in the dictionary that diffusers hands to every attention, so calls cannot see
each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from s2vc_model import lora

GUIDED = 2
"""Guided down blocks, finest first: 1/8 and 1/16 of the frame."""


class TemporalFusion(nn.Module):
    """h + zero-started residual of (h, previous h)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        block: Any = ResnetBlock2D  # its annotation forgets that None (no time embedding) is allowed
        self.mix = block(in_channels=2 * channels, out_channels=channels, temb_channels=None, groups=groups)
        self.out = nn.Conv2d(channels, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, before: Tensor) -> Tensor:
        """h, before (B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = h + self.out(self.mix(torch.cat((h, before.to(h.dtype)), 1), None))
        return out


class TemporalCall(dict[str, Any]):
    """What one U-Net call brings to the hooks, and what they leave.

    It is an empty ``cross_attention_kwargs``: diffusers passes that object unchanged to every attention, and
    finds no options in it.

    Attributes:
        fusions: one :class:`TemporalFusion` per guided block.
        before: the previous frame's aligned features, one per guided block, or ``None``.
        kept: this frame's features, filled in as the call proceeds.
    """

    def __init__(self, fusions: Iterable[nn.Module], before: tuple[Tensor, ...] | None) -> None:
        super().__init__()
        self.fusions = tuple(fusions)
        self.before = before
        self.kept: tuple[Tensor, ...] = ()

    def copy(self) -> TemporalCall:
        """Itself: diffusers copies the dictionary before it takes options out, and there are none."""
        return self


def _guide(
    level: int, _block: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    call = kwargs.get("cross_attention_kwargs")
    if not isinstance(call, TemporalCall):
        return output
    h = output[0]
    if call.before is not None:
        h = call.fusions[level](h, call.before[level])
    call.kept = (*call.kept, h)
    return (h,)


class GuidedUNet(nn.Module):
    """diffusers' U-Net with Temporal Consistency Guidance at its first ``GUIDED`` down blocks.

    Args:
        unet: its first ``GUIDED`` down blocks must have cross-attention.
        lora_rank: rank of its two adapters (see `lora`); 0: none.
    """

    def __init__(self, unet: UNet2DConditionModel, lora_rank: int = 0) -> None:
        super().__init__()
        self.unet = unet
        shape = dict(unet.config)
        blocks: list[Any] = list(unet.down_blocks)
        widths, groups = shape["block_out_channels"][:GUIDED], shape["norm_num_groups"]
        self.fusions = nn.ModuleList([TemporalFusion(width, groups) for width in widths])
        for level, block in enumerate(blocks[:GUIDED]):
            block.attentions[-1].register_forward_hook(partial(_guide, level), with_kwargs=True)
        # The U-Nets for first and for later frames, in a tuple that torch does not look into: they share their
        # tensors, which are to be counted, moved and saved once.
        self._unets = (unet, unet)
        self.adapted = lora_rank > 0
        if self.adapted:
            lora.add_adapters(unet, lora_rank)
            self._unets = (lora.reading(unet, "intra"), lora.reading(unet, "inter"))

    def freeze_adapted(self) -> None:
        """Leave only the adapters, the first convolution and the fusions to be trained."""
        lora.freeze_adapted(self.unet)

    def fuse(self) -> None:
        """Fold each adapter into a U-Net of its own, for inference; what is not adapted stays shared."""
        intra, inter = lora.fused(self.unet, "intra"), lora.fused(self.unet, "inter")
        self.unet, self.later_unet = intra, inter
        self._unets, self.adapted = (intra, inter), False

    def forward(
        self, f: Tensor, timestep: Tensor, tokens: Tensor, before: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Predict ε.

        Args:
            f: f_pix (B, C, H/8, W/8), in place of the noisy latent.
            timestep: (1,) integer.
            tokens: (B, N, T), in place of a text prompt.
            before: aligned features of the previous frame, or ``None`` on a GOP's first frame.

        Returns:
            ε (B, S, H/8, W/8), and this frame's features for the next one.

        Raises:
            RuntimeError: the U-Net did not carry the call to the guided blocks (an incompatible diffusers).
        """
        call = TemporalCall(self.fusions, before)
        unet = self._unets[before is not None]
        epsilon: Tensor = unet(f, timestep, tokens, cross_attention_kwargs=call, return_dict=False)[0]
        if len(call.kept) != GUIDED:
            raise RuntimeError(
                f"guidance reached {len(call.kept)} of {GUIDED} blocks: incompatible diffusers"
            )
        return epsilon, call.kept
