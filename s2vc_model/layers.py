"""The few building blocks every float network here is made of.

No normalisation layers: trunks start with gain-1 normal weights, residual branches end scaled by 0.2, and
activations stay channels-last so that bf16 convolutions stay on the fast kernels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model import winograd

RELU_GAIN = 1.4
BRANCH_GAIN = 0.2 * RELU_GAIN


class SameConv3(nn.Conv2d):
    """A same-size 3x3 convolution.

    Attributes:
        quick: compute by Winograd's algorithm where that is faster; for float32 on a CPU, with weights that no longer
            change. See :mod:`s2vc_model.winograd`.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 3, padding=1)
        self.quick = False
        self._filters: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H, W)."""
        pays = winograd.pays(self.in_channels, self.out_channels, *x.shape[2:])
        if not self.quick or not pays or torch.is_grad_enabled():
            return super().forward(x)
        assert self.bias is not None
        if self._filters is None:
            self._filters = winograd.transformed(self.weight)
        return winograd.convolve(x, self._filters, self.bias)


def conv(cin: int, cout: int, kernel: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A same-size convolution whose output variance is ``gain**2`` times its input's at start."""
    layer = SameConv3(cin, cout) if kernel == 3 else nn.Conv2d(cin, cout, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(cin * kernel * kernel))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.1, in place."""
    return F.leaky_relu(x, 0.1, inplace=True)


def pixel_shuffle(x: Tensor, r: int) -> Tensor:
    """(B, C*r*r, H, W) -> (B, C, H*r, W*r), channel order (r, r, C), channels-last throughout."""
    b, c, h, w = x.shape
    o = c // (r * r)
    x = x.permute(0, 2, 3, 1).reshape(b, h, w, r, r, o).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * r, w * r, o).permute(0, 3, 1, 2)


def pixel_unshuffle(x: Tensor, r: int) -> Tensor:
    """(B, C, H, W) -> (B, r*r*C, H/r, W/r): the inverse of :func:`pixel_shuffle`."""
    b, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(b, h // r, r, w // r, r, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // r, w // r, r * r * c).permute(0, 3, 1, 2)


class Mix(nn.Module):
    """Residual block of a 3x3 and a 1x1 convolution: the workhorse of the transforms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = conv(channels, channels, 3, RELU_GAIN)
        self.b = conv(channels, channels, 1, BRANCH_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        out: Tensor = self.b(activate(self.a(x)))
        return out.add_(x)


class Res(nn.Module):
    """Residual block of two 3x3 convolutions, with a 1x1 skip when the width changes."""

    def __init__(self, cin: int, cout: int | None = None) -> None:
        super().__init__()
        cout = cout or cin
        self.skip: nn.Module = conv(cin, cout) if cin != cout else nn.Identity()
        self.a = conv(cin, cout, 3, RELU_GAIN)
        self.b = conv(cout, cout, 3, BRANCH_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H, W)."""
        out: Tensor = self.b(activate(self.a(x)))
        return out.add_(self.skip(x))


class Up(nn.Module):
    """1x1 convolution and pixel shuffle by 2."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.proj = conv(cin, cout * 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, 2H, 2W)."""
        return pixel_shuffle(self.proj(x), 2)


class Down(nn.Module):
    """Pixel unshuffle by 2 and 1x1 convolution. H and W must be even."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.proj = conv(cin * 4, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H/2, W/2)."""
        out: Tensor = self.proj(pixel_unshuffle(x, 2))
        return out


def trunk(channels: int, blocks: int) -> nn.Sequential:
    """``blocks`` :class:`Mix` blocks in a row."""
    return nn.Sequential(*(Mix(channels) for _ in range(blocks)))


class CrossAttention(nn.Module):
    """Pre-normalised cross-attention from image positions to tokens; starts as the identity."""

    def __init__(self, channels: int, tokens: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(tokens, 2 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (B, C, H, W), tokens (B, N, T) -> (B, C, H, W)."""
        b, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        normed = F.rms_norm(rows.float(), (c,)).to(rows.dtype)
        q = self.query(normed).view(b, -1, self.heads, c // self.heads).transpose(1, 2)
        kv = self.key_value(tokens).view(b, -1, 2, self.heads, c // self.heads)
        k, v = kv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        out: Tensor = x + self.out(seen).view(b, h, w, c).permute(0, 3, 1, 2)
        return out


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with its right and lower edges repeated until H and W are multiples of ``multiple``."""
    h, w = x.shape[2:]
    right, below = -w % multiple, -h % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if right or below else x


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample ``x`` at positions displaced by ``flow``, bilinearly, edges repeated.

    Args:
        x: (B, C, H, W).
        flow: (B, 2, H, W), displacement (dx, dy) in cells of ``x``: out[p] = x[p + flow[p]].

    Returns:
        (B, C, H, W), in ``x``'s dtype.
    """
    h, w = x.shape[2:]
    gx = torch.arange(w, device=x.device, dtype=torch.float32) + 0.5
    gy = torch.arange(h, device=x.device, dtype=torch.float32) + 0.5
    sx = (flow[:, 0].float() + gx) * (2.0 / w) - 1
    sy = (flow[:, 1].float() + gy[:, None]) * (2.0 / h) - 1
    grid = torch.stack((sx, sy), -1)
    moved = F.grid_sample(x.float(), grid, "bilinear", "border", align_corners=False)
    return moved.to(x.dtype)


def resize_flow(flow: Tensor, factor: int) -> Tensor:
    """Bilinearly enlarge a flow field by ``factor`` without changing its unit."""
    # Two channels laid out last take four times as long.
    return F.interpolate(flow.float().contiguous(), scale_factor=factor, mode="bilinear", align_corners=False)
