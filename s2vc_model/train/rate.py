"""One frame as training sees it: through the priors (noise for the rate, straight-through rounding for the
reconstruction), or past them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from s2vc_model.integer import ACTIVATION_MAX, STEPS, requantise, round_through
from s2vc_model.network import S2vcNetwork
from s2vc_model.prior import OCTAVE_ZERO, PER_OCTAVE, SKIP_BELOW, Prior, checkerboard
from s2vc_model.state import GopState
from s2vc_model.transforms import HyperAnalysis

_LN2 = math.log(2.0)
_EACH = (1, 2, 3)


def laplace_bits(distance: Tensor, scale: Tensor) -> Tensor:
    """Bits of the unit-wide bin at ``distance`` from the mean of a Laplace of the given scale.

    Closed form in the log domain, so its gradient survives however far out the bin lies.
    """
    d, inverse = distance.abs(), 1 / scale
    inner = 1 - torch.exp(-0.5 * inverse) * torch.cosh(d.clamp(max=0.5) * inverse).clamp(max=1e30)
    outer = _LN2 + (d - 0.5).clamp_min(0) * inverse - torch.log(-torch.expm1(-inverse))
    return torch.where(d < 0.5, -torch.log(inner.clamp_min(1e-9)), outer) / _LN2


def _noisy(x: Tensor) -> Tensor:
    return x + torch.rand_like(x) - 0.5


def coded(
    prior: Prior, hyper: HyperAnalysis, y: Tensor, q: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Pass a latent through quantisation and the priors.

    Args:
        y: latent in its own unit (B, Y, h, w).
        q: quality indexes (B,).
        state: the temporal prior's state, or ``None``.

    Returns:
        Dequantised latent, the next state, and estimated bits per sample (B,).
    """
    z = hyper(y).float()
    bits = laplace_bits(_noisy(z) - prior.z_mean[:, None, None], torch.exp(prior.z_log_scale)[:, None, None] + 0.03)
    total = bits.sum(_EACH)
    h = prior.hyper(round_through(z).to(y.dtype), (y.shape[2], y.shape[3]))
    hidden, raw = prior.first(h, state, q)
    scale = prior.scales(q)
    octaves = torch.log2(scale)
    target = y.float() * scale
    first = checkerboard(y.shape[1], y.shape[2], y.shape[3], y.device)

    def one(raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log2 = (raw.float() / 256).chunk(2, 1)
        residual = target - mean * scale
        width = torch.exp2((log2 + octaves).clamp(-OCTAVE_ZERO, 6.2))
        return round_through(residual) + mean * scale, laplace_bits(_noisy(residual), width)

    y0, bits0 = one(raw)
    y0 = torch.where(first, y0, torch.zeros_like(y0))
    y1, bits1 = one(prior.second(requantise(y0 / scale * STEPS).to(y.dtype), hidden))
    total = total + torch.where(first, bits0, bits1).sum(_EACH)
    decoded = (torch.where(first, y0, y1) / scale).to(y.dtype)
    return decoded, prior.advance(requantise(decoded * STEPS), state), total


def estimate(
    prior: Prior, target: Tensor, scale: Tensor, z: Tensor, q: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents as they would be decoded, and what they would cost.

    Args:
        prior: of first frames, frozen.
        target: latents in quantiser steps (B, Y, h, w).
        scale: ``prior.quantiser(q)``.
        z: hyper-latents (B, Z, ceil(h/4), ceil(w/4)).

    Returns:
        Dequantised latents, through which gradients pass straight; bits (B,) of what is not yet rounded, which pull
        small residuals to zero; and bits (B,) of what is. The two passes are those of
        `s2vc_model.latents.two_passes`, with means and scales not rounded, so that gradients reach them.
    """
    symbols = round_through(z)
    mean, width = prior.z_mean[:, None, None], torch.exp(prior.z_log_scale)[:, None, None] + 0.03
    soft, bits = (laplace_bits(value - mean, width).sum(_EACH) for value in (z, symbols.detach()))
    hidden, raw = prior.first(prior.hyper(symbols, (target.shape[2], target.shape[3])), None, q)
    octaves = torch.log2(scale)
    first = checkerboard(target.shape[1], target.shape[2], target.shape[3], target.device)

    def coded(raw: Tensor, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means, log2 = (raw / 256).chunk(2, 1)
        place = log2 + octaves
        counts = where & ((place + OCTAVE_ZERO) * PER_OCTAVE >= SKIP_BELOW - 0.5)
        residual = target - means * scale
        rounded = torch.where(counts, round_through(residual), torch.zeros_like(residual))
        spread = torch.exp2(place.clamp(-OCTAVE_ZERO, 6.2))
        costs = (laplace_bits(value, spread) for value in (residual, rounded.detach()))
        soft, bits = (torch.where(counts, cost, torch.zeros_like(cost)).sum(_EACH) for cost in costs)
        return rounded + means * scale, soft, bits

    zero = torch.zeros_like(target)
    early, soft0, bits0 = coded(raw, first)
    early = torch.where(first, early, zero)
    late, soft1, bits1 = coded(prior.second(requantise(early / scale * STEPS), hidden), ~first)
    return torch.where(first, early, late) / scale, soft + soft0 + soft1, bits + bits0 + bits1


def intra_step(net: S2vcNetwork, x: Tensor, q: Tensor) -> tuple[Tensor, GopState, Tensor]:
    """First frame of a clip: x (B, 3, H, W) in [-1, 1] -> picture, state, bits (B,)."""
    y, prior_state, bits = coded(net.intra_prior, net.intra.hyper, net.intra.analysis(x), q, None)
    buffer = net.intra.synthesis(y)
    picture, diffusion = net.generator(buffer, None)
    return picture, GopState(buffer, prior_state, diffusion), bits


def uncoded_step(net: S2vcNetwork, x: Tensor) -> tuple[Tensor, GopState, Tensor, Tensor]:
    """First frame of a clip past the priors: the latent reaches the decoder as it is, for no bits.

    Also returns by how much latents lie, in the mean, outside the integers that the priors can be told of, which
    nothing else would keep them from leaving.
    """
    y = net.intra.analysis(x)
    buffer = net.intra.synthesis(y)
    picture, diffusion = net.generator(buffer, None)
    outside = (y.float().abs() - ACTIVATION_MAX / STEPS).clamp_min(0).mean()
    nothing = torch.zeros(x.shape[0], device=x.device)
    return picture, GopState(buffer, y.detach(), diffusion), nothing, outside


def inter_step(
    net: S2vcNetwork, x: Tensor, q: Tensor, state: GopState, motion: Tensor
) -> tuple[Tensor, GopState, Tensor, Tensor]:
    """Later frame: adds the searched motion (B, 2, H/16, W/16) and returns the moved light picture last."""
    feature = net.inter.extract(state.buffer.feature)
    y = net.inter.encode(x, state.buffer, feature, motion)
    y, prior_state, bits = coded(net.inter_prior, net.inter.hyper, y, q, state.prior)
    buffer, moved = net.inter.synthesis(y, state.buffer, feature)
    picture, diffusion = net.generator(buffer, state.diffusion)
    return picture, GopState(buffer, prior_state, diffusion), bits, moved


def detached(state: GopState) -> GopState:
    """The state without gradient history, to carry from one chunk of a stream to the next."""
    diffusion = state.diffusion.detach() if state.diffusion is not None else None
    return GopState(state.buffer.detach(), state.prior.detach(), diffusion)


