"""A trained network of ``small``'s kind, made wider or deeper in its pixel decoder without changing one picture.

New channels read what old ones read and start unread; new residual blocks start as the identity. So training goes on
from where it was instead of from nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from s2vc_model.config import CodecConfig
from s2vc_model.errors import WeightsError
from s2vc_model.generator import PixelDecoder
from s2vc_model.layers import Res, Up
from s2vc_model.network import S2vcNetwork


@torch.no_grad()
def widen(trained: S2vcNetwork, config: CodecConfig) -> S2vcNetwork:
    """A network of ``config`` that decodes what ``trained`` does.

    Raises:
        WeightsError: the two differ in more than a pixel decoder that grows.
    """
    old = trained.config
    same = replace(config, preset=old.preset, decoder=old.decoder, decoder_blocks=old.decoder_blocks)
    shrinks = any(a < b for a, b in zip(config.decoder, old.decoder, strict=True)) or any(
        a < b for a, b in zip(config.decoder_blocks, old.decoder_blocks, strict=True)
    )
    if same != old or shrinks or config.generator != "small":
        raise WeightsError(
            f"{old.preset} cannot be widened to {config.preset}: only decoder and decoder_blocks may differ, and grow"
        )
    network = S2vcNetwork(config)
    kept = {k: v for k, v in trained.state_dict().items() if not k.startswith("generator.decoder.")}
    network.load_state_dict(kept, strict=False)
    _widen_decoder(trained.generator.decoder, network.generator.decoder)
    return network


def _widen_decoder(old: PixelDecoder, new: PixelDecoder) -> None:
    for name in ("eighth", "linear", "mask"):
        getattr(new, name).load_state_dict(getattr(old, name).state_dict())
    scales = list(_scales(old)), list(_scales(new))
    for (old_up, old_blocks), (new_up, new_blocks) in zip(*scales, strict=True):
        _widen(old_up.proj, new_up.proj, groups=4)
        for a, b in zip(old_blocks, new_blocks, strict=False):
            _widen(a.a, b.a)
            _widen(a.b, b.b)
        for added in new_blocks[len(old_blocks) :]:
            nn.init.zeros_(added.b.weight)
    _widen(old.out, new.out)


def _scales(decoder: PixelDecoder) -> list[tuple[Up, list[Res]]]:
    """Each upsampling with the blocks behind it."""
    found: list[tuple[Up, list[Res]]] = []
    for module in decoder.rest:
        if isinstance(module, Up):
            found.append((module, []))
        elif isinstance(module, Res):
            found[-1][1].append(module)
    return found


def _widen(old: nn.Conv2d, new: nn.Conv2d, groups: int = 1) -> None:
    """Old outputs come first (in each of ``groups`` equal parts) and read nothing of the inputs that are new."""
    assert old.bias is not None
    assert new.bias is not None
    _first(new.bias, groups)[:, : old.out_channels // groups] = _first(old.bias, groups)
    rows = _first(new.weight, groups)[:, : old.out_channels // groups]
    rows[:, :, old.in_channels :] = 0
    rows[:, :, : old.in_channels] = _first(old.weight, groups)


def _first(tensor: Tensor, groups: int) -> Tensor:
    return tensor.view(groups, tensor.shape[0] // groups, *tensor.shape[1:])
