"""Real Ray clusters with pretended GPUs, whose actors, nodes and devices are taken away under a job."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

import tests.fakes
from s2vc_ray import counters
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import Dispatch, GopBatch, GopFailure, GopOutcome, GopTask
from s2vc_ray.probe import probe
from s2vc_ray.ray_executor import RayExecutor
from s2vc_ray.ray_pool import Pace
from s2vc_ray.split import split
from s2vc_ray.staging import StagedGop
from s2vc_ray.targets import Floor
from s2vc_ray.worker import CodecLoader
from tests import media
from tests.fakes import FakeCodec, load_fake

pytestmark = pytest.mark.slow

PACE = Pace(look=0.5, idle=1.0, first_pause=0.1, longest_pause=1.0, linger=1.0, start=60.0, remind=1.0)
NODE: dict[str, Any] = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80 << 20}
PATIENCE = 120.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without GPUs and a node with two. The tests that add and lose nodes come in their order."""
    cloudpickle.register_pickle_by_value(tests.fakes)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 1, "num_gpus": 0})
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Bench:
    """One executor and a way to drive it step by step."""

    def __init__(
        self,
        folder: Path,
        model: str,
        pace: Pace = PACE,
        load_codec: CodecLoader = load_fake,
        **options: Any,
    ) -> None:
        defaults: dict[str, Any] = {"device": "cuda", "metrics": MetricPolicy.parse("none")}
        self.config = JobConfig(model=model, gop=8, **{**defaults, **options})
        self.folder = folder
        self.executor = RayExecutor(str(folder / "out"), self.config, load_codec, pace=pace)
        self.failed_tries: list[GopFailure] = []
        self.outcomes: list[GopOutcome] = []
        self.dispatch = Dispatch(
            self.executor, self.config.attempts, lambda failure, final: self.failed_tries.append(failure)
        )
        self.batches: list[GopBatch] = []
        self.added = 0

    def add(self, *lengths: int) -> None:
        """One GOP of each length, at most 8, each a batch of its own."""
        clip = self.folder / "v.mp4"
        if not clip.exists():
            media.make_clip(clip, frames=8)
        (spec,) = split(probe(str(clip)), source_uri=str(clip), video_id="v", gop=8)
        for length in lengths:
            self.added += 1
            shorter = dataclasses.replace(spec, index=self.added - 1, pts=spec.pts[:length])
            self.batches.append(GopBatch((GopTask(shorter, "_s2vc/staging/v/f"),)))

    def step(self) -> None:
        self.dispatch.fill(lambda: self.batches.pop(0) if self.batches else None)
        self.outcomes += self.dispatch.collect(0.1)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.step()

    def finish(self) -> list[StagedGop]:
        """Run to the end; the GOPs that are staged."""
        self.until(lambda: not self.batches and self.dispatch.idle)
        return [outcome for outcome in self.outcomes if isinstance(outcome, StagedGop)]

    def where(self) -> list[tuple[int, str, list[str]]]:
        """Process, node and GPUs of each actor that is up."""
        return ray.get([actor.__ray_call__.remote(_where) for actor in self.executor.actors])


def _where(actor: Any) -> tuple[int, str, list[str]]:
    context = ray.get_runtime_context()
    return os.getpid(), context.get_node_id(), context.get_accelerator_ids()["GPU"]


def _drain(cluster: Cluster, node: str) -> None:
    """Give notice, as for a spot machine."""
    soon = int(1000 * (time.time() + 60))
    accepted, why = GcsClient(cluster.address).drain_node(
        node, autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION, "test", soon
    )
    assert accepted, why


def counted(name: str, **labels: str) -> int:
    wanted = tuple(sorted(labels.items()))
    return sum(s.value for s in counters.snapshot() if s.name == name and set(wanted) <= set(s.labels))


@pytest.fixture
def bench(tmp_path: Path, cluster: Cluster) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(model: str = "fake", **options: Any) -> Bench:
        made.append(Bench(tmp_path, model, **options))
        made[-1].executor.start()
        return made[-1]

    yield make
    for one in made:
        one.executor.close()


