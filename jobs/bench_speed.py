"""Measures how fast the codec encodes and decodes, through real payload bytes, and how much memory it needs.

Each size runs in a fresh process, so that its peak memory is its own. As many GOPs pass at a time as the codec likes
best (one a core on a CPU), and memory must not grow with their number.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil

from jobs.bench_clips import ClipPolicy, Pixels, load_clip, make_clip, package_clip, synthetic_clip
from s2vc_model.bitstream import EncodedGop
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError
from s2vc_ray.worker import CodecLoader, LoadedCodec

SIZES = {"CIF": (352, 288), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
DEFAULT_SIZES = "CIF,720p"
REAL_CLIP = "bikes.mp4"


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """What one speed run measures: ``rounds`` calls with ``batch`` GOPs of ``gop`` frames each at quality ``q``.

    ``batch`` 0 is the codec's own choice.
    """

    model: str = "small"
    device: str = "auto"
    q: int = JobConfig().quality
    gop: int = 32
    rounds: int = 2
    batch: int = 0
    threads: int = 0
    trace: Path | None = None
    """Where a profile of one more call goes, for chrome://tracing."""
    enlarge: bool = True

    def __post_init__(self) -> None:
        if self.gop < 1 or self.rounds < 1 or self.batch < 0:
            raise ConfigError("gop and rounds must be at least 1, batch 1 or more (0 chooses)")


@dataclass(frozen=True, slots=True)
class SpeedResult:
    """Speed of one content at one size; ``bpp`` counts payloads.

    ``loaded_mb`` is resident memory with the model loaded and the content in place, ``first_mb`` the peak
    after the first round, ``peak_mb`` after the last. The rest is None for codecs that are not ours:
    ``encode_stages`` and ``decode_stages`` are seconds a frame of one GOP alone, by stage; ``encode_gflop`` and
    ``decode_gflop`` what an inter frame takes; ``peak_gflops`` what a large matrix product reaches here with all
    cores; ``joules`` what a GPU used for each frame, coded both ways.
    """

    content: str
    width: int
    height: int
    batch: int
    frames: int
    bpp: float
    encode_fps: float
    decode_fps: float
    loaded_mb: float
    first_mb: float
    peak_mb: float
    encode_stages: dict[str, float] | None = None
    decode_stages: dict[str, float] | None = None
    encode_gflop: float | None = None
    decode_gflop: float | None = None
    peak_gflops: float | None = None
    joules: float | None = None

    @property
    def encode_share(self) -> float | None:
        """Share of the machine's matrix product that encoding reaches."""
        return (
            self.encode_gflop * self.encode_fps / self.peak_gflops
            if self.encode_gflop and self.peak_gflops
            else None
        )

    @property
    def decode_share(self) -> float | None:
        """Share of the machine's matrix product that decoding reaches."""
        return (
            self.decode_gflop * self.decode_fps / self.peak_gflops
            if self.decode_gflop and self.peak_gflops
            else None
        )


def contents(sizes: str) -> list[tuple[str, str]]:
    """(content, size name) of each run: synthetic at every size, and a real clip at CIF where installed.

    Raises:
        ConfigError: ``sizes``, names joined by commas, has one that is unknown.
    """
    names = sizes.split(",")
    if unknown := set(names) - set(SIZES):
        raise ConfigError(f"unknown size {unknown.pop()!r}; known: {', '.join(SIZES)}")
    runs = [("synthetic", size) for size in names]
    if "CIF" in names and package_clip(REAL_CLIP):
        runs.append((REAL_CLIP, "CIF"))
    return runs


def run_speed(options: SpeedOptions, load: CodecLoader, runs: list[tuple[str, str]]) -> Iterator[SpeedResult]:
    """Measure each run in a process of its own. ``load`` must be importable by name.

    Raises:
        ModelError: the codec failed, or its output had another shape than its input.
    """
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    # As in a worker; read when a process starts.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    spawn = multiprocessing.get_context("spawn")
    for content, size in runs:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            yield pool.submit(measure_speed, options, load, content, *SIZES[size]).result()


