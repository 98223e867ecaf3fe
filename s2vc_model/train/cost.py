"""What a configuration costs: parameters, and operations per frame by part. Nothing is computed, only counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from s2vc_model.config import CodecConfig
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.rate import inter_step, intra_step

_PARTS = {"semantic head": "semantic", "U-Net": "unet", "pixel decoder": "decoder"}


@dataclass(frozen=True, slots=True)
class FrameCost:
    """Cost of encoding and decoding one frame once.

    Attributes:
        parameters: of all networks.
        gflop: 10**9 operations, a multiply-add counting as two, by part; ``codec`` is all but the generator.
    """

    parameters: int
    gflop: dict[str, float]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in self.gflop.items())
        return f"{self.parameters / 1e6:.1f} M parameters, {sum(self.gflop.values()):.1f} GFLOP ({parts})"


def frame_cost(config: CodecConfig, height: int, width: int, *, inter: bool) -> FrameCost:
    """Cost of a GOP's first (or, ``inter``, a later) frame of ``height`` x ``width`` pixels, multiples of 64.

    For ``small``'s kind of generator.
    """
    with torch.device("meta"), torch.no_grad():
        network = S2vcNetwork(config)
        x, q = torch.empty(1, 3, height, width), torch.zeros(1, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            _, state, _ = intra_step(network, x, q)
        if inter:
            with FlopCounterMode(display=False) as counter:
                inter_step(network, x, q, state, torch.empty(1, 2, height // 16, width // 16))
    counts = {name: sum(found.values()) / 1e9 for name, found in counter.get_flop_counts().items()}
    generator = {part: counts.get(f"SmallGenerator.{name}", 0.0) for part, name in _PARTS.items()}
    generator["its other layers"] = counts["SmallGenerator"] - sum(generator.values())
    parameters = sum(p.numel() for p in network.parameters())
    return FrameCost(parameters, {"codec": counts["Global"] - counts["SmallGenerator"], **generator})
