"""How much memory a GOP takes while it is coded, how much a device has left, and so how many go together.

Peaks are proportional to the padded frame and to the number of GOPs; GOP length does not matter, since one frame of
each is under way. They were counted over tensors; for the workspaces that convolutions choose, `SHARE` leaves room.
In bytes per pixel, half precision:

    small  encode   95 a GOP          1080p: 0.20 GB a GOP; 8 GOPs 1.6 GB, at 4K 6.4 GB
           refine   95 a GOP, 2100 once: gradients of one picture at a time; 4.6 GB at 1080p
           decode  124 a GOP          1080p: 0.26 GB
    sd15   encode  230 a GOP          1080p: 0.48 GB
           U-Net   315 a GOP          1080p: 0.66 GB
           VAE    1536 once, and 90 a GOP that waits: pictures are decoded one by one.
                                      1080p: 3.4 GB for one GOP, 4.0 for four; 4K: 13.6 and 15.8

Weights stand beside that: 0.03 GB of ``small``, 2.3 GB of ``sd15``.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

SHARE = 0.8
"""Share of the free memory to plan with."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the work on a frame: bytes per pixel of a padded frame, for each GOP and once for all."""

    gop: float
    once: float = 0.0


NEEDS: dict[tuple[str, str], tuple[Phase, ...]] = {
    ("small", "encode"): (Phase(95),),
    ("small", "refine"): (Phase(95, once=2100),),
    ("small", "decode"): (Phase(124),),
    ("sd", "encode"): (Phase(230),),
    ("sd", "decode"): (Phase(315), Phase(90, once=1536)),
}
"""By generator and stage, in half precision; float32 takes at most twice that."""


def gops_that_fit(generator: str, stage: str, pixels: int, free: int, itemsize: int = 2) -> int:
    """How many GOPs go together, at least 1.

    Args:
        generator: `CodecConfig.generator`.
        stage: ``encode``, ``decode``, or ``refine``: to encode and refine first pictures.
        pixels: of a padded frame.
        free: bytes that may be taken.
        itemsize: bytes of a float: 2 or 4.
    """
    room = SHARE * free / (pixels * itemsize / 2)
    return max(1, min(int((room - phase.once) / phase.gop) for phase in NEEDS[generator, stage]))


def free_bytes(device: torch.device) -> int:
    """Bytes that an allocation on ``device`` may still take, what torch keeps for later included."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
