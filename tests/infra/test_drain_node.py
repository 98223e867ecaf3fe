"""A node that is drained leaves once its work is done, or is given up after its time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

DRAIN = Path(__file__).parents[2] / "infra" / "container" / "drain_node.py"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=80 << 20)
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def drain(cluster: Cluster, node_id: str, seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            DRAIN,
            "--seconds",
            str(seconds),
            "--node-id",
            node_id,
            "--address",
            cluster.address,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_work_under_way_ends_and_then_the_node_leaves(cluster: Cluster) -> None:
    @ray.remote(num_cpus=1)
    def work(seconds: float) -> str:
        time.sleep(seconds)
        return ray.get_runtime_context().get_node_id()

    node_id = ray.get(work.remote(0))
    endless = work.remote(60)
    late = drain(cluster, node_id, 3)
    assert late.returncode == 1
    assert "still busy after 3 s" in late.stderr

    ray.cancel(endless, force=True)
    done = drain(cluster, node_id, 30)
    assert done.returncode == 0, done.stderr
    (gone,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
    assert not gone["Alive"]


def test_a_node_that_ray_does_not_know_is_reported() -> None:
    command = [sys.executable, DRAIN, "--seconds", "1", "--node-id", "00", "--address", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("drain_node: ")