def test_an_elastic_pool_follows_the_cluster_and_gives_back(
    bench: Callable[..., Bench], tmp_path: Path, cluster: Cluster
) -> None:
    """It fills the one node, then the one that joins; one actor has one GPU; without work it shrinks again."""
    gate = tmp_path / "gate"
    job = bench(f"fake:wait=5:{gate}", workers=1, workers_max=4)
    job.add(*[5] * 12)
    assert len(job.executor.actors) == 1
    job.until(lambda: len(job.executor.actors) == 2)
    cluster.add_node(**NODE)
    job.until(lambda: len(job.executor.actors) == 4)
    assert job.executor.window == 8
    places = job.where()
    assert all(len(gpus) == 1 for _, _, gpus in places)
    assert len({(node, gpus[0]) for _, node, gpus in places}) == 4
    gate.touch()
    assert len(job.finish()) == 12
    job.until(lambda: len(job.executor.actors) == 1)
    pool = job.executor.pool
    assert (pool.workers, pool.lanes, pool.gpus) == (1, 1, 1)
    assert 0 < pool.usage.busy < 1


def test_actors_share_a_gpu_and_none_has_two(bench: Callable[..., Bench]) -> None:
    job = bench(workers=4, actors_per_gpu=2)
    job.until(lambda: len(job.executor.actors) == 4)
    places = [(node, tuple(gpus)) for _, node, gpus in job.where()]
    assert all(len(gpus) == 1 for _, gpus in places)
    assert all(places.count(place) <= 2 for place in places)


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "worker_died"), (signal.SIGTERM, "preempted")]
)
def test_a_worker_that_is_killed_or_told_to_stop_costs_no_attempt(
    bench: Callable[..., Bench], tmp_path: Path, number: signal.Signals, reason: str
) -> None:
    gate, before = tmp_path / "gate", counted("batch_faults", reason=reason)
    job = bench(f"fake:wait=5:{gate}", workers=1)
    job.add(5, 5, 5)
    job.step()
    ((process, _, _),) = job.where()
    os.kill(process, number)
    job.until(lambda: counted("batch_faults", reason=reason) > before)
    gate.touch()
    assert [gop.attempts for gop in job.finish()] == [1, 1, 1]
    assert not job.failed_tries
    assert job.where()[0][0] != process


def _waits_in_av1(gate: Path, begun: Path) -> CodecLoader:
    """Of a worker whose fallback codec touches ``begun`` and waits for ``gate``."""

    def load(model: str, device: str) -> FakeCodec:
        from s2vc_ray import fallback_cores
        from s2vc_ray.fallback import encode_av1

        def code(frames: Any, crf: int) -> Any:
            begun.touch()
            while not gate.exists():
                time.sleep(0.02)
            return encode_av1(frames, crf)

        fallback_cores.encode_av1 = code
        return FakeCodec(model, "cpu")

    return load


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "worker_died"), (signal.SIGTERM, "preempted")]
)
def test_neither_does_one_that_codes_what_fell_back(
    bench: Callable[..., Bench], tmp_path: Path, number: signal.Signals, reason: str
) -> None:
    gate, begun, before = tmp_path / "gate", tmp_path / "begun", counted("batch_faults", reason=reason)
    job = bench(
        "fake",
        load_codec=_waits_in_av1(gate, begun),
        workers=1,
        metrics=MetricPolicy.parse("sample:1", ("psnr",)),
        target=Floor("psnr", 40.0),
    )
    job.add(5, 4, 3)
    job.until(begun.exists)
    ((process, _, _),) = job.where()
    os.kill(process, number)
    job.until(lambda: counted("batch_faults", reason=reason) > before)
    gate.touch()
    assert [(gop.codec, gop.attempts) for gop in job.finish()] == [("av1", 1)] * 3
    assert not job.failed_tries


def test_a_lost_device_replaces_the_actor(bench: Callable[..., Bench], tmp_path: Path) -> None:
    job = bench(f"fake:cuda=5:{tmp_path / 'lost'}", workers=1)
    ((process, _, _),) = job.where()
    before = counted("workers_lost", reason="device_lost")
    job.add(8, 5, 8, 8)
    assert [gop.attempts for gop in job.finish()] == [1] * 4
    assert counted("workers_lost", reason="device_lost") == before + 1
    assert job.where()[0][0] != process


