"""A made-up job's events, told to a `Reporter`: what views, logs and metrics are tested with."""

from __future__ import annotations

from dataclasses import replace

from s2vc_ray.executor import GopFailure, GopTask
from s2vc_ray.pool import GpuReading, WorkerPool
from s2vc_ray.progress import Reporter
from s2vc_ray.results import FlowDepths, JobReport, Totals, VideoResult
from s2vc_ray.staging import StagedGop
from s2vc_ray.usage import Usage
from s2vc_ray.values import GopSpec
from tests.fakes import staged_gop

READING = GpuReading(
    host="node-1", index=0, name="H100", utilisation=0.91, memory_used=30 << 30, memory_total=80 << 30
)
UNTOLD = GpuReading(host="node-1", index=1, name="MIG", utilisation=None, memory_used=None, memory_total=None)
USAGE = Usage(
    lane_seconds=8.0,
    busy_seconds=6.0,
    encode_seconds=5.0,
    measure_seconds=1.5,
    source_seconds=0.75,
    stage_seconds=0.5,
    wait_seconds=0.25,
)
POOL = WorkerPool(workers=2, lanes=4, gpus=2.0, usage=USAGE, readings=(READING, UNTOLD))
DEPTHS = FlowDepths(planning=3, queued=17, coding=4, window=6, committing=1)


class Clock:
    """Seconds that pass when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def gop(
    index: int, video: str = "v", *, frames: int = 10, payload: int = 64, seconds: float = 2.0
) -> StagedGop:
    """A coded GOP of 32x32 pixels."""
    return replace(
        staged_gop(index, pts=range(frames), payload=bytes(payload)),
        video_id=video,
        encode_seconds=seconds,
        decode_seconds=seconds / 4,
        source_seconds=seconds / 8,
    )


def failure(
    index: int, error_class: str = "TimeoutError", error: str = "slow", video: str = "v"
) -> GopFailure:
    """A failed try at a GOP of 10 frames."""
    spec = GopSpec(f"s3://b/{video}.mp4", video, index, 10 * index, tuple(range(10)), 0, 0, 32, 32)
    return GopFailure(GopTask(spec, "staging"), error_class, error, 1)


def ended(name: str = "a.mp4", status: str = "ok", **fields: object) -> VideoResult:
    """A source's end."""
    whole = {"archive": f"{name}.s2vc", "source_bytes": 4000, "archive_bytes": 500, "frames": 20, "gops": 2}
    lost = {"error_class": "SourceError", "error": "no video stream"}
    about = {"payload_bytes": 128, "pixels": 20 * 1024, **whole} if status in ("ok", "partial") else {}
    return VideoResult(
        f"s3://b/{name}", name, status, **{**about, **(lost if status == "failed" else {}), **fields}
    )  # type: ignore[arg-type]


def report(*videos: VideoResult) -> JobReport:
    """The end of a job of these."""
    totals = Totals()
    for video in videos:
        totals = totals.plus(video)
    return JobReport("job-1", "c0ffee", 10.0, totals, videos)


def tell_job(reporter: Reporter) -> JobReport:
    """Tell a whole job: a good video, a retry, a video that fails, one that is skipped."""
    ends = (ended(), ended("b.mp4", "failed"), ended("c.mp4", "skipped"))
    reporter.started("job-1", 3)
    reporter.pool(POOL)
    reporter.planned("v", "a.mp4", 20, 2, 0.8)
    reporter.flow(DEPTHS)
    reporter.gop_done(gop(0), resumed=True)
    reporter.gop_failed(failure(1), final=False)
    reporter.gop_done(gop(1), resumed=False)
    reporter.video_done(ends[0])
    reporter.planned("w", "b.mp4", 30, 3, 1.2)
    reporter.gop_failed(failure(0, "BitstreamError", "bad", "w"), final=True)
    for end in ends[1:]:
        reporter.video_done(end)
    told = report(*ends)
    reporter.finished(told)
    return told
