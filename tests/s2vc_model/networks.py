"""A codec small enough for milliseconds, and exact references to check integers against. Nothing here is a test."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from s2vc_model.codec import S2vcCodec
from s2vc_model.config import CodecConfig
from s2vc_model.network import S2vcNetwork
from s2vc_model.picture_scale import PictureScales
from s2vc_model.tables import build_tables
from s2vc_model.weight_files import LoadedWeights, load_weights

AS_THEY_ARE = PictureScales()
"""No picture is coded larger."""
TINY = CodecConfig(
    preset="tiny",
    feature=16,
    middle=16,
    latent=8,
    hyper=4,
    prior=8,
    tokens=16,
    unet=(16, 16, 16),
    sample=16,
)


def tiny_network(seed: int = 0) -> S2vcNetwork:
    """A trainable network with random weights that use every path: no zero-started quality offset."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = S2vcNetwork(TINY)
        for prior in network.priors().values():
            torch.nn.init.normal_(prior.quality_bias, 0.0, 0.3)
            torch.nn.init.normal_(prior.z_mean, 0.0, 1.0)
            for layer in prior.layers().values():
                torch.nn.init.normal_(layer.bias, 0.0, 0.1)
    return network


def tiny_weights(seed: int = 0, scales: PictureScales = AS_THEY_ARE) -> LoadedWeights:
    """The same, frozen, as the codec takes it."""
    network = tiny_network(seed)
    tables = {kind: build_tables(prior) for kind, prior in network.priors().items()}
    network.freeze()
    return LoadedWeights(network.eval().requires_grad_(False), tables, f"{seed:064x}", {}, scales)


def tiny_codec(seed: int = 0) -> S2vcCodec:
    """A CPU codec of random weights."""
    return S2vcCodec(tiny_weights(seed), torch.device("cpu"))


def small_codec(lockstep: bool | None = None, half: bool | None = None) -> S2vcCodec:
    """The packaged model on a CPU, which codes no picture larger than it is."""
    weights = replace(load_weights("small"), scales=AS_THEY_ARE)
    return S2vcCodec(weights, torch.device("cpu"), lockstep, half)


def integer_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Same-size convolution in int64: (B, I, H, W), (O, I, k, k), (O,) -> (B, O, H, W)."""
    kernel = weight.shape[-1]
    padded = F.pad(x.long(), (kernel // 2,) * 4)
    height, width = x.shape[2:]
    total = bias.long().view(1, -1, 1, 1).repeat(x.shape[0], 1, height, width)
    for dy in range(kernel):
        for dx in range(kernel):
            seen = padded[:, None, :, dy : dy + height, dx : dx + width]
            total += (seen * weight[None, :, :, dy, dx, None, None].long()).sum(2)
    return total
