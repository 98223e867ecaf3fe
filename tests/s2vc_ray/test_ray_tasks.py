"""Planning and committing on a cluster's nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2vc_ray import compress as compress_module
from s2vc_ray.compress import compress, make_tasks
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import read_manifest
from s2vc_ray.ray_tasks import RayTasks
from s2vc_ray.tasks import ThreadTasks
from tests import media
from tests.fakes import load_fake

ray = pytest.importorskip("ray")
CONFIG = JobConfig(model="fake", executor="local", gop=4, metrics=MetricPolicy.parse("none"))


def process() -> int:
    return os.getpid()


def divide(by: int) -> float:
    return 1 / by


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_job_plans_and_commits_elsewhere(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = RayTasks()
    processes: list[int] = []
    submit = RayTasks.submit

    def noting(self: RayTasks, function: object, *arguments: object) -> object:
        processes.append(submit(self, process).result(60))
        return submit(self, function, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RayTasks, "submit", noting)
    monkeypatch.setattr(compress_module, "make_tasks", lambda config: tasks)
    clips = [media.make_clip(tmp_path / f"{n}.mp4", frames=6, seed=n) for n in range(2)]
    sources = [*map(str, clips), str(tmp_path / "missing.mp4")]
    report = compress(sources, str(tmp_path / "out"), CONFIG, load_codec=load_fake)
    assert [video.status for video in report.videos] == ["ok", "ok", "failed"]
    assert read_manifest(str(tmp_path / "out")).num_rows == 5
    assert len(processes) == 6, "a plan and an end for each source"
    assert os.getpid() not in processes


def test_what_a_task_raises_comes_back(cluster: None) -> None:
    with pytest.raises(ZeroDivisionError):
        RayTasks().submit(divide, 0).result(60)
    assert RayTasks().width == 4


def test_a_cluster_that_was_joined_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    joined = JobConfig(ray_address="10.0.0.1:6379")
    for config, kind in ((JobConfig(), ThreadTasks), (CONFIG, ThreadTasks), (joined, RayTasks)):
        tasks = make_tasks(config)
        assert isinstance(tasks, kind)
        tasks.close()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert isinstance(make_tasks(JobConfig()), RayTasks)
