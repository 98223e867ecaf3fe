"""Latents to symbols and back: the two passes of one frame, over a batch of GOPs.

Everything here that reaches a probability is integer-valued float32 outside autocast; see `integer` and `prior`. The
encoder runs the same decoding functions as the decoder on the symbols it chose, so both see the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2vc_model.entropy import Coder, StreamReader
from s2vc_model.integer import ACTIVATION_MAX, STEPS
from s2vc_model.prior import RESIDUAL_MAX, SCALES, SKIP_BELOW, Prior, checkerboard

Symbols = npt.NDArray[np.int32]
Block = tuple[Symbols, Symbols]
"""Symbols and the table row of each."""
Residuals = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(means in 1/16 step, scale indexes, where this pass codes) -> integer residuals, all (B, Y, h, w)."""
HYPER_MAX = ACTIVATION_MAX
_KNUTH, _WORD = 2654435761, (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class DecodedLatents:
    """What encoder and decoder both hold of a frame once its symbols are known.

    Attributes:
        values: the dequantised latent in its own unit (B, Y, h, w), float.
        state: the temporal prior's next state, integers.
        digests: 32 bits over every integer of the frame, means included, for each GOP.
    """

    values: Tensor
    state: Tensor
    digests: list[int]


def encode_frame(
    prior: Prior, y: Tensor, z: Tensor, q: Tensor, state: Tensor | None
) -> tuple[list[list[Block]], DecodedLatents]:
    """Choose and list the symbols of one frame of every GOP.

    Args:
        y: (B, Y, h, w) float32, in its own unit.
        z: (B, Z, ceil(h/4), ceil(w/4)) float32.
        q: rows of the quality tables (B,).
        state: the temporal prior's state, or ``None``.

    Returns:
        Blocks to code for each GOP (hyper-latents, pass 0, pass 1), and what the decoder will hold.
    """
    with torch.autocast(y.device.type, enabled=False):
        symbols = torch.round(z).clamp(-HYPER_MAX, HYPER_MAX)
        target = y * prior.quantiser(q)
        first = checkerboard(y.shape[1], y.shape[2], y.shape[3], y.device)
        blocks = [[block] for block in hyper_blocks(symbols)]

        def choose(mean: Tensor, index: Tensor, where: Tensor) -> Tensor:
            residual = torch.round(target - mean / STEPS).clamp(-RESIDUAL_MAX, RESIDUAL_MAX)
            residual = torch.where(index < SKIP_BELOW, torch.zeros_like(residual), residual)
            coded = where & (index >= SKIP_BELOW)
            for mine, block in zip(blocks, _gather(residual, index, coded), strict=True):
                mine.append(block)
            return residual

        return blocks, two_passes(prior, symbols, q, state, first, choose)


def decode_frame(
    prior: Prior,
    coder: Coder,
    streams: list[StreamReader],
    size: tuple[int, int],
    q: Tensor,
    state: Tensor | None,
    device: torch.device,
) -> DecodedLatents:
    """Inverse of :func:`encode_frame`: read a frame of every GOP; ``size`` is (h, w) of the latent."""
    with torch.autocast(device.type, enabled=False):
        h, w = size
        channels = len(coder.cdf) - SCALES
        below, across = -(-h // 4), -(-w // 4)
        rows = hyper_rows(channels, below * across)
        read = np.stack([stream.take(rows, coder) for stream in streams])
        hyper = read.reshape(len(streams), channels, below, across)
        symbols = torch.from_numpy(hyper).to(device).float()
        first = checkerboard(prior.latent, h, w, device)

        def fetch(mean: Tensor, index: Tensor, where: Tensor) -> Tensor:
            coded = where & (index >= SKIP_BELOW)
            found = coded.cpu()
            out = torch.zeros(index.shape, dtype=torch.int32)
            table = index.to(torch.int32).cpu()
            for n, stream in enumerate(streams):
                out[n][found[n]] = torch.from_numpy(stream.take(table[n][found[n]].numpy(), coder))
            return out.to(device).float()

        return two_passes(prior, symbols, q, state, first, fetch)


def two_passes(
    prior: Prior, hyper: Tensor, q: Tensor, state: Tensor | None, first: Tensor, residuals: Residuals
) -> DecodedLatents:
    """Run both passes; ``residuals(mean, index, where)`` supplies a pass's integers."""
    features = prior.hyper(hyper, (first.shape[2], first.shape[3]))
    hidden, raw = prior.first(features, state, q)
    mean, index = prior.distribution(raw, q)
    fixed = torch.where(first, residuals(mean, index, first) * STEPS + mean, torch.zeros_like(mean))
    raw = prior.second(prior.to_activation(fixed, q), hidden)
    mean, index = prior.distribution(raw, q)
    fixed = torch.where(first, fixed, residuals(mean, index, ~first) * STEPS + mean)
    following = prior.advance(prior.to_activation(fixed, q), state)
    return DecodedLatents(fixed / STEPS / prior.quantiser(q), following, digests(hyper, fixed))


def digests(hyper: Tensor, fixed: Tensor) -> list[int]:
    """32 bits per GOP over the hyper-latents and the latents in 1/16 quantiser step.

    A sum modulo 2**32 with an odd weight per position: any one changed integer changes it, it sees the means that no
    coded symbol shows, and it is exact and the same in any order of summation, so a GPU can compute it in place.
    """
    rows = torch.cat((hyper.flatten(1), fixed.flatten(1)), 1).long()
    weights = (torch.arange(rows.shape[1], device=rows.device) * _KNUTH & _WORD) | 1
    sums: list[int] = ((rows * weights) & _WORD).sum(1).tolist()
    return [value & _WORD for value in sums]


def hyper_rows(channels: int, positions: int) -> Symbols:
    """Table rows of hyper-latents in coded order: channel by channel."""
    return np.repeat(np.arange(SCALES, SCALES + channels, dtype=np.int32), positions)


def hyper_blocks(symbols: Tensor) -> list[Block]:
    """Hyper-latents (B, Z, h, w) as one block per GOP."""
    b, channels, h, w = symbols.shape
    values = symbols.to(torch.int32).reshape(b, -1).cpu().numpy()
    rows = hyper_rows(channels, h * w)
    return [(row, rows) for row in values]


def _gather(residual: Tensor, index: Tensor, coded: Tensor) -> list[Block]:
    values, rows, found = residual.to(torch.int32).cpu(), index.to(torch.int32).cpu(), coded.cpu()
    return [(v[f].numpy(), r[f].numpy()) for v, r, f in zip(values, rows, found, strict=True)]
