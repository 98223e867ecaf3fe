"""Measures the driver at a size no archive at hand has: synthetic videos, workers that only sleep.

What runs is the product's own flow: listing, `GopQueue`, `Dispatch`, `Tally`, `PartIndex`, and, for a resumed job,
`plan_video` over real files and manifest parts. What does not run is anything that reads or codes a picture: a
`TaskPool` of this file plans and finishes synthetic videos, and its executor hands batches back after a while. So the
figures are the driver's alone; those of Ray are measured by ``workers``.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch, GopTask
from s2vc_ray.finish import finish_coded
from s2vc_ray.flow import Flow
from s2vc_ray.manifest import ManifestRow, write_part
from s2vc_ray.plan import PlannedVideo, SourceFixity, plan_video
from s2vc_ray.pool import WorkerPool
from s2vc_ray.progress import Silent
from s2vc_ray.results import VideoResult
from s2vc_ray.rows import JobContext
from s2vc_ray.sources import Source, iter_sources
from s2vc_ray.split import split
from s2vc_ray.staging import StagedGop
from s2vc_ray.storage import open_storage, stat_source
from s2vc_ray.tasks import ThreadTasks
from s2vc_ray.values import ColourTags, VideoInfo

CODEC = CodecIdentity("sleeper", "5e" * 32, "small", "cpu", "")
CONFIG = JobConfig(gop=32, allow_larger=True, metrics=MetricPolicy.parse("none"))


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """``videos`` of ``gops`` GOPs each; ``workers`` that take ``seconds`` for a batch of ``batch`` GOPs."""

    videos: int = 50_000
    gops: int = 20
    workers: int = 1000
    seconds: float = 0.0
    batch: int = 4


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """Driver seconds are CPU seconds of its one thread; memory is resident, in MB, at tenths of the job."""

    gops: int
    seconds: float
    driver_seconds: float
    memory: tuple[float, ...]

    @property
    def milliseconds_per_gop(self) -> float:
        """Driver CPU time for each GOP."""
        return 1000 * self.driver_seconds / self.gops


@dataclass(frozen=True, slots=True)
class ResumeResult:
    """How long a job of which ``done`` videos were compressed before took to its first new GOP, and to index them."""

    videos: int
    done: int
    index_seconds: float
    first_batch_seconds: float
    memory_mb: float


class Sleepers:
    """An executor of workers that sleep. See `s2vc_ray.executor.Executor`."""

    def __init__(self, workers: int, seconds: float, on_submit: Callable[[], None] = lambda: None) -> None:
        self.window = 2 * workers
        self._seconds = seconds
        self._workers = [0.0] * workers
        self._ends: list[tuple[float, int, GopBatch]] = []
        self._count = 0
        self._on_submit = on_submit

    @property
    def pool(self) -> WorkerPool:
        """As many as were asked for."""
        return WorkerPool(len(self._workers), len(self._workers))

    def start(self) -> CodecIdentity:
        """Nothing to load."""
        return CODEC

    def submit(self, batch: GopBatch) -> None:
        """Give the batch to the worker that is free first."""
        self._on_submit()
        end = max(heapq.heappop(self._workers), time.monotonic()) + self._seconds
        heapq.heappush(self._workers, end)
        self._count += 1
        heapq.heappush(self._ends, (end, self._count, batch))

    def next_result(self, timeout: float | None = None) -> BatchResult | None:
        """The batch that ends first, once it has."""
        left = self._ends[0][0] - time.monotonic()
        if timeout is not None and left > timeout:
            time.sleep(timeout)
            return None
        time.sleep(max(0.0, left))
        batch = heapq.heappop(self._ends)[2]
        return BatchResult(batch, tuple(_staged(task) for task in batch.tasks))

    def close(self) -> None:
        """Nothing to close."""


class Synthetic:
    """A task pool that makes up the videos that ``makes_up`` says, at once; everything else runs in threads."""

    def __init__(self, gops: int, makes_up: Callable[[Source], bool] = lambda _: True) -> None:
        self.width = 16
        self._gops = gops
        self._makes_up = makes_up
        self._threads = ThreadTasks(self.width)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """A future that is done already."""
        future: Future[Any] = Future()
        if function is plan_video and self._makes_up(arguments[0]):
            future.set_result(_planned(arguments[0], self._gops))
        elif function is finish_coded:
            video, payloads = arguments[:2]
            future.set_result(
                VideoResult(video.source.uri, video.source.name, "ok", gops=len(payloads), source_bytes=1)
            )
        else:
            return self._threads.submit(function, *arguments)
        return future

    def close(self) -> None:
        """Let the threads go."""
        self._threads.close()


def run_scale(options: ScaleOptions) -> ScaleResult:
    """Drive a whole job of synthetic videos."""
    total = options.videos * options.gops
    memory: list[float] = []
    seen = 0

    class Sampling(Silent):
        def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
            nonlocal seen
            seen += 1
            if seen * 10 // total > len(memory):
                memory.append(_memory())

    def listing() -> Iterator[Source]:
        return (Source(f"synthetic://{n:07d}", f"{n:07d}.mp4") for n in range(options.videos))

    tasks = Synthetic(options.gops)
    with tempfile.TemporaryDirectory(prefix="s2vc-") as folder:
        flow = Flow(
            _context(),
            listing,
            open_storage(folder),
            Sleepers(options.workers, options.seconds),
            tasks,
            Sampling(),
            options.batch,
        )
        begun, cpu = time.monotonic(), time.thread_time()
        report = flow.run()
        result = ScaleResult(seen, time.monotonic() - begun, time.thread_time() - cpu, tuple(memory))
    tasks.close()
    if (report.totals.ok, report.totals.gops) != (options.videos, total):
        raise RuntimeError(f"{report.totals.ok} of {options.videos} videos ended well")
    return result


def print_scale(options: ScaleOptions, resume: bool, console: Console, *, as_json: bool) -> None:
    """Jobs of a hundredth, a tenth and all of the videos, so that growth shows; then the resumed one."""
    results = [run_scale(replace(options, videos=max(1, options.videos // part))) for part in (100, 10, 1)]
    resumed = None
    if resume:
        with tempfile.TemporaryDirectory(prefix="s2vc-") as folder:
            resumed = run_resume(options, Path(folder))
    if as_json:
        print(json.dumps({"scale": [asdict(r) for r in results], "resume": resumed and asdict(resumed)}))
        return
    for r in results:
        console.print(
            f"{r.gops:>9,} GOPs: {r.milliseconds_per_gop:.4f} ms of driver CPU each; "
            f"{r.memory[0]:.0f} MB after a tenth, {r.memory[-1]:.0f} MB at the end",
            highlight=False,
        )
    if resumed:
        console.print(
            f"resumed, {resumed.done:,} of {resumed.videos:,} videos done: first batch after "
            f"{resumed.first_batch_seconds:.1f} s, {resumed.index_seconds:.1f} of them to index the manifest; "
            f"{resumed.memory_mb:.0f} MB",
            highlight=False,
        )


def run_resume(options: ScaleOptions, folder: Path) -> ResumeResult:
    """Time the start of a job whose first half is done: real source files, archives' names and manifest parts."""
    sources, out = folder / "in", folder / "out"
    sources.mkdir(parents=True, exist_ok=True)
    storage, half = open_storage(str(out)), options.videos // 2
    names = [f"{n:07d}.mp4" for n in range(options.videos)]
    for name in names:
        (sources / name).write_bytes(b"video")
    done = {str(sources / name) for name in names[:half]}
    for uri in sorted(done):
        _describe(Source(uri, Path(uri).name), options.gops, storage)
    first: list[float] = []
    tasks = Synthetic(options.gops, lambda source: source.uri not in done)
    begun = time.monotonic()

    class Enough(Exception):
        """The first batch is out: all there was to measure."""

    def submitted() -> None:
        first.append(time.monotonic() - begun)
        raise Enough

    executor = Sleepers(options.workers, options.seconds, submitted)
    flow = Flow(
        _context(), lambda: iter_sources([str(sources)]), storage, executor, tasks, Silent(), options.batch
    )
    indexed = time.monotonic() - begun
    try:
        flow.run()
    except Enough:
        pass
    finally:
        tasks.close()
    return ResumeResult(options.videos, half, indexed, first[0], _memory())


