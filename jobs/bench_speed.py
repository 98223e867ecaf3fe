"""Measures how fast the codec encodes and decodes, through real payload bytes, and how much memory it needs.

Each size runs in a fresh process, so that its peak memory is its own. GOPs pass one at a time, as a worker
with a batch of one would code them, and memory must not grow with their number.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil

from jobs.bench_clips import ClipPolicy, Pixels, load_clip, make_clip, package_clip, synthetic_clip
from s2vc_model.bitstream import EncodedGop
from s2vc_ray.errors import ConfigError
from s2vc_ray.worker import CodecLoader, LoadedCodec

SIZES = {"CIF": (352, 288), "720p": (1280, 720)}
REAL_CLIP = "bikes.mp4"


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """What one speed run measures: ``gops`` GOPs of ``gop`` frames at quality ``q``, coded one by one."""

    model: str = "small"
    device: str = "auto"
    q: int = 32
    gop: int = 32
    gops: int = 2
    threads: int = 0

    def __post_init__(self) -> None:
        if self.gop < 1 or self.gops < 1:
            raise ConfigError("gop and gops must be at least 1")


@dataclass(frozen=True, slots=True)
class SpeedResult:
    """Speed of one content at one size; ``bpp`` counts payloads.

    ``loaded_mb`` is resident memory with the model loaded and the content in place, ``first_mb`` the peak
    after the first GOP, ``peak_mb`` after the last.
    """

    content: str
    width: int
    height: int
    frames: int
    bpp: float
    encode_fps: float
    decode_fps: float
    loaded_mb: float
    first_mb: float
    peak_mb: float


def contents() -> list[tuple[str, str]]:
    """(content, size name) of each run: synthetic at every size, and a real clip at CIF where installed."""
    runs = [("synthetic", size) for size in SIZES]
    if package_clip(REAL_CLIP):
        runs.insert(1, (REAL_CLIP, "CIF"))
    return runs


def run_speed(options: SpeedOptions, load: CodecLoader, runs: list[tuple[str, str]]) -> Iterator[SpeedResult]:
    """Measure each run in a process of its own. ``load`` must be importable by name.

    Raises:
        ModelError: the codec failed, or its output had another shape than its input.
    """
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    spawn = multiprocessing.get_context("spawn")
    for content, size in runs:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            yield pool.submit(measure_speed, options, load, content, *SIZES[size]).result()


def measure_speed(
    options: SpeedOptions, load: CodecLoader, content: str, width: int, height: int
) -> SpeedResult:
    """Measure in this process."""
    frames = _frames(content, width, height, options.gop)
    codec = load(options.model, options.device)
    _warm_up(codec, frames[:2], options.q)
    loaded = psutil.Process().memory_info().rss / 1e6
    encode = decode = 0.0
    size, first = 0, 0.0
    for _ in range(options.gops):
        started = time.perf_counter()
        payload = codec.encode_gops([frames], options.q)[0].to_payload()
        between = time.perf_counter()
        decoded = codec.decode_gops([EncodedGop.from_payload(payload)])[0]
        decode += time.perf_counter() - between
        encode += between - started
        size += len(payload)
        if decoded.shape != frames.shape:
            raise RuntimeError(f"the codec turned {frames.shape} into {decoded.shape}")
        first = first or _peak_mb()
    count = options.gops * len(frames)
    bpp = 8 * size / (count * width * height)
    return SpeedResult(
        content, width, height, count, bpp, count / encode, count / decode, loaded, first, _peak_mb()
    )


def _frames(content: str, width: int, height: int, count: int) -> Pixels:
    if content == "synthetic":
        return synthetic_clip(width, height, count).frames
    path = package_clip(content) or Path(content)
    clip = load_clip(path, ClipPolicy(frames=count))
    reach = np.arange(count) % len(clip.frames)
    rows, columns = np.arange(height) % clip.frames.shape[1], np.arange(width) % clip.frames.shape[2]
    tiled = clip.frames[reach][:, rows][:, :, columns]
    return make_clip(content, tiled, Fraction(clip.rate)).frames


def _warm_up(codec: LoadedCodec, frames: Pixels, q: int) -> None:
    codec.decode_gops(codec.encode_gops([frames], q))


def _peak_mb() -> float:
    # Linux counts kibibytes, macOS bytes.
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
