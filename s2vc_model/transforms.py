"""The conditional codec's float networks: pixels to latents and latents to features.

    x ─ embed ─┬─ trunk 1/8 ─ down ─ trunk 1/16 ─ y      ŷ ─ trunk 1/16 ─ up ─┬─ flow ─┐
      context ─┘ (inter)                                              context ─┴─ merge ─ trunk 1/8 ─ f ─ picture

The inter codec is the intra codec plus a context: the previous feature and picture, moved along a motion field. The
encoder moves them along a searched field; the decoder along the flow it reads out of ŷ. Nothing here touches
probabilities, so these networks may run in any precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2vc_model.config import CodecConfig
from s2vc_model.layers import (
    Down,
    Mix,
    Up,
    activate,
    conv,
    pad_to,
    pixel_shuffle,
    pixel_unshuffle,
    resize_flow,
    trunk,
    warp,
)
from s2vc_model.state import FeatureBuffer

PATCH = 8
FLOW_UNIT = 8.0
"""Pixels per unit of the networks' motion fields."""


class Analysis(nn.Module):
    """Frame (and context) -> latent y in its own unit scale."""

    def __init__(self, config: CodecConfig, inter: bool) -> None:
        super().__init__()
        c, m = config.feature, config.middle
        self.embed = conv(3 * PATCH * PATCH, c)
        self.merge = _identity_merge(c, 1.0, 0.0) if inter else None
        self.fine, self.down = trunk(c, 3), Down(c, m)
        self.coarse, self.out = trunk(m, 2), conv(m, config.latent, gain=0.7)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, 3, H, W) in [-1, 1], context (B, C, H/8, W/8) -> (B, Y, H/16, W/16)."""
        e = self.embed(pixel_unshuffle(x, PATCH))
        if self.merge is not None and context is not None:
            e = self.merge(torch.cat((e, context), 1))
        y: Tensor = self.out(self.coarse(self.down(self.fine(e))))
        return y


class HyperAnalysis(nn.Module):
    """Latent -> hyper-latent, not yet rounded."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        y, p = config.latent, config.prior
        self.a, self.down1 = Mix(y), Down(y, p)
        self.b, self.down2 = Mix(p), Down(p, config.hyper)

    def forward(self, y: Tensor) -> Tensor:
        """(B, Y, h, w) -> (B, Z, ceil(h/4), ceil(w/4))."""
        z: Tensor = self.down2(self.b(self.down1(self.a(pad_to(y, 4))))) * 2
        return z


class Picture(nn.Module):
    """Feature -> light picture; with a moved previous picture, a learned per-pixel blend of the two."""

    def __init__(self, config: CodecConfig, inter: bool) -> None:
        super().__init__()
        c = config.feature
        self.hidden, self.fine = conv(c, 2 * c, gain=1.4), conv(2 * c, 3 * PATCH**2, gain=0.1)
        self.linear = conv(c, 3 * PATCH**2, gain=0.5)
        self.mask = conv(c, PATCH**2, gain=0.1) if inter else None
        if self.mask is not None:
            assert self.mask.bias is not None
            nn.init.constant_(self.mask.bias, -2.0)

    def forward(self, f: Tensor, moved: Tensor | None = None) -> Tensor:
        """f (B, C, H/8, W/8), moved (B, 3, H, W) -> (B, 3, H, W)."""
        fresh = pixel_shuffle(self.linear(f) + self.fine(activate(self.hidden(f))), PATCH)
        if self.mask is None or moved is None:
            return fresh
        keep = torch.sigmoid(pixel_shuffle(self.mask(f), PATCH))
        return fresh + keep * (moved - fresh)


class IntraTransform(nn.Module):
    """Transforms of a GOP's first frame."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        c, m = config.feature, config.middle
        self.analysis, self.hyper = Analysis(config, inter=False), HyperAnalysis(config)
        self.open, self.coarse, self.up = conv(config.latent, m), trunk(m, 2), Up(m, c)
        self.fine, self.picture = trunk(c, 3), Picture(config, inter=False)

    def synthesis(self, y: Tensor) -> FeatureBuffer:
        """Dequantised latent (B, Y, H/16, W/16) -> the GOP's first buffer."""
        f = self.fine(self.up(self.coarse(self.open(y))))
        rest = torch.zeros(f.shape[0], 2, *f.shape[2:], device=f.device)
        return FeatureBuffer(f, self.picture(f), rest)


