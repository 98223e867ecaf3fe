"""A node that is drained leaves once its work is done; one that is not done in time says so."""

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
    for name in ("patient", "hasty"):
        cluster.add_node(num_cpus=1, resources={name: 1}, object_store_memory=80 << 20)
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def drain(node_id: str, seconds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DRAIN, "--seconds", str(seconds), "--node-id", node_id]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_a_node_leaves_when_its_work_is_done_or_says_that_its_time_is_up(cluster: Cluster) -> None:
    @ray.remote(num_cpus=1, max_retries=0)
    def work(seconds: float) -> str:
        time.sleep(seconds)
        return str(ray.get_runtime_context().get_node_id())

    def alive() -> set[str]:
        return {node["NodeID"] for node in ray.nodes() if node["Alive"]}

    patient, hasty = (work.options(resources={name: 1}) for name in ("patient", "hasty"))
    nodes = ray.get([patient.remote(0), hasty.remote(0)])
    assert set(nodes) <= alive()

    soon = patient.remote(3)
    done = drain(nodes[0], 60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ray.get(soon) == nodes[0]
    assert set(nodes) & alive() == {nodes[1]}

    endless = hasty.remote(600)
    late = drain(nodes[1], 2)
    assert late.returncode == 1
    assert "still busy after 2 s" in late.stderr
    ray.cancel(endless, force=True)


def test_a_machine_without_that_node_says_so() -> None:
    done = drain("00", 1)
    assert done.returncode == 1
    assert done.stderr == "drain_node: 0 raylets run here as node 00\n"
