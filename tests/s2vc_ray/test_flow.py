"""A job's stages: fed only as they empty, ended whatever goes wrong, flat in the number of videos."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import StorageError
from s2vc_ray.executor import LocalExecutor
from s2vc_ray.flow import Flow
from s2vc_ray.manifest import read_manifest
from s2vc_ray.plan import plan_video
from s2vc_ray.progress import Silent
from s2vc_ray.results import FlowDepths, JobReport
from s2vc_ray.rows import JobContext
from s2vc_ray.sources import Source
from s2vc_ray.storage import open_storage
from s2vc_ray.tasks import ThreadTasks
from s2vc_ray.worker import Worker
from tests import media
from tests.fakes import load_fake

CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=4, metrics=MetricPolicy.parse("none")
)


class Watching(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.depths: list[FlowDepths] = []
        self.batches: list[set[str]] = []

    def flow(self, depths: FlowDepths) -> None:
        self.depths.append(depths)


class Mixing(Worker):
    """Notes which videos share its batches."""

    seen: list[set[str]]

    def encode(self, batch: Any) -> Any:
        if not self.seen:
            # The other videos are planned meanwhile.
            time.sleep(0.5)
        self.seen.append({task.spec.video_id for task in batch.tasks})
        return super().encode(batch)


def run(
    sources: Iterator[Source], out: Path, *, batch: int = 1, worker: Worker | None = None
) -> tuple[JobReport, Watching]:
    storage = open_storage(str(out))
    executor = LocalExecutor(lambda: worker or Worker(storage.uri, CONFIG, load_codec=load_fake))
    job = JobContext("j", datetime.now(UTC), CONFIG, executor.start())
    watching, tasks = Watching(), ThreadTasks(4)
    try:
        return Flow(job, lambda: sources, storage, executor, tasks, watching, batch).run(), watching
    finally:
        tasks.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("flow")
    paths = [
        media.make_clip(folder / f"{n}.mp4", frames=frames, seed=n) for n, frames in enumerate((6, 3, 9, 5))
    ]
    return [Source(str(path), path.name) for path in paths]


def test_batches_mix_videos_and_every_video_ends(clips: list[Source], tmp_path: Path) -> None:
    worker = Mixing(str(tmp_path), CONFIG, load_codec=load_fake)
    worker.seen = []
    report, _ = run(iter(clips), tmp_path, batch=3, worker=worker)
    assert [video.status for video in report.videos] == ["ok"] * 4
    assert [video.name for video in report.videos] == [clip.name for clip in clips]
    assert max(map(len, worker.seen)) > 1
    assert read_manifest(str(tmp_path)).num_rows == report.totals.gops == 8
    assert report.totals.frames == 23


def test_sources_are_listed_only_as_the_stages_empty(clips: list[Source], tmp_path: Path) -> None:
    listed: list[int] = []
    ended: list[int] = []

    def endless() -> Iterator[Source]:
        for number in range(60):
            listed.append(number)
            ahead = len(listed) - len(ended)
            assert ahead <= 20, "the list runs away from the work"
            yield Source(clips[1].uri, f"{number}.mp4", refused="never mind")

    class Counting(Watching):
        def video_done(self, result: Any) -> None:
            ended.append(1)

    storage = open_storage(str(tmp_path))
    executor = LocalExecutor(lambda: Worker(storage.uri, CONFIG, load_codec=load_fake))
    job = JobContext("j", datetime.now(UTC), CONFIG, executor.start())
    tasks = ThreadTasks(2)
    report = Flow(job, endless, storage, executor, tasks, Counting(), 1).run()
    tasks.close()
    assert report.count("failed") == len(listed) == 60


def test_a_broken_listing_ends_the_job_after_what_was_found(clips: list[Source], tmp_path: Path) -> None:
    def broken() -> Iterator[Source]:
        yield clips[1]
        raise StorageError("the listing broke off")

    with pytest.raises(StorageError, match="broke off"):
        run(broken(), tmp_path)
    assert (tmp_path / "1.mp4.s2vc").exists()


def test_a_lost_gop_ends_its_video_once_and_leaves_the_rest_untried(
    clips: list[Source], tmp_path: Path
) -> None:
    tried: list[int] = []

    class Failing(Worker):
        def encode(self, batch: Any) -> Any:
            tried.extend(task.spec.index for task in batch.tasks)
            return super().encode(batch)

    worker = Failing(str(tmp_path), CONFIG, load_codec=lambda *_: load_fake("fake:fail=4", "cpu"))
    report, _ = run(iter(clips[2:3]), tmp_path, worker=worker)
    assert report.count("failed") == 1
    assert report.videos[0].error_class == "BitstreamError"
    assert set(tried) == {0}, "a lost video's other GOPs are not worth coding"
    (row,) = read_manifest(str(tmp_path)).to_pylist()
    assert (row["status"], row["gop_index"], row["attempts"]) == ("failed", 0, CONFIG.attempts)


def test_a_resumed_job_begins_with_what_is_new(clips: list[Source], tmp_path: Path) -> None:
    run(iter(clips[:3]), tmp_path)
    order: list[str] = []

    class Noting(ThreadTasks):
        def submit(self, function: Any, *arguments: Any) -> Any:
            if function is plan_video:
                order.append(arguments[0].name)
            return super().submit(function, *arguments)

    storage = open_storage(str(tmp_path))
    executor = LocalExecutor(lambda: Worker(storage.uri, CONFIG, load_codec=load_fake))
    job = JobContext("j2", datetime.now(UTC), CONFIG, executor.start())
    tasks = Noting(2)
    report = Flow(job, lambda: iter(clips), storage, executor, tasks, Silent(), 1).run()
    tasks.close()
    assert order == ["3.mp4", "0.mp4", "1.mp4", "2.mp4"]
    assert [video.status for video in report.videos] == ["skipped", "skipped", "skipped", "ok"]
    assert [video.name for video in report.videos] == [clip.name for clip in clips]


def test_depths_are_told(clips: list[Source], tmp_path: Path) -> None:
    _, watching = run(iter(clips), tmp_path)
    assert watching.depths
    assert all(depths.window == 1 for depths in watching.depths)
