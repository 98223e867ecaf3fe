"""Training one part alone, while the rest is frozen and codes as the codec does, with exact integers.

The generator, on what a decoder would give it: no symbol depends on it, so it learns without a changed bit in any
stream. Or the analysis of first pictures, against decoders as they are: every stream coded before stays readable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from s2vc_model.integer import STEPS, requantise
from s2vc_model.latents import encode_frame
from s2vc_model.network import S2vcNetwork
from s2vc_model.state import FeatureBuffer, GopState
from s2vc_model.train.rate import estimate
from s2vc_model.train.recipe import Stage


@contextmanager
def learning_alone(net: S2vcNetwork, stage: Stage) -> Iterator[None]:
    """Inside, the one part that ``stage`` names learns, if it names one, beside priors that are exact integers.

    Afterwards all learns as before.
    """
    if not stage.alone:
        yield
        return
    parts = [net.generator] if stage.generator_only else [net.intra.analysis, net.intra.hyper]
    chosen = {id(p) for part in parts for p in part.parameters()}
    net.freeze()
    still = [p for p in net.parameters() if p.requires_grad and id(p) not in chosen]
    for p in still:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for prior in net.priors().values():
            prior.thaw()
        for p in still:
            p.requires_grad_(True)


@torch.no_grad()
def decoded_buffer(
    net: S2vcNetwork, x: Tensor, q: Tensor, state: GopState | None, motion: Tensor
) -> tuple[FeatureBuffer, Tensor]:
    """What a decoder holds of a frame, from the symbols that the encoder chooses for it.

    Args:
        net: frozen.
        x: (B, 3, H, W) in [-1, 1].
        q: quality indexes (B,).
        state: after the frame before; ``None`` for a GOP's first frame.
        motion: searched block motion (B, 2, H/16, W/16) in pixels.

    Returns:
        The feature buffer, and the prior's next state.
    """
    if state is None:
        y = net.intra.analysis(x)
        _, latents = encode_frame(net.intra_prior, y.float(), net.intra.hyper(y).float(), q, None)
        return net.intra.synthesis(latents.values), latents.state
    feature = net.inter.extract(state.buffer.feature)
    y = net.inter.encode(x, state.buffer, feature, motion)
    _, latents = encode_frame(net.inter_prior, y.float(), net.inter.hyper(y).float(), q, state.prior)
    buffer, _ = net.inter.synthesis(latents.values, state.buffer, feature)
    return buffer, latents.state


def finish_step(
    net: S2vcNetwork, x: Tensor, q: Tensor, state: GopState | None, motion: Tensor
) -> tuple[Tensor, GopState]:
    """A frame as it would be decoded, and the state after it; gradients reach the generator only.

    Takes what :func:`decoded_buffer` takes.
    """
    buffer, prior = decoded_buffer(net, x, q, state, motion)
    picture, diffusion = net.generator(buffer, state.diffusion if state else None)
    return picture, GopState(buffer, prior, diffusion)


def analysis_step(net: S2vcNetwork, x: Tensor, q: Tensor) -> tuple[Tensor, GopState, Tensor]:
    """A first frame as it would be decoded, the state after it, and its bits (B,), not yet rounded.

    Gradients reach the analysis through the decoder and through rounding. Takes what :func:`decoded_buffer` takes.
    """
    y = net.intra.analysis(x)
    z = net.intra.hyper(y)
    prior = net.intra_prior
    with torch.autocast(x.device.type, enabled=False):
        scale = prior.quantiser(q)
        latent, bits, _ = estimate(prior, y.float() * scale, scale, z.float(), q)
        following = prior.advance(requantise(latent * STEPS), None)
    buffer = net.intra.synthesis(latent)
    picture, diffusion = net.generator(buffer, None)
    return picture, GopState(buffer, following, diffusion), bits
