"""Decoding with the VAE within a given memory: the last blocks tile by tile, without seams.

    z ── front: convolution, middle block ── h at 1/8, whole ── back: four up blocks ── picture, whole or in tiles

Only the back is large. At Stable Diffusion's widths its peak is the first residual block at full size, which holds its
input, the normalised and the activated input at once: 3 x 256 channels, 1,536 bytes a pixel in bf16. A whole 4K frame
takes 12.7 GB and 1080p 3.2 GB, in float32 twice that; with 2.4 GB of weights and the buffers of a GOP a 4K frame is
decoded whole within 24 GB. Where less is free, tiles overlap by as much as a pixel can see, so that what is cut away at
a seam is all that the cut has touched. The group norms alone look at the whole picture: their statistics are measured
beforehand, together over patches spread over it at its own scale, as many as a tile's memory holds, and every tile uses
them. Given the same statistics tiles and whole pictures are equal; what the sampling costs is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model.memory import free_bytes

CELL = 8
"""Pixels per latent cell."""
SHARE = 0.8
"""Share of the free memory to plan with; the rest is for convolutions' workspaces and fragmentation."""
SMALL = 1 << 29
"""Pictures that need less bytes than this never ask how much is free."""
PATCH = 48
"""Side in cells of the patches that statistics are measured on; a sixth at each edge is left out."""

Statistics = dict[nn.Module, tuple[Tensor, Tensor]]
"""Mean and variance of each group of each norm, (groups,) float32."""
_statistics: ContextVar[Statistics | None] = ContextVar("_statistics", default=None)


