"""What only the S3 backend promises: multipart uploads, credentials, and errors that say what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, IncompleteReadError
from moto import mock_aws

from s2vc_ray.backoff import Patience
from s2vc_ray.errors import StorageError
from s2vc_ray.storage import open_storage
from s2vc_ray.storage_s3 import S3Storage
from tests.destinations import sweep
from tests.seaweed import SeaweedServer

MIB = 1 << 20
BRISK = Patience(seconds=1, first=0.01, longest=0.05)


@pytest.fixture
def server(seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> SeaweedServer:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    return seaweed_server


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Storage]:
    """A storage on moto, which (unlike SeaweedFS) does not make missing buckets by itself."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
        yield S3Storage("bucket", "pre", part_bytes=5 * MIB, patience=BRISK)


@pytest.mark.s3
def test_large_files_go_up_in_parts_and_come_back(server: SeaweedServer, tmp_path: Path) -> None:
    data = os.urandom(MIB) * 11 + b"tail"
    (tmp_path / "file").write_bytes(data)
    storage = S3Storage(server.new_bucket(), "p", part_bytes=5 * MIB)
    assert storage.put_file("k", tmp_path / "file")
    found = storage.stat("k")
    assert found is not None
    assert found.etag.endswith("-3")
    with storage.open("k") as stream:
        stream.seek(5 * MIB - 3)
        assert stream.read(6) == data[5 * MIB - 3 : 5 * MIB + 3]
        stream.seek(0)
        assert stream.read() == data