def measure_speed(
    options: SpeedOptions, load: CodecLoader, content: str, width: int, height: int
) -> SpeedResult:
    """Measure in this process."""
    frames = _frames(content, width, height, options.gop)
    codec = load(options.model, options.device, **({} if options.enlarge else {"enlarge": False}))
    batch = options.batch or codec.parallel
    _warm_up(codec, frames[:2], options.q, batch)
    gops = [frames, *(frames.copy() for _ in range(batch - 1))]
    loaded = psutil.Process().memory_info().rss / 1e6
    energy = _joules(codec)
    encode = decode = 0.0
    size, first = 0, 0.0
    for _ in range(options.rounds):
        started = time.perf_counter()
        payloads = [gop.to_payload() for gop in codec.encode_gops(gops, options.q)]
        between = time.perf_counter()
        for pictures in codec.iter_decode([EncodedGop.from_payload(payload) for payload in payloads]):
            if any(picture.shape != frames.shape[1:] for picture in pictures.values()):
                raise RuntimeError(f"the codec returned another size than {frames.shape[1:]}")
        decode += time.perf_counter() - between
        encode += between - started
        size += sum(map(len, payloads))
        first = first or _peak_mb()
    count = options.rounds * batch * len(frames)
    bpp = 8 * size / (count * width * height)
    used = _joules(codec)
    result = SpeedResult(
        content, width, height, batch, count, bpp, count / encode, count / decode, loaded, first, _peak_mb()
    )
    if used is not None and energy is not None:
        result = replace(result, joules=(used - energy) / count)
    if options.trace:
        _profile(codec, gops, options)
    return _explained(result, codec, frames, options.q)


def _explained(result: SpeedResult, codec: LoadedCodec, frames: Pixels, q: int) -> SpeedResult:
    """With stages and operations, where the codec is ours."""
    from jobs.bench_stages import gflop, matmul_gflops, stage_seconds
    from s2vc_model.codec import S2vcCodec

    if not isinstance(codec, S2vcCodec):
        return result
    own = codec
    few = frames[:8]
    coded: list[EncodedGop] = []
    encode = stage_seconds(own, lambda: coded.extend(own.encode_gops([few], q)))
    decode = stage_seconds(own, lambda: own.decode_gops(coded))
    # Operations are counted in the thread that asks, so the lanes stay out of it; the second frame is an inter frame.
    apart, own.lockstep = own.lockstep, True
    try:
        firsts = [own.encode_gops([frames[:n]], q) for n in (1, 2)]
        costs = [gflop(lambda n=n: own.encode_gops([frames[:n]], q)) for n in (1, 2)]  # type: ignore[misc]
        back = [gflop(lambda g=g: own.decode_gops(g)) for g in firsts]  # type: ignore[misc]
    finally:
        own.lockstep = apart
    return replace(
        result,
        encode_stages={stage: seconds / len(few) for stage, seconds in encode.items()},
        decode_stages={stage: seconds / len(few) for stage, seconds in decode.items()},
        encode_gflop=costs[1] - costs[0],
        decode_gflop=back[1] - back[0],
        peak_gflops=matmul_gflops(own.device),
    )


def _joules(codec: LoadedCodec) -> float | None:
    import torch

    from jobs.bench_stages import joules

    device = codec.device
    return joules(device) if isinstance(device, torch.device) else None


def _profile(codec: LoadedCodec, gops: list[Pixels], options: SpeedOptions) -> None:
    from torch.profiler import profile

    assert options.trace is not None
    with profile() as found:
        codec.decode_gops(codec.encode_gops(gops, options.q))
    found.export_chrome_trace(str(options.trace))


def _frames(content: str, width: int, height: int, count: int) -> Pixels:
    if content == "synthetic":
        return synthetic_clip(width, height, count).frames
    path = package_clip(content) or Path(content)
    clip = load_clip(path, ClipPolicy(frames=count))
    reach = np.arange(count) % len(clip.frames)
    rows, columns = np.arange(height) % clip.frames.shape[1], np.arange(width) % clip.frames.shape[2]
    tiled = clip.frames[reach][:, rows][:, :, columns]
    return make_clip(content, tiled, Fraction(clip.rate)).frames


def _warm_up(codec: LoadedCodec, frames: Pixels, q: int, batch: int) -> None:
    codec.decode_gops(codec.encode_gops([frames] * batch, q))


def _peak_mb() -> float:
    # Linux counts kibibytes, macOS bytes.
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
