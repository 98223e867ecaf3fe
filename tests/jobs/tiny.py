"""Little clips and stand-ins for codecs, for benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from jobs.bench_clips import ClipPolicy, Pixels, synthetic_clip
from jobs.bench_coded import Coded
from jobs.bench_quality import QualityOptions
from tests.fakes import FakeCodec, load_fake

POLICY = ClipPolicy(frames=6, max_lines=64)


def write_video(path: Path, width: int = 96, height: int = 64, frames: int = 8) -> Path:
    """A lossless little clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in synthetic_clip(width, height, frames).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class CountingAnchor:
    """Keeps the top bits of every sample: a quarter of a byte each."""

    name = "coarse"
    ladder = (2, 4)
    version = "1"

    def __init__(self) -> None:
        self.runs = 0

    def settings(self, point: int, gop: int | None) -> Mapping[str, str]:
        return {"bits": str(point), "gop": str(gop)}

    def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
        self.runs += 1
        size = frames.size * point // 8
        return Coded(size, size, (frames >> (8 - point) << (8 - point)).astype(np.uint8), 0.1, 0.1)


def fake() -> FakeCodec:
    return load_fake("fake", "cpu")


def options(
    cache: Path | None = None, metrics: Sequence[str] = ("psnr",), anchor_gop: str = "clip"
) -> QualityOptions:
    return QualityOptions((10, 50), 3, anchor_gop, tuple(metrics), POLICY, None, cache)
