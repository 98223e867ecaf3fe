"""The VAE's decoder within a given memory: its last, largest steps tile by tile, equal to the whole picture.

    z ─ convolution, middle block ─ steps: residual blocks, upsamplers ─┬─ whole, while a step fits ─┬─ picture
                                                                        └─ the rest in tiles ────────┘

What a step takes grows with its channels and its scale. At Stable Diffusion's widths, in bytes per pixel of the
picture in bf16: 768 at half size (3 x 512 channels / 4: a residual block holds its input, the normalised and the
activated one), 1,152 for the last upsampler, and at most 1,536 at full size (3 x 256 channels). So a whole 4K frame
takes 12.7 GB and fits 24 GB beside 2.3 GB of weights; where less than 12 GB are free, the steps from the last
upsampler on go in tiles.

Tiles overlap by as much as a pixel can see, so all that a cut has touched is cut away. Only group norms look further.
Their statistics are gathered beforehand, norm by norm: every tile runs up to the first norm that is not known yet,
which adds up what its own share holds. That costs a partial pass for each norm behind the cut (seven at full size,
about four times their work) and makes the picture the same, but for rounding, whatever memory there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vc_model.memory import SHARE, free_bytes

CELL = 8
"""Pixels per latent cell."""
SMALL = 1 << 29
"""Pictures that take fewer bytes than this never ask how much is free."""
_USEFUL = 16
"""Fewest cells of a tile's side that are its own."""


def decode(vae: Any, latents: Tensor, free: int | None = None) -> Tensor:
    """Latents (B, S, h, w) -> pictures (B, 3, 8h, 8w), one after the other.

    Args:
        vae: an ``AutoencoderKL`` after :func:`share_norms`.
        free: bytes to stay within; ``None`` asks the device for pictures that are not small.
    """
    return torch.cat([_decode_one(vae, latent[None], free) for latent in latents])