def test_poison_is_given_up_and_its_neighbours_are_not(bench: Callable[..., Bench]) -> None:
    job = bench("fake:crash=3", workers=2, attempts=2)
    job.add(8, 8, 3, 8, 8, 8)
    staged = job.finish()
    assert sorted(gop.index for gop in staged) == [0, 1, 3, 4, 5]
    assert [gop.attempts for gop in staged] == [1] * 5
    (lost,) = (outcome for outcome in job.outcomes if isinstance(outcome, GopFailure))
    assert (lost.error_class, lost.attempts, lost.task.spec.index) == ("WorkerDied", 2, 2)


def test_a_hanging_worker_is_overtaken_and_replaced(bench: Callable[..., Bench], tmp_path: Path) -> None:
    job = bench(f"fake:hang=5:{tmp_path / 'hangs'}", workers=2)
    job.until(lambda: len(job.executor.actors) == 2)
    before = {process for process, _, _ in job.where()}
    copies, hung = counted("batch_copies"), counted("workers_lost", reason="hung")
    job.add(5)
    assert len(job.finish()) == 1
    assert counted("batch_copies") > copies
    job.until(lambda: counted("workers_lost", reason="hung") == hung + 1 and len(job.executor.actors) == 2)
    assert len({process for process, _, _ in job.where()} - before) == 1


def test_a_worker_that_hangs_with_nobody_to_help_is_ended(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """Also a GOP at which the codec hangs must not hold up a job for ever."""
    pace = dataclasses.replace(PACE, hopeless=3.0)
    job = bench(f"fake:hang=5:{tmp_path / 'hangs'}", pace=pace, workers=1)
    job.add(8)
    job.finish()
    job.add(5, 8)
    assert [gop.attempts for gop in job.finish()] == [1, 1, 1]
    assert counted("batch_faults", reason="hung") >= 1


def test_a_job_outlives_all_its_nodes(
    tmp_path: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Only one node has what the actors need; it is lost with two batches under way, and another one joins later."""
    gate = tmp_path / "gate"
    node = cluster.add_node(**{**NODE, "num_cpus": 4})
    job = Bench(tmp_path, f"fake:wait=5:{gate}", workers=1, workers_max=2, threads=4)
    try:
        job.executor.start()
        job.add(5, 5, 8, 8)
        job.step()
        cluster.remove_node(node, allow_graceful=False)
        job.until(lambda: not job.executor.actors)
        gate.touch()
        job.until(lambda: "no worker is up" in caplog.text)
        cluster.add_node(**{**NODE, "num_cpus": 4})
        assert [gop.attempts for gop in job.finish()] == [1] * 4
        assert not job.failed_tries
    finally:
        job.executor.close()


def test_a_cluster_without_room_is_an_error_in_time(tmp_path: Path, cluster: Cluster) -> None:
    pace = Pace(look=0.2, start=1.0)
    job = Bench(tmp_path, "fake", pace, workers=1, threads=64)
    with pytest.raises(ConfigError, match="each needs 64 CPUs and 1 GPUs; the cluster has"):
        job.executor.start()
    job.executor.close()


def test_a_model_that_is_not_there_is_an_error_at_the_start(tmp_path: Path, cluster: Cluster) -> None:
    job = Bench(tmp_path, "nonsense", workers=1)
    with pytest.raises(ConfigError, match="no model 'nonsense'"):
        job.executor.start()
    job.executor.close()


def test_a_draining_node_finishes_what_it_has_and_gets_no_more(
    tmp_path: Path, cluster: Cluster, bench: Callable[..., Bench]
) -> None:
    gate = tmp_path / "gate"
    job = bench(f"fake:wait=5:{gate}", workers=1)
    job.add(5, 5, 8)
    job.step()
    ((_, where, _),) = job.where()
    _drain(cluster, where)
    job.until(lambda: [place for _, place, _ in job.where()] not in ([], [where]))
    gate.touch()
    assert len(job.finish()) == 3
