"""What a job's events add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s2vc_ray.job_meter import JobMeter
from s2vc_ray.pool import WorkerPool
from s2vc_ray.sources import Source
from s2vc_ray.summary import sentences, sum_up
from s2vc_ray.usage import Usage
from tests.job_events import USAGE, Clock, ended, failure, gop, tell_job


def test_probes_are_of_gops_with_a_target() -> None:
    meter = JobMeter()
    meter.gop_done(gop(0), resumed=False)
    assert sum_up(meter.read()).probes is None
    meter = JobMeter()
    for index, probes in enumerate((3, 4)):
        meter.gop_done(replace(gop(index), target="bpp=0.1", probes=probes), resumed=False)
    meter.gop_done(replace(gop(9), target="bpp=0.1", probes=8), resumed=True)
    assert sum_up(meter.read()).probes == 3.5
    assert "3.5 probes a GOP" in sentences(sum_up(meter.read()))[0]


def test_a_whole_job_is_counted() -> None:
    meter = JobMeter()
    tell_job(meter)
    counts = meter.read()
    assert (counts.job, counts.sources) == ("job-1", 3)
    assert (counts.planned_videos, counts.planned_gops, counts.planned_frames) == (2, 5, 50)
    assert (counts.gops_coded, counts.gops_resumed, counts.frames) == (1, 1, 10)
    assert (counts.payload_bytes, counts.pixels) == (64, 10 * 1024)
    assert counts.bpp == 8 * 64 / (10 * 1024)
    assert (counts.usage, counts.whole_run_busy) == (USAGE, 0.75)
    assert counts.video_seconds == pytest.approx(10 * 0.8 / 20)
    assert counts.videos == {"ok": 1, "failed": 1, "skipped": 1}
    assert (counts.failures, counts.retries, counts.gops_failed) == (
        {"SourceError": 1},
        {"TimeoutError": 1},
        {"BitstreamError": 1},
    )
    assert (counts.source_bytes, counts.archive_bytes) == (4000, 500)


def test_what_is_not_coded_of_a_failed_video_is_settled_at_its_end() -> None:
    meter = JobMeter()
    end = ended("v.mp4", "failed")
    video = Source(end.uri, end.name).video_id
    meter.planned(video, "v.mp4", 30, 3)
    meter.gop_done(gop(0, video), resumed=False)
    meter.gop_failed(failure(1, video=video), final=False)
    meter.gop_failed(failure(1, video=video), final=True)
    assert (meter.read().frames_settled, meter.read().gops_failed) == (10, {"TimeoutError": 1})
    meter.video_done(end)
    assert meter.read().frames_settled == 30


def test_what_workers_cost_is_what_was_held_over_time() -> None:
    clock = Clock()
    meter = JobMeter(clock)
    meter.started("j", 0)
    assert meter.read().worker_seconds is None
    clock.now += 100
    meter.pool(WorkerPool(workers=2, lanes=4, gpus=1.0))
    clock.now += 10
    meter.pool(WorkerPool(workers=1, lanes=2, gpus=0.5))
    clock.now += 20
    counts = meter.read()
    assert (counts.worker_seconds, counts.gpu_seconds) == (40.0, 20.0)
    assert counts.seconds == 130.0


def test_the_clock_stops_at_the_end() -> None:
    clock = Clock()
    meter = JobMeter(clock)
    meter.started("j", 0)
    meter.pool(WorkerPool(1, 1))
    clock.now += 7
    tell = meter.read()
    meter.finished(None)  # type: ignore[arg-type]
    clock.now += 1000
    assert (
        (meter.read().seconds, meter.read().worker_seconds)
        == (tell.seconds, tell.worker_seconds)
        == (7.0, 7.0)
    )


def test_rates_are_of_the_last_two_minutes() -> None:
    clock = Clock()
    meter = JobMeter(clock)
    meter.started("j", 0)
    lanes = busy = 0.0

    def second(frames: int, share: float) -> None:
        nonlocal lanes, busy
        clock.now += 1
        lanes, busy = lanes + 2, busy + 2 * share
        meter.pool(WorkerPool(1, 2, usage=Usage(lane_seconds=lanes, busy_seconds=busy)))
        meter.gop_done(gop(0, frames=frames), resumed=False)

    for _ in range(600):
        second(30, 1.0)
    assert meter.read().fps == pytest.approx(30, rel=0.02)
    assert meter.read().busy == 1.0
    for _ in range(60):
        second(10, 0.5)
    assert meter.read().fps == pytest.approx(20, rel=0.02)
    assert meter.read().busy == pytest.approx(0.75, rel=0.02)
    clock.now += 600
    stalled = meter.read()
    assert stalled.fps is not None
    assert stalled.fps < 1
    assert stalled.whole_run_busy == pytest.approx((600 + 30) / 660)


def test_an_answer_that_was_overtaken_takes_nothing_back() -> None:
    meter = JobMeter()
    meter.pool(WorkerPool(1, 2, usage=Usage(lane_seconds=10, busy_seconds=8)))
    meter.pool(WorkerPool(1, 2, usage=Usage(lane_seconds=12, busy_seconds=7)))
    assert meter.read().usage == Usage(lane_seconds=12, busy_seconds=8)


def test_nothing_is_known_before_anything_is_done() -> None:
    meter = JobMeter()
    meter.started("j", 5)
    counts = meter.read()
    assert (counts.fps, counts.busy, counts.bpp, counts.seconds_left, counts.whole_run_busy) == (None,) * 5


def test_resumed_gops_are_not_this_runs_work() -> None:
    meter = JobMeter()
    meter.planned("v", "a", 20, 2, 1.0)
    meter.gop_done(gop(0), resumed=True)
    counts = meter.read()
    assert (counts.frames, counts.payload_bytes, counts.video_seconds, counts.frames_settled) == (
        0,
        0,
        0.0,
        10,
    )


def test_time_left_takes_unplanned_sources_to_be_like_the_others() -> None:
    clock = Clock()
    meter = JobMeter(clock)
    meter.started("j", 4)
    meter.planned("v", "a", 20, 2)
    clock.now += 5
    meter.gop_done(gop(0), resumed=False)
    meter.video_done(ended("b", "skipped"))
    assert meter.read().seconds_left == pytest.approx((10 + 2 * 20) / 2)


def test_a_reader_keeps_what_it_read() -> None:
    meter = JobMeter()
    tell_job(meter)
    counts = meter.read()
    meter.video_done(ended("d.mp4", "failed"))
    assert counts.failures == {"SourceError": 1}
    assert meter.read().failures == {"SourceError": 2}


def test_memory_does_not_grow_with_videos_gops_or_kinds_of_error() -> None:
    clock = Clock()
    meter = JobMeter(clock)
    for number in range(5000):
        clock.now += 1
        end = ended(f"{number}.mp4", "failed" if number % 2 else "ok")
        video = Source(end.uri, end.name).video_id
        meter.planned(video, "a", 20, 2, 2.0)
        meter.gop_failed(failure(0, f"Error{number}", video=video), final=True)
        meter.gop_done(gop(1, video), resumed=False)
        meter.video_done(end)
    assert not meter._open
    assert len(meter._recent) < 130
    counts = meter.read()
    assert (len(counts.gops_failed), counts.gops_failed.total()) == (51, 5000)
    assert counts.frames_settled == counts.planned_frames
    assert counts.video_seconds == pytest.approx(5000)