def _decode_one(vae: Any, latent: Tensor, free: int | None) -> Tensor:
    h: Tensor = vae.decoder.mid_block(vae.decoder.conv_in(vae.post_quant_conv(latent)))
    steps = decoder_steps(vae.decoder)
    pixels = h.shape[2] * h.shape[3] * CELL**2
    if free is None:
        whole = max(step.bytes_per_pixel for step in steps) * h.element_size() * pixels
        free = free_bytes(h.device) if whole > SMALL else 2 * SMALL
    room = int(SHARE * free)
    for at, step in enumerate(steps):
        if step.bytes_per_pixel * h.element_size() * pixels > room:
            return in_tiles(steps[at:], h, tile_side(steps[at:], room, h.element_size()))
        h = step.run(h)
    return h


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the decoder behind its middle block.

    Attributes:
        module: a residual block, an upsampler, or the last norm and convolution.
        scale: picture pixels per cell of its input, along a side.
        zoom: how much larger its output is.
        convolutions: 3x3 convolutions in a row, at the output's scale.
        bytes_per_pixel: what it takes at its peak for each pixel of the picture, in bytes for one-byte numbers.
    """

    module: nn.Module
    scale: int
    zoom: int
    convolutions: int
    bytes_per_pixel: float

    def run(self, h: Tensor) -> Tensor:
        """(B, C, rows, columns) -> (B, C', zoom * rows, zoom * columns)."""
        out: Tensor = self.module(h, None)
        return out


def decoder_steps(decoder: Any) -> list[Step]:
    """What diffusers' ``Decoder`` does behind its middle block, step by step."""
    steps: list[Step] = []
    scale = CELL
    for block in decoder.up_blocks:
        steps += [Step(r, scale, 1, 2, 3 * r.in_channels / scale**2) for r in block.resnets]
        for upsampler in block.upsamplers or ():
            # Its input, and the enlarged one before and behind the convolution.
            steps.append(Step(upsampler, scale, 2, 1, (1 + 4 + 4) * upsampler.channels / scale**2))
            scale //= 2
    end = _End(decoder)
    return [*steps, Step(end, scale, 1, 1, 3 * decoder.conv_norm_out.num_channels / scale**2)]


class _End(nn.Module):
    """The decoder's last norm, activation and convolution."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.parts = (decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)

    def forward(self, h: Tensor, _: None) -> Tensor:
        for part in self.parts:
            h = part(h)
        return h


def reach(steps: list[Step]) -> int:
    """How far the result of ``steps`` sees, in cells of their input."""
    pixels = sum(step.convolutions * step.scale / step.zoom for step in steps)
    return math.ceil(pixels / steps[0].scale)


def tile_side(steps: list[Step], room: int, itemsize: int) -> int:
    """Side of the square tiles, margins included, in cells of the input, that ``room`` bytes hold."""
    cell = max(step.bytes_per_pixel for step in steps) * itemsize * steps[0].scale ** 2
    return max(math.isqrt(int(room / cell)), 2 * reach(steps) + _USEFUL)


def cut(length: int, side: int, margin: int) -> list[tuple[slice, slice]]:
    """(what a tile gives, what it must see) along one side; tiles give nearly equal shares."""
    count = -(-length // (side - 2 * margin))
    edges = [length * n // count for n in range(count + 1)]
    return [(slice(a, b), slice(max(a - margin, 0), min(b + margin, length))) for a, b in pairwise(edges)]


def in_tiles(steps: list[Step], h: Tensor, side: int) -> Tensor:
    """Run ``steps`` on ``h`` (1, C, rows, columns) in tiles of at most ``side`` cells."""
    margin, zoom = reach(steps), math.prod(step.zoom for step in steps)
    columns = cut(h.shape[3], side, margin)
    tiles = [_Tile(*rows, *across) for rows in cut(h.shape[2], side, margin) for across in columns]
    survey = _Survey()
    with survey.under_way():
        while survey.incomplete:
            survey.incomplete = False
            for survey.tile in tiles:
                try:
                    _run(steps, survey.tile.seen(h))
                except _NormUnknownError:
                    survey.incomplete = True
            survey.settle()
        out: Tensor | None = None
        for tile in tiles:
            picture = _run(steps, tile.seen(h))
            if out is None:
                out = picture.new_empty(1, picture.shape[1], h.shape[2] * zoom, h.shape[3] * zoom)
            out[:, :, _times(tile.rows, zoom), _times(tile.columns, zoom)] = tile.own(picture)
    assert out is not None
    return out


def _run(steps: list[Step], h: Tensor) -> Tensor:
    for step in steps:
        h = step.run(h)
    return h


@dataclass(frozen=True, slots=True)
class _Tile:
    """In cells: the rows and columns that it gives, and those that it must see."""

    rows: slice
    seen_rows: slice
    columns: slice
    seen_columns: slice

    def seen(self, h: Tensor) -> Tensor:
        return h[:, :, self.seen_rows, self.seen_columns]

    def own(self, x: Tensor) -> Tensor:
        """Its own share of what came of what it has seen, at any scale."""
        zoom = x.shape[2] // (self.seen_rows.stop - self.seen_rows.start)
        rows, columns = (
            slice(own.start - seen.start, own.stop - seen.start)
            for own, seen in ((self.rows, self.seen_rows), (self.columns, self.seen_columns))
        )
        return x[:, :, _times(rows, zoom), _times(columns, zoom)]


def _times(cells: slice, zoom: int) -> slice:
    return slice(cells.start * zoom, cells.stop * zoom)


class _NormUnknownError(Exception):
    """A tile has come to a norm whose statistics are still being gathered."""


@dataclass
class _Survey:
    """The statistics of one picture's norms, as far as they are known."""

    known: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Mean and variance of each group, (groups,)."""
    tile: _Tile | None = None
    incomplete: bool = True
    _norm: nn.Module | None = None
    _sums: list[Tensor] = field(default_factory=list)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Norms called inside, by this thread, take part."""
        token = _survey.set(self)
        try:
            yield
        finally:
            _survey.reset(token)

    def add(self, norm: nn.Module, grouped: Tensor) -> None:
        """Count a tile's share (1, groups, C, rows, columns) in."""
        variance, mean = torch.var_mean(grouped.float(), (0, 2, 3, 4), correction=0)
        variance, mean, count = variance.double(), mean.double(), grouped[0, 0].numel()
        self._norm = norm
        self._sums.append(count * torch.stack((torch.ones_like(mean), mean, variance + mean**2)))

    def settle(self) -> None:
        """All tiles have counted: the norm that they came to is known."""
        if self._norm is not None:
            count, first, second = torch.stack(self._sums).sum(0)
            mean = first / count
            self.known[self._norm] = mean.float(), (second / count - mean**2).float()
            self._norm, self._sums = None, []


_survey: ContextVar[_Survey | None] = ContextVar("_survey", default=None)


class PictureNorm(nn.GroupNorm):
    """A group norm over a whole picture, of which :func:`in_tiles` shows it one part after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        survey = _survey.get()
        if survey is None:
            return super().forward(x)
        if self not in survey.known:
            assert survey.tile is not None
            survey.add(self, survey.tile.own(x).unflatten(1, (self.num_groups, -1)))
            raise _NormUnknownError
        each = self.num_channels // self.num_groups
        mean, variance = (value.repeat_interleave(each) for value in survey.known[self])
        # A batch norm of given statistics: one pass over x, float32 inside.
        return F.batch_norm(x, mean, variance, self.weight.float(), self.bias.float(), False, 0.0, self.eps)


def share_norms(decoder: Any) -> None:
    """Make the group norms behind ``decoder``'s middle block :class:`PictureNorm`; tensors and names stay."""
    for name, norm in list(decoder.named_modules()):
        if type(norm) is nn.GroupNorm and not name.startswith("mid_block"):
            twin = PictureNorm(norm.num_groups, norm.num_channels, norm.eps, device="meta")
            twin.weight, twin.bias = norm.weight, norm.bias
            decoder.set_submodule(name, twin)
