"""The generator seam, and ``small``'s one-step diffusion U-Net with its pixel decoder.

    f ─ head ───────────────────────── x_T ──┐
    f ─ U-Net (tokens, TCG features) ── ε ───┴─ x̂0 = (x_T − σ ε) / α ─ pixel decoder ─ x̂

The generator stands outside the coding loop: bits never depend on it. Contextual Semantic Guidance replaces text: a
head on the decoded feature makes the tokens the U-Net's cross-attention reads. Temporal Consistency Guidance fuses the
previous frame's down-block features and decoded picture, moved along the decoded flow, through zero-started branches.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from s2vc_model.config import CodecConfig
from s2vc_model.layers import (
    CrossAttention,
    Down,
    Mix,
    Res,
    Up,
    conv,
    pad_to,
    pixel_shuffle,
    pixel_unshuffle,
    resize_flow,
    trunk,
    warp,
)
from s2vc_model.state import DiffusionBuffer, FeatureBuffer

PATCH = 8


class Generator(Protocol):
    """Decoded features -> picture."""

    def __call__(
        self, buffer: FeatureBuffer, before: DiffusionBuffer | None
    ) -> tuple[Tensor, DiffusionBuffer]:
        """One frame.

        Args:
            buffer: the frame's decoded feature, light picture and flow.
            before: the previous frame's diffusion buffer; ``None`` on a GOP's first frame.

        Returns:
            Picture (B, 3, H, W) in about [-1, 1], and the buffer for the next frame.
        """
        ...


def one_step_alphas(timestep: int) -> tuple[float, float]:
    """(alpha, sigma) of Stable Diffusion's noise schedule at ``timestep`` (0..999).

    The schedule of diffusers' ``DDPMScheduler`` (``scaled_linear``, 0.00085 to 0.012). Importing it would cost every
    worker and command 195 MB and half of its start, so a test compares the two instead.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32, device="cpu") ** 2
    signal = float(torch.cumprod(1 - betas, 0)[timestep])
    return signal**0.5, (1 - signal) ** 0.5


class SemanticHead(nn.Module):
    """Contextual Semantic Guidance: feature at 1/8 -> tokens at 1/64."""

    def __init__(self, feature: int, tokens: int) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            Down(feature, tokens), Mix(tokens), Down(tokens, tokens), Mix(tokens), Down(tokens, tokens)
        )

    def forward(self, f: Tensor) -> Tensor:
        """(B, C, H/8, W/8) -> (B, ceil(H/64) * ceil(W/64), T)."""
        t: Tensor = self.steps(pad_to(f, 8))
        return t.permute(0, 2, 3, 1).reshape(t.shape[0], -1, t.shape[1])


