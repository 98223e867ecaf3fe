"""Training the generator alone, on what a decoder would give it: the rest is frozen and codes as the codec does.

No symbol depends on the generator, so it can learn further without a changed bit in any stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from s2vc_model.latents import encode_frame
from s2vc_model.network import S2vcNetwork
from s2vc_model.state import FeatureBuffer, GopState


@contextmanager
def frozen_codec(net: S2vcNetwork) -> Iterator[None]:
    """Inside, all but the generator is frozen, and the priors are exact integers; afterwards it learns as before."""
    net.freeze()
    parts = (net.intra, net.inter, net.intra_prior, net.inter_prior)
    learning = [p for part in parts for p in part.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for prior in net.priors().values():
            prior.thaw()
        for p in learning:
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