def _context() -> JobContext:
    return JobContext("scale", datetime.now(UTC), CONFIG, CODEC)


def _planned(source: Source, gops: int) -> PlannedVideo:
    frames = tuple(range(0, gops * CONFIG.gop * 512, 512))
    info = VideoInfo(
        width=1920,
        height=1080,
        time_base=Fraction(1, 12800),
        pts=frames,
        keyframe_pts=frames[::250],
        last_duration=512,
        average_rate=Fraction(25),
        rotation=0,
        sample_aspect=Fraction(1),
        pix_fmt="yuv420p",
        codec="h264",
        container="mp4",
        colour=ColourTags(),
        stream_index=0,
    )
    specs = split(info, source_uri=source.uri, video_id=source.video_id, gop=CONFIG.gop)
    return PlannedVideo(
        source, SourceFixity(1, "e", "5" * 64), info, tuple(specs), f"_s2vc/{source.video_id}"
    )


def _staged(task: GopTask) -> StagedGop:
    spec = task.spec
    return StagedGop(
        video_id=spec.video_id,
        index=spec.index,
        key=task.key,
        pts=spec.pts,
        frames_expected=spec.frames,
        frames_corrupt=0,
        width=spec.width,
        height=spec.height,
        q=CONFIG.quality,
        payload_bytes=1,
        payload_sha256="",
        bits_i=4,
        bits_p=4,
        metrics=(),
        metric_policy="none",
        verified="no",
        model_id=CODEC.model_id,
        weights_sha256=CODEC.weights_sha256,
        device=CODEC.device,
        torch="",
        source_seconds=0.0,
        encode_seconds=0.0,
        decode_seconds=0.0,
        attempts=1,
    )


def _describe(source: Source, gops: int, storage: Any) -> None:
    """An archive's name, and a manifest part that describes it."""
    storage.put(source.archive_key, b"archive")
    found = stat_source(source.uri)
    row = ManifestRow(
        job="before",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        config_hash=CONFIG.config_hash(CODEC.weights_sha256),
        config=json.dumps({}),
        video_id=source.video_id,
        source_uri=source.uri,
        source_name=source.name,
        status="ok",
        source_size=found.size,
        source_etag=found.etag,
        source_sha256="5" * 64,
        archive=source.archive_key,
        archive_bytes=len(b"archive"),
        gop_index=0,
    )
    write_part(storage, [replace(row, gop_index=index) for index in range(gops)])


def _memory() -> float:
    resident: int = psutil.Process().memory_info().rss
    return resident / 1e6