class PictureNorm(nn.GroupNorm):
    """A group norm over one whole picture of which a call may see a part. Same weights, same names."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; inside :func:`shared` all of it counts as one picture."""
        known = _statistics.get()
        if known is None:
            return super().forward(x)
        if self not in known:
            known[self] = self._measure(x)
        each = self.num_channels // self.num_groups
        mean, variance = (value.repeat_interleave(each) for value in known[self])
        # A batch norm with given statistics is one pass over x, with float32 inside.
        return F.batch_norm(x, mean, variance, self.weight.float(), self.bias.float(), False, 0.0, self.eps)

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, w = (side // 6 if side < PATCH * CELL * 2 else 0 for side in x.shape[2:])
        inner = x[:, :, h : x.shape[2] - h, w : x.shape[3] - w].unflatten(1, (self.num_groups, -1)).float()
        variance, mean = torch.var_mean(inner, (0, 2, 3, 4), correction=0)
        return mean, variance


@contextmanager
def shared(statistics: Statistics) -> Iterator[None]:
    """Every :class:`PictureNorm` takes its statistics from here, and leaves those that are missing. Per thread."""
    token = _statistics.set(statistics)
    try:
        yield
    finally:
        _statistics.reset(token)


def share_norms(decoder: Any) -> None:
    """Make the group norms of ``decoder``'s back :class:`PictureNorm`; its tensors and their names stay."""
    for name, norm in list(decoder.named_modules()):
        if type(norm) is nn.GroupNorm and not name.startswith("mid_block"):
            twin = PictureNorm(norm.num_groups, norm.num_channels, norm.eps, device="meta")
            twin.weight, twin.bias = norm.weight, norm.bias
            decoder.set_submodule(name, twin)


def decode(vae: Any, latents: Tensor, free: int | None = None) -> Tensor:
    """Latents (B, S, h, w) -> pictures (B, 3, 8h, 8w), one at a time.

    Args:
        vae: an ``AutoencoderKL`` after :func:`share_norms`.
        free: bytes to stay within; ``None`` asks the device for pictures that are not small.
    """
    return torch.cat([_decode_one(vae, latent[None], free) for latent in latents])


def _decode_one(vae: Any, latent: Tensor, free: int | None) -> Tensor:
    decoder = vae.decoder
    h = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latent)))
    rows, columns = h.shape[2:]
    need = pixel_bytes(decoder, h.element_size()) * CELL * CELL
    if free is None and need * rows * columns > SMALL:
        free = free_bytes(h.device)
    if free is None or need * rows * columns <= SHARE * free:
        return back(decoder, h)
    side = tile_side(int(SHARE * free) // need, reach(decoder))
    statistics: Statistics = {}
    with shared(statistics):
        back(decoder, patches(h, side * side))
        return in_tiles(decoder, h, side)


def pixel_bytes(decoder: Any, itemsize: int) -> int:
    """Bytes that the back takes at its peak for each pixel of the picture."""
    wide: list[int] = [block.resnets[0].in_channels for block in decoder.up_blocks]
    last = len(wide) - 1
    peaks: list[int] = [math.ceil(3 * c * itemsize / 4 ** (last - level)) for level, c in enumerate(wide)]
    return max(peaks)


def reach(decoder: Any) -> int:
    """How far a pixel of the picture sees in the back, in cells."""
    cells = 0.0
    for level, block in enumerate(decoder.up_blocks):
        cells += 2 * len(block.resnets) / 2**level
        cells += len(block.upsamplers or ()) / 2 ** (level + 1)
    return math.ceil(cells + 1 / CELL)


def tile_side(cells: int, margin: int) -> int:
    """Side of the square tiles, margins included, that ``cells`` of memory hold, never below one useful size."""
    return max(math.isqrt(max(cells, 0)), 2 * margin + 16)


def cut(length: int, side: int, margin: int) -> list[tuple[slice, slice]]:
    """(what a tile gives, what it must see) along one side; tiles give equal shares."""
    count = -(-length // max(side - 2 * margin, 1))
    edges = [length * n // count for n in range(count + 1)]
    return [(slice(a, b), slice(max(a - margin, 0), min(b + margin, length))) for a, b in pairwise(edges)]


def in_tiles(decoder: Any, h: Tensor, side: int) -> Tensor:
    """The back over ``h`` (1, C, rows, columns) in tiles of at most ``side`` cells, norms as :func:`shared`."""
    margin = reach(decoder)
    rows, columns = h.shape[2:]
    out = h.new_empty(1, decoder.conv_out.out_channels, rows * CELL, columns * CELL)
    for down, seen_down in cut(rows, side, margin):
        for across, seen_across in cut(columns, side, margin):
            tile = back(decoder, h[:, :, seen_down, seen_across])
            own = tile[:, :, _inside(down, seen_down), _inside(across, seen_across)]
            out[:, :, _pixels(down), _pixels(across)] = own
    return out


def patches(h: Tensor, cells: int) -> Tensor:
    """Patches of ``h`` (1, C, rows, columns) as a batch, spread evenly, of at most ``cells`` in all."""
    sides = [min(PATCH, n) for n in h.shape[2:]]
    most = max(1, cells // (sides[0] * sides[1]))
    ratio = h.shape[3] / h.shape[2]
    down = max(1, min(-(-h.shape[2] // sides[0]), math.isqrt(max(1, int(most / ratio)))))
    across = max(1, min(-(-h.shape[3] // sides[1]), most // down))
    starts = [
        _spread(n - side, count) for n, side, count in zip(h.shape[2:], sides, (down, across), strict=True)
    ]
    return torch.cat([h[:, :, y : y + sides[0], x : x + sides[1]] for y in starts[0] for x in starts[1]])


def back(decoder: Any, h: Tensor) -> Tensor:
    """diffusers' decoder from behind its middle block: (B, C, h, w) -> (B, 3, 8h, 8w)."""
    for block in decoder.up_blocks:
        h = block(h)
    out: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(h)))
    return out


def _spread(room: int, count: int) -> list[int]:
    return [room // 2] if count == 1 else [room * n // (count - 1) for n in range(count)]


def _pixels(cells: slice) -> slice:
    return slice(cells.start * CELL, cells.stop * CELL)


def _inside(cells: slice, seen: slice) -> slice:
    return _pixels(slice(cells.start - seen.start, cells.stop - seen.start))