class OneStepUNet(nn.Module):
    """Three-scale U-Net that predicts ε at one fixed timestep, guided by tokens and the previous frame."""

    def __init__(
        self,
        feature: int = 128,
        widths: tuple[int, int, int] = (128, 192, 256),
        tokens: int = 192,
        sample: int = 128,
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.enter = conv(feature, a, 3)
        self.pixels = conv(3 * PATCH**2, a, gain=0.1)
        self.down0, self.down1, self.down2 = Res(a), Res(b), Res(c)
        self.shrink0, self.shrink1 = Down(a, b), Down(b, c)
        self.cross1, self.cross2, self.cross3 = (CrossAttention(w, tokens) for w in (b, c, b))
        self.guide = nn.ModuleList([conv(2 * w, w, gain=0.05) for w in widths])
        self.middle = Res(c)
        self.grow1, self.grow0 = Up(c, b), Up(b, a)
        self.up1, self.up0 = Res(2 * b, b), Res(2 * a, a)
        self.leave = conv(a, sample)

    def forward(
        self, f: Tensor, tokens: Tensor, before: tuple[Tensor, ...] | None, picture: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Predict ε.

        Args:
            f: f_pix (B, C, H/8, W/8), in place of the noisy latent.
            tokens: (B, N, T).
            before: aligned down-block features of the previous frame, or ``None``.
            picture: aligned previous picture unshuffled to (B, 192, H/8, W/8), or ``None``.

        Returns:
            ε (B, S, H/8, W/8) and this frame's down-block features.
        """
        kept: list[Tensor] = []

        def guided(level: int, x: Tensor) -> Tensor:
            if before is not None:
                x = x + self.guide[level](torch.cat((x, before[level]), 1))
            kept.append(x)
            return x

        h = self.enter(f)
        if picture is not None:
            h = h + self.pixels(picture)
        h0 = guided(0, self.down0(h))
        h1 = guided(1, self.cross1(self.down1(self.shrink0(h0)), tokens))
        h2 = guided(2, self.cross2(self.down2(self.shrink1(h1)), tokens))
        h = self.cross3(self.up1(torch.cat((self.grow1(self.middle(h2)), h1), 1)), tokens)
        h = self.up0(torch.cat((self.grow0(h), h0), 1))
        return self.leave(h), tuple(kept)


class PixelDecoder(nn.Module):
    """x̂0 at 1/8 -> picture, staying at 1/8 to 1/2 scale with pixel shuffles."""

    def __init__(
        self, sample: int = 128, widths: tuple[int, int] = (64, 32), blocks: tuple[int, int] = (2, 1)
    ) -> None:
        super().__init__()
        quarter, half = widths
        self.eighth = nn.Sequential(Res(sample), Res(sample))
        self.rest = nn.Sequential(
            Up(sample, quarter),
            *(Res(quarter) for _ in range(blocks[0])),
            Up(quarter, half),
            *(Res(half) for _ in range(blocks[1])),
        )
        self.out = conv(half, 12, 3, 0.2)
        self.linear = conv(sample, 3 * PATCH**2, gain=0.5)
        self.mask = conv(sample, PATCH**2, gain=0.1)
        assert self.mask.bias is not None
        nn.init.constant_(self.mask.bias, -2.0)

    def forward(self, x0: Tensor, moved: Tensor | None) -> Tensor:
        """x0 (B, S, H/8, W/8), moved previous picture (B, 3, H, W) or ``None`` -> (B, 3, H, W)."""
        h = self.eighth(x0)
        fresh = pixel_shuffle(self.out(self.rest(h)), 2) + pixel_shuffle(self.linear(h), PATCH)
        if moved is None:
            return fresh
        keep = torch.sigmoid(pixel_shuffle(self.mask(h), PATCH))
        return fresh + keep * (moved - fresh)


class SmallGenerator(nn.Module):
    """``small``'s generator: semantic head, one-step U-Net, pixel decoder."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.semantic = SemanticHead(config.feature, config.tokens)
        self.head = conv(config.feature, config.sample)
        self.refine = trunk(config.feature, 1)
        self.unet = OneStepUNet(config.feature, config.unet, config.tokens, config.sample)
        self.decoder = PixelDecoder(config.sample, config.decoder, config.decoder_blocks)
        self.alpha, self.sigma = one_step_alphas(config.timestep)

    def forward(
        self, buffer: FeatureBuffer, before: DiffusionBuffer | None
    ) -> tuple[Tensor, DiffusionBuffer]:
        """See :class:`Generator`."""
        f = self.refine(buffer.feature)
        features = moved = pixels = None
        if before is not None:
            features, moved = align(before, buffer.flow)
            pixels = pixel_unshuffle(moved, PATCH)
        epsilon, kept = self.unet(f, self.semantic(buffer.feature), features, pixels)
        x0 = (self.head(f) - self.sigma * epsilon) / self.alpha
        picture = self.decoder(x0, moved)
        return picture, DiffusionBuffer(kept, picture)


def align(before: DiffusionBuffer, flow: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Move a diffusion buffer along the decoded flow (B, 2, H/8, W/8) in pixels.

    Feature maps may have any scale from 1/8 down; each is moved by the flow averaged to its own grid.
    """
    moved = warp(before.picture, resize_flow(flow, PATCH)).to(before.picture.dtype)
    features = []
    for f in before.features:
        cell = flow.shape[-1] // f.shape[-1]
        own = flow if cell == 1 else torch.nn.functional.avg_pool2d(flow, cell)
        features.append(warp(f, own / (PATCH * cell)))
    return tuple(features), moved
