"""The best pictures a network can show: first frames whose latents are not rounded, beside the highest quality's.

Where the two are close, no rate will help, and the transforms and the generator are what must get better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from s2vc_model.config import QUALITIES
from s2vc_model.metrics.lpips import Lpips
from s2vc_model.network import S2vcNetwork
from s2vc_model.train.data import BankConfig, load_frames
from s2vc_model.train.rate import intra_step, uncoded_step

LINES = 288


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One first frame, (LPIPS-alex, PSNR in dB) each: not rounded, and of the highest quality, as decoded."""

    name: str
    open: tuple[float, float]
    coded: tuple[float, float]


@torch.no_grad()
def ceilings(network: S2vcNetwork, files: Iterable[Path]) -> Iterator[Ceiling]:
    """Measure the first frame of each clip or photo at up to 288 lines; what cannot be read is left out."""
    device = next(network.parameters()).device
    lpips = Lpips("alex").to(device).eval()
    q = torch.tensor([QUALITIES - 1], device=device)
    config = BankConfig(max_frames=1, clip_side=LINES, photo_side=LINES, min_side=64)
    for file in sorted(files):
        loaded = load_frames(file, config)
        if isinstance(loaded, str):
            continue
        frame = torch.from_numpy(loaded[0][:1]).to(device)
        height, width = (side // 64 * 64 for side in frame.shape[1:3])
        x = (frame[:, :height, :width].float() / 127.5 - 1).permute(0, 3, 1, 2)
        pictures = uncoded_step(network, x)[0], intra_step(network, x, q)[0]
        yield Ceiling(file.name, *(_scores(lpips, x, p.clamp(-1, 1)) for p in pictures))


def _scores(lpips: Lpips, x: Tensor, picture: Tensor) -> tuple[float, float]:
    error = (picture - x).square().mean() / 4
    return float(lpips(x, picture)), float(-10 * torch.log10(error))
