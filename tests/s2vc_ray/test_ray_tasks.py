"""Planning and committing in processes of Ray's, which may be lost and may die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import compress as compress_module
from s2vc_ray.compress import compress, make_tasks
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.counters import count, total
from s2vc_ray.errors import TaskDied
from s2vc_ray.manifest import read_manifest
from s2vc_ray.ray_tasks import RayTasks
from s2vc_ray.tasks import ThreadTasks
from tests import media
from tests.fakes import load_fake

ray = pytest.importorskip("ray")
CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=4, metrics=MetricPolicy.parse("none")
)


def process() -> int:
    return os.getpid()


def divide(by: int) -> float:
    return 1 / by


def crash(tries: Path, lives: int) -> int:
    """Ends its process, as a fault in FFmpeg does, until it was tried often enough; counts each try."""
    with tries.open("a") as out:
        out.write("x")
    count("tried_for_the_test")
    if len(tries.read_text()) <= lives:
        os.kill(os.getpid(), signal.SIGSEGV)
    return lives


class Crashing(RayTasks):
    """Planning, or committing, of one source crashes its process."""

    def __init__(self, function: str, name: str) -> None:
        super().__init__(pause=0.05)
        self._function, self._name = function, name

    def submit(self, function: Any, *arguments: Any) -> Any:
        source = getattr(arguments[0], "source", arguments[0])
        if function.__name__ == self._function and source.name == self._name:
            return super().submit(os.abort)
        return super().submit(function, *arguments)


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


def test_a_process_may_die_and_its_task_goes_on(cluster: None, tmp_path: Path) -> None:
    before = total("task_faults"), total("tried_for_the_test")
    assert RayTasks(pause=0.05).submit(crash, tmp_path / "tries", 2).result(60) == 2
    assert total("task_faults") == before[0] + 2
    assert total("tried_for_the_test") == before[1] + 1, (
        "what a process counts is lost with it, and told once"
    )


def test_a_task_that_always_crashes_is_given_up(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(TaskDied, match="ran crash died 3 times"):
        RayTasks(pause=0.05).submit(crash, tmp_path / "tries", 99).result(60)
    assert (tmp_path / "tries").read_text() == "xxx"


@pytest.mark.parametrize(("function", "survives"), [("plan_video", 0), ("finish_coded", 1)])
def test_a_source_that_crashes_ffmpeg_fails_alone(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, survives: int
) -> None:
    monkeypatch.setattr(compress_module, "make_tasks", lambda config: Crashing(function, "1.mp4"))
    clips = [str(media.make_clip(tmp_path / f"{n}.mp4", frames=6, seed=n)) for n in range(3)]
    report = compress(clips, str(tmp_path / "out"), CONFIG, load_codec=load_fake)
    assert [video.status for video in report.videos] == ["ok", "failed", "ok"]
    assert report.videos[1].error_class == "TaskDied"
    (row,) = (r for r in read_manifest(str(tmp_path / "out")).to_pylist() if r["status"] == "failed")
    assert row["source_name"] == "1.mp4"
    assert "died 3 times" in row["error"]
    staged = list((tmp_path / "out" / "_s2vc").rglob("*.gop"))
    assert bool(staged) == bool(survives), "what was coded stays for the next run"


def test_only_the_local_executor_keeps_them_in_its_process() -> None:
    for config, kind in ((CONFIG, ThreadTasks), (JobConfig(), RayTasks)):
        tasks = make_tasks(config)
        assert isinstance(tasks, kind)
        tasks.close()