@pytest.mark.s3
def test_a_client_killed_mid_upload_leaves_no_object(server: SeaweedServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (11 * MIB))
    bucket = server.new_bucket()
    script = (
        "import os, signal, sys\n"
        "from s2vc_ray.storage_s3 import S3Storage\n"
        "storage = S3Storage(sys.argv[1], 'p', part_bytes=5 << 20)\n"
        "def die(params, **_):\n"
        "    if params['PartNumber'] == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage._client.meta.events.register('provide-client-params.s3.UploadPart', die)\n"
        "storage.put_file('k', sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, bucket, str(tmp_path / "file")], check=False)
    assert done.returncode == -signal.SIGKILL
    storage = S3Storage(bucket, "p", part_bytes=5 * MIB)
    assert storage.stat("k") is None
    assert list(storage.list()) == []
    assert sweep(storage, older_than=3600) == 0, "it may still be at work"
    assert sweep(storage, "other/", older_than=-60) == 0
    assert sweep(storage, older_than=-60) == 1
    assert sweep(storage, older_than=-60) == 0
    assert storage.put_file("k", tmp_path / "file")


@pytest.mark.s3
def test_wrong_credentials_are_named(server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = server.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage = open_storage(f"s3://{bucket}")
    for attempt in (lambda: storage.put("k", b"x"), lambda: storage.stat("k"), lambda: list(storage.list())):
        with pytest.raises(StorageError, match="permission denied"):
            attempt()


@pytest.mark.s3
def test_the_endpoint_can_be_an_argument(server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = server.new_bucket()
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage = open_storage(f"s3://{bucket}", endpoint_url=server.endpoint)
    assert storage.put("k", b"x")
    assert storage.read("k") == b"x"


@pytest.mark.s3
def test_a_stream_never_mixes_two_versions(server: SeaweedServer) -> None:
    storage = open_storage(f"s3://{server.new_bucket()}")
    storage.put("k", b"1" * (3 * MIB))
    with storage.open("k") as stream:
        stream.read(10)
        storage.put("k", b"2" * (3 * MIB), overwrite=True)
        stream.seek(2 * MIB)
        with pytest.raises(StorageError, match="replaced while it was read"):
            stream.read(10)


def test_a_missing_bucket_is_named(mocked: S3Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (6 * MIB))
    for attempt in (
        lambda storage: storage.stat("k"),
        lambda storage: storage.read("k"),
        lambda storage: storage.open("k"),
        lambda storage: storage.put("k", b"x"),
        lambda storage: storage.put_file("k", tmp_path / "file", overwrite=True),
        lambda storage: list(storage.list()),
        lambda storage: storage.delete("k"),
    ):
        with pytest.raises(StorageError, match="bucket 'nowhere' does not exist"):
            attempt(S3Storage("nowhere", part_bytes=5 * MIB))
    assert mocked.stat("k") is None


def test_a_missing_bucket_is_told_from_a_missing_object(
    mocked: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS answers both with a bare 404 to a HEAD."""

    def not_found(**_: str) -> None:
        raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")

    nowhere = S3Storage("nowhere")
    for storage in (mocked, nowhere):
        monkeypatch.setattr(storage._client, "head_object", not_found)
    assert mocked.stat("k") is None
    with pytest.raises(StorageError, match="bucket 'nowhere' does not exist"):
        nowhere.stat("k")


def test_missing_credentials_are_named(mocked: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(StorageError, match="no AWS credentials"):
        mocked.put("k", b"x")


def test_an_unreachable_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("time.sleep", lambda _: None)
    storage = open_storage("s3://bucket", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"cannot reach http://127\.0\.0\.1:9"):
        storage.stat("k")


def test_a_malformed_endpoint_is_named() -> None:
    with pytest.raises(StorageError, match="cannot set up S3 access"):
        open_storage("s3://bucket", endpoint_url="not a url").stat("k")


def test_listing_goes_on_past_a_page_and_skips_folder_markers(mocked: S3Storage) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    for key in ("pre/k0", "pre/k1", "pre/k2", "pre/k3", "pre/k4", "pre/folder/", "prefix-of-another"):
        client.put_object(Bucket="bucket", Key=key, Body=b"")

    def small_pages(params: dict[str, object], **_: object) -> None:
        params["MaxKeys"] = 2

    mocked._client.meta.events.register("provide-client-params.s3.ListObjectsV2", small_pages)
    assert [found.key for found in mocked.list()] == ["k0", "k1", "k2", "k3", "k4"]


def test_a_failed_part_closes_the_upload(mocked: S3Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (11 * MIB))

    def fail(params: dict[str, object], **_: object) -> None:
        if params["PartNumber"] == 2:
            raise ClientError({"Error": {"Code": "InternalError", "Message": "try later"}}, "UploadPart")

    mocked._client.meta.events.register("provide-client-params.s3.UploadPart", fail)
    with pytest.raises(StorageError, match="InternalError: try later"):
        mocked.put_file("k", tmp_path / "file")
    assert mocked.stat("k") is None
    assert sweep(mocked, older_than=-60) == 0


def test_a_file_that_shrinks_during_the_upload_is_no_object(mocked: S3Storage, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (11 * MIB))

    def shrink(params: dict[str, object], **_: object) -> None:
        os.truncate(path, 6 * MIB)

    mocked._client.meta.events.register("provide-client-params.s3.UploadPart", shrink)
    with pytest.raises(StorageError, match="changed while it was uploaded"):
        mocked.put_file("k", path)
    assert mocked.stat("k") is None


def test_racing_writers_are_asked_again(mocked: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    refusals = iter(["ConditionalRequestConflict", "ConditionalRequestConflict"])

    def conflict(**_: object) -> None:
        if code := next(refusals, None):
            raise ClientError({"Error": {"Code": code, "Message": ""}}, "PutObject")

    mocked._client.meta.events.register("provide-client-params.s3.PutObject", conflict)
    assert mocked.put("k", b"x")
    assert mocked.read("k") == b"x"


def test_a_connection_lost_in_the_body_is_tried_again(
    mocked: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    mocked.put("k", b"whole")
    broken = iter([True, True])
    get_object = mocked._client.get_object

    class Broken:
        def read(self) -> bytes:
            raise IncompleteReadError(actual_bytes=1, expected_bytes=5)

    def flaky(**wanted: str) -> dict[str, object]:
        return {"Body": Broken()} if next(broken, False) else get_object(**wanted)

    monkeypatch.setattr(mocked._client, "get_object", flaky)
    assert mocked.read("k") == b"whole"
