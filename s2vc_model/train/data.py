"""Training pictures: every clip and photo decoded once into one flat buffer, then drawn by vectorised gathers.

Heavily compressed clips are drawn less often, and stored at half size where they are large, which removes most of
their artefacts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from s2vc_model.errors import TrainingError
from s2vc_model.motion import BLOCK, block_motion, luma
from s2vc_model.pictures import resized

CLIPS = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".y4m", ".264"}
PHOTOS = {".jpg", ".jpeg", ".png"}
ENLARGING = 1.5


@dataclass(frozen=True, slots=True)
class BankConfig:
    """How sources are stored: longest accepted clip in frames, and the short side they are scaled down to."""

    max_frames: int = 120
    clip_side: int = 480
    photo_side: int = 720
    min_side: int = 224


@dataclass(frozen=True, slots=True)
class Batch:
    """One draw.

    Attributes:
        frames: (B, T, 3, S, S) in [-1, 1].
        motion: searched motion into each frame's predecessor (B, T, 2, S/16, S/16) in pixels; zero for t = 0.
        trust: how much that motion explains, 0..1, (B, T, 1, S/16, S/16).
        enlarged: whether the frames are ``ENLARGING`` times as large as what they show.
    """

    frames: Tensor
    motion: Tensor
    trust: Tensor
    enlarged: bool = False


class Bank:
    """All training pictures on one device as one flat uint8 buffer.

    Args:
        files: clips and photos; unreadable or too small ones are left out and listed in ``skipped``.
        device: where the buffer lives; draws happen there.

    Raises:
        TrainingError: none of the files is of use.
    """

    def __init__(self, files: Iterable[Path], device: torch.device, config: BankConfig | None = None) -> None:
        config = config or BankConfig()
        self.device, self.skipped = device, list[str]()
        with ThreadPoolExecutor(16) as pool:
            loaded = list(pool.map(lambda f: load_frames(f, config), sorted(files)))
        clips = [c for c in loaded if isinstance(c, tuple)]
        self.skipped = [c for c in loaded if isinstance(c, str)]
        if not clips:
            raise TrainingError(
                f"no usable training file: give a folder of clips or photos of at least {config.min_side} pixels"
            )
        self._shapes = [c[0].shape[:3] for c in clips]
        shapes = torch.tensor(self._shapes, device=device)
        self.count, self.height, self.width = shapes.unbind(1)
        sizes = self.count * self.height * self.width * 3
        self.start = torch.cumsum(sizes, 0) - sizes
        self.buffer = torch.empty(int(sizes.sum()), dtype=torch.uint8, device=device)
        for (frames, _), at in zip(clips, self.start.tolist(), strict=True):
            self.buffer[at : at + frames.size] = torch.from_numpy(frames.reshape(-1)).to(device)
        worth = torch.tensor([c[1] for c in clips], device=device)
        self.weight = worth * self.count.float().sqrt()
        self.photo_boost = torch.where(self.count == 1, 3.0, 1.0).to(device)

    def __len__(self) -> int:
        return int(self.count.numel())

    def draw(self, batch: int, frames: int, size: int, *, enlarged: bool = False) -> Batch:
        """A random batch of clips of ``frames`` frames and ``size`` x ``size`` pixels (a multiple of 64).

        Random source, position, temporal stride, direction, mirror, 2x reduction and colour gain. One-frame draws
        use photos and clips alike, longer ones clips of enough frames.

        Args:
            enlarged: reduce what has 400 lines and more, and enlarge all 1.5 times, as the codec does small pictures.

        Raises:
            TrainingError: no source has so many frames of that size.
        """
        if not enlarged:
            return with_motion(self._crops(batch, frames, size, 2 * size, 0.4))
        x = self._crops(batch, frames, math.ceil(size / ENLARGING), 400, 1.0)
        side = math.floor(x.shape[-1] * ENLARGING)
        big = resized(x.flatten(0, 1), side, side)
        big = big.clamp(-1, 1)[..., :size, :size].unflatten(0, (batch, frames))
        return replace(with_motion(big.contiguous()), enlarged=True)

    def _crops(self, batch: int, frames: int, size: int, large: int, reduced: float) -> Tensor:
        """Crops (B, T, 3, S, S) in [-1, 1]; sources of ``large`` lines are reduced by 2 with chance ``reduced``."""

        # Asked of the CPU's own copy: a GPU would have to be waited for.
        if not any(t >= frames and min(h, w) >= size for t, h, w in self._shapes):
            raise TrainingError(
                f"no training file has {frames} frames of {size} x {size} pixels and more: give longer or larger "
                "clips, or --set STAGE.chunks, STAGE.frames or STAGE.size lower"
            )

        def chance(p: float) -> Tensor:
            return torch.rand(batch, device=self.device) < p

        def place(room: Tensor) -> Tensor:
            return (torch.rand(batch, device=self.device) * room).long()

        fits = (self.count >= frames) & (torch.minimum(self.height, self.width) >= size)
        weight = self.weight * fits * (self.photo_boost if frames == 1 else 1.0)
        pick = torch.multinomial(weight, batch, True)
        n, h, w, start = self.count[pick], self.height[pick], self.width[pick], self.start[pick]
        stride = torch.where(chance(0.25) & (n > 2 * frames), 2, 1)
        shrink = torch.where(chance(reduced) & (torch.minimum(h, w) >= large), 2, 1)
        t0, y0, x0 = place(n - (frames - 1) * stride), place(h - size * shrink + 1), place(w - size * shrink + 1)
        ticks = torch.arange(frames, device=self.device)[None]
        ticks = torch.where(chance(0.3)[:, None], frames - 1 - ticks, ticks)
        cols = torch.arange(size, device=self.device)[None]
        mirrored = torch.where(chance(0.5)[:, None], size - 1 - cols, cols)
        base = start[:, None] + (t0[:, None] + ticks * stride[:, None]) * (h * w * 3)[:, None]
        total = torch.zeros(batch, frames, size, size, 3, device=self.device)
        for dy in (0, 1):
            for dx in (0, 1):
                rows = (y0[:, None] + cols * shrink[:, None] + dy * (shrink[:, None] - 1)) * (w * 3)[:, None]
                across = (x0[:, None] + mirrored * shrink[:, None] + dx * (shrink[:, None] - 1)) * 3
                at = base[:, :, None, None, None] + rows[:, None, :, None, None] + across[:, None, None, :, None]
                total += self.buffer[at + torch.arange(3, device=self.device)]
        x = (total / 510 - 1).permute(0, 1, 4, 2, 3)
        gain = 1 + 0.1 * torch.randn(batch, 1, 3, 1, 1, device=self.device) * chance(0.3)[:, None, None, None, None]
        return (x * gain).clamp(-1, 1)


def with_motion(x: Tensor) -> Batch:
    """Frames (B, T, 3, S, S) -> the frames with searched motion and its trust."""
    b, t, _, s, _ = x.shape
    cells = s // BLOCK
    motion = torch.zeros(b, t, 2, cells, cells, device=x.device)
    trust = torch.zeros(b, t, 1, cells, cells, device=x.device)
    for k in range(1, t):
        now, then = luma(x[:, k]), luma(x[:, k - 1])
        motion[:, k] = block_motion(now, then)
        trust[:, k] = _trust(now, then, motion[:, k])
    return Batch(x, motion, trust)


def _trust(now: Tensor, then: Tensor, motion: Tensor) -> Tensor:
    from s2vc_model.layers import resize_flow, warp

    still = F.avg_pool2d((now - then).abs(), BLOCK)
    moved = F.avg_pool2d((now - warp(then, resize_flow(motion, BLOCK))).abs(), BLOCK)
    return ((still - moved) / (still + 0.01)).clamp(0.05, 1)


def load_frames(path: Path, config: BankConfig) -> tuple[npt.NDArray[np.uint8], float] | str:
    """Frames (N, H, W, 3) uint8 and a sampling weight, or why the file is left out."""
    photo = path.suffix.lower() in PHOTOS
    frames: list[npt.NDArray[np.uint8]] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                side = config.photo_side if photo else config.clip_side
                scale = min(1.0, side / min(frame.height, frame.width))
                h, w = int(frame.height * scale) // 8 * 8, int(frame.width * scale) // 8 * 8
                rgb = frame.to_ndarray(format="rgb24", width=w, height=h, interpolation="AREA")
                frames.append(np.asarray(rgb, np.uint8))
                if len(frames) >= (1 if photo else config.max_frames):
                    break
    except (av.FFmpegError, IndexError) as error:
        return f"{path.name}: {error}"
    if not frames or min(frames[0].shape[:2]) < config.min_side or any(f.shape != frames[0].shape for f in frames):
        return f"{path.name}: too small, empty or of changing size"
    stack = np.stack(frames)
    bpp = 8 * path.stat().st_size / (stack.shape[0] * stack.shape[1] * stack.shape[2])
    return stack, 1.0 if photo else min(2.0, max(0.4, math.sqrt(bpp / 0.3)))