class InterTransform(nn.Module):
    """Transforms of all later frames, conditioned on the feature buffer."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        c, m = config.feature, config.middle
        self.analysis, self.hyper = Analysis(config, inter=True), HyperAnalysis(config)
        self.extract, self.moved_pixels = trunk(c, 2), conv(3 * PATCH**2, c)
        self.hint = conv(2, c)
        self.open, self.coarse, self.up = conv(config.latent, m), trunk(m, 2), Up(m, c)
        self.flow_in, self.flow_out = conv(c + 2, 96, 3, 1.4), conv(96, 2, 3, 0.1)
        self.merge = _identity_merge(c, 0.5, 0.5)
        self.fine, self.picture = trunk(c, 3), Picture(config, inter=True)

    def context(self, feature: Tensor, picture: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Move the buffer along ``flow`` (B, 2, H/8, W/8) in pixels.

        Args:
            feature: extracted features (B, C, H/8, W/8).
            picture: (B, 3, H, W).

        Returns:
            The context (B, C, H/8, W/8) and the moved picture.
        """
        moved = warp(picture, resize_flow(flow, PATCH))
        pixels = self.moved_pixels(pixel_unshuffle(moved.to(feature.dtype), PATCH))
        return warp(feature, flow / PATCH) + pixels, moved

    def encode(self, x: Tensor, buffer: FeatureBuffer, feature: Tensor, motion: Tensor) -> Tensor:
        """Frame -> latent.

        Args:
            x: (B, 3, H, W) in [-1, 1].
            feature: ``extract(buffer.feature)``.
            motion: searched block motion (B, 2, H/16, W/16) in pixels.
        """
        motion = resize_flow(motion, 2)
        context, _ = self.context(feature, buffer.picture, motion)
        context = context + self.hint((motion / FLOW_UNIT).to(context.dtype))
        y: Tensor = self.analysis(x, context)
        return y

    def synthesis(self, y: Tensor, buffer: FeatureBuffer, feature: Tensor) -> tuple[FeatureBuffer, Tensor]:
        """Dequantised latent and buffer -> the next buffer, and the moved previous picture."""
        d = self.up(self.coarse(self.open(y)))
        before = (buffer.flow / FLOW_UNIT).to(d.dtype)
        flow = self.flow_out(activate(self.flow_in(torch.cat((d, before), 1)))).float() * FLOW_UNIT
        context, moved = self.context(feature, buffer.picture, flow)
        f = self.fine(self.merge(torch.cat((d, context), 1)))
        return FeatureBuffer(f, self.picture(f, moved.to(f.dtype)), flow), moved


def _identity_merge(channels: int, own: float, other: float) -> nn.Conv2d:
    merge = conv(2 * channels, channels, gain=0.1)
    with torch.no_grad():
        eye = torch.eye(channels)[:, :, None, None]
        merge.weight[:, :channels] += own * eye
        merge.weight[:, channels:] += other * eye
    return merge


def start_inter_from_intra(inter: nn.Module, intra: nn.Module) -> int:
    """Start ``inter`` as a copy of ``intra``; returns how many parameters were copied.

    A weight that only gained input channels takes the copy in its first ones and keeps a tenth of the rest.
    """
    mine, theirs, copied = inter.state_dict(), intra.state_dict(), 0
    for key, value in theirs.items():
        own = mine.get(key)
        if own is None or own.shape[:1] != value.shape[:1]:
            continue
        if own.shape == value.shape:
            own.copy_(value)
        elif own.dim() == 4 and own.shape[2:] == value.shape[2:]:
            own[:, value.shape[1] :] *= 0.1
            own[:, : value.shape[1]] = value
        else:
            continue
        copied += 1
    return copied
