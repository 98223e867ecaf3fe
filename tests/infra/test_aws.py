"""The S3 policy allows every request that the product makes, and none that could harm a source or an archive."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from moto import mock_aws

import s2vc_ray
from s2vc_ray.bag import write_bag
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import decompress
from s2vc_ray.gc import collect
from s2vc_ray.manifest import read_manifest
from s2vc_ray.staging import STAGING
from s2vc_ray.status import status
from s2vc_ray.storage import open_storage
from s2vc_ray.storage_s3 import S3Storage
from s2vc_ray.verify import verify
from s2vc_ray.verify_archive import VerifyOptions
from tests import media
from tests.destinations import sweep
from tests.fakes import load_fake
from tests.infra.iam import PERMISSIONS, Policy, Request

_SEND = BaseClient._make_api_call
FOLDER = Path(__file__).parents[2] / "infra" / "aws"
PLACES = {
    "SOURCE_BUCKET": "tapes",
    "SOURCE_PREFIX": "raw",
    "DESTINATION_BUCKET": "access",
    "DESTINATION_PREFIX": "out",
}


def s3_policy(change: Callable[[str], str] = str) -> Policy:
    text = (FOLDER / "s3-policy.json").read_text()
    for name, value in PLACES.items():
        text = text.replace(name, value)
    return Policy(json.loads(change(text)))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    """Every S3 request that the product makes, in a moto with both buckets."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    made: list[Request] = []

    def noted(client: BaseClient, operation: str, params: dict[str, Any]) -> Any:
        several = [found["Key"] for found in params.get("Delete", {}).get("Objects", ())]
        made.extend(
            Request(operation, params["Bucket"], key, "IfNoneMatch" in params)
            for key in several or [params.get("Key")]
        )
        return _SEND(client, operation, params)

    with mock_aws():
        for bucket in ("tapes", "access"):
            operator().create_bucket(Bucket=bucket)
        monkeypatch.setattr(BaseClient, "_make_api_call", noted)
        yield made


def operator() -> Any:
    """A client of somebody else, whose requests are not the product's."""
    client = boto3.client("s3", region_name="us-east-1")
    client._make_api_call = MethodType(_SEND, client)
    return client


def refused(policy: Policy, requests: list[Request]) -> list[Request]:
    return [request for request in dict.fromkeys(requests) if not policy.allows(request)]


def test_a_job_and_what_follows_it_need_nothing_more(requests: list[Request], tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "a.mp4", frames=20, size=(66, 50), audio="aac")
    operator().upload_file(str(clip), "tapes", "raw/a.mp4")
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
    )
    for _ in range(2):
        report = compress(["s3://tapes/raw"], "s3://access/out", config, load_codec=load_fake)
        assert report.clean
    (row, *_) = read_manifest("s3://access/out").to_pylist()
    decompress(
        f"s3://access/out/{row['archive']}", str(tmp_path / "b.mp4"), model="fake", load_codec=load_fake
    )
    storage = open_storage("s3://access/out")
    storage.put(f"{STAGING}/{16 * '0'}/{16 * '0'}-{16 * '0'}-{8 * '0'}/000000.gop", b"left over")
    assert collect(storage, older_than=-60).objects == 1
    assert status(storage, older_than=60).clean
    assert write_bag(storage).entries == 2
    for options in (VerifyOptions("structure"), VerifyOptions("pixels", model="fake", limit=0)):
        (found,) = verify(["s3://access/out"], options, load_codec=load_fake)
        assert found.events is not None
        assert set(found.counts) == ({"ok"} if options.depth == "structure" else {"not measured"})
    made = {found.operation for found in requests}
    assert made >= {"ListObjectsV2", "ListMultipartUploads", "GetObject", "PutObject"}
    assert made & {"DeleteObject", "DeleteObjects"}
    assert refused(s3_policy(), requests) == []


def test_every_operation_of_the_storage_is_allowed_where_it_belongs(
    requests: list[Request], tmp_path: Path
) -> None:
    storage = S3Storage("access", "out", part_bytes=5 << 20)
    (tmp_path / "film").write_bytes(os.urandom(6 << 20))
    assert storage.put_file("film.s2vc", tmp_path / "film")
    assert storage.stat("no-such") is None
    storage.put(f"{STAGING}/v/f/000000.gop", b"x")
    storage.delete(f"{STAGING}/v/f/000000.gop")
    storage.delete_many([f"{STAGING}/v/f/000001.gop", f"{STAGING}/v/f/000002.gop"])
    operator().create_multipart_upload(Bucket="access", Key="out/dangling")
    assert sweep(storage, older_than=-60) == 1
    S3Storage("tapes", "raw").stat("no-such")

    assert {found.operation for found in requests} >= set(PERMISSIONS) - {"GetObject"}
    assert refused(s3_policy(), requests) == []


def test_the_source_names_no_operation_that_the_evaluator_does_not_know() -> None:
    text = "".join(path.read_text() for path in Path(s2vc_ray.__file__).parent.glob("*.py"))
    called = set(re.findall(r"client\.([a-z]+_[a-z_0-9]+)\b", text)) | set(
        re.findall(r'pages\("(\w+)"', text)
    )
    names = {"".join(part.title() for part in name.split("_")) for name in called - {"get_paginator"}}
    assert names == set(PERMISSIONS)


def test_only_the_list_of_digests_may_be_replaced() -> None:
    for operation in ("PutObject", "CompleteMultipartUpload"):
        assert s3_policy().allows(Request(operation, "access", "out/manifest-sha256.txt"))
        assert not s3_policy().allows(Request(operation, "access", "out/in/manifest-sha256.txt"))
        assert not s3_policy().allows(Request(operation, "access", "out/a.mp4.framemd5"))


FORBIDDEN = [
    Request("PutObject", "tapes", "raw/a.mp4", if_none_match=True),
    Request("DeleteObject", "tapes", "raw/a.mp4"),
    Request("CreateMultipartUpload", "tapes", "raw/a.mp4"),
    Request("AbortMultipartUpload", "tapes", "raw/a.mp4"),
    Request("ListMultipartUploads", "tapes"),
    Request("GetObject", "tapes", "private/a.mp4"),
    Request("GetObject", "elsewhere", "out/a"),
    Request("GetObject", "access", "outside/a"),
    Request("PutObject", "access", "outside/a", if_none_match=True),
    Request("PutObject", "access", "out/a.mp4.s2vc"),
    Request("CompleteMultipartUpload", "access", "out/a.mp4.s2vc"),
    Request("DeleteObject", "access", "out/a.mp4.s2vc"),
    Request("DeleteObject", "access", "out/manifest/job=j/v.parquet"),
    Request("DeleteObject", "access", "out/_s2vc"),
    Request("GetObject", "tapes", "raw/a.mp4", secure=False),
]


@pytest.mark.parametrize("request_", FORBIDDEN, ids=lambda found: f"{found.operation} {found.key}")
def test_nothing_else_is_allowed(request_: Request) -> None:
    assert not s3_policy().allows(request_)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"s3:PutObject", ', ""),
        ('"s3:ListBucketMultipartUploads"', '"s3:ListBucketVersions"'),
        ("_s2vc/staging/*", "_s2vc/other/*"),
        ('"s3:ObjectCreationOperation": "true"', '"s3:ObjectCreationOperation": "false"'),
    ],
)
def test_a_policy_that_allows_too_little_is_found(
    requests: list[Request], tmp_path: Path, old: str, new: str
) -> None:
    assert old in (FOLDER / "s3-policy.json").read_text()
    test_every_operation_of_the_storage_is_allowed_where_it_belongs(requests, tmp_path)
    assert refused(s3_policy(lambda text: text.replace(old, new)), requests)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_s2vc/staging/*", "*"),
        ('"s3:if-none-match": "true"', '"s3:if-none-match": "false"'),
        ("tapes/raw/*", "tapes/*"),
        ('"aws:SecureTransport": "false"', '"aws:SecureTransport": "never"'),
    ],
)
def test_a_policy_that_allows_too_much_is_found(old: str, new: str) -> None:
    policy = s3_policy(lambda text: text.replace(old, new))
    assert any(policy.allows(found) for found in FORBIDDEN)


def test_only_the_pods_own_account_may_become_the_role() -> None:
    document = json.loads((FOLDER / "irsa-trust-policy.json").read_text())
    (statement,) = document["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    provider = statement["Principal"]["Federated"].partition("oidc-provider/")[2]
    assert statement["Condition"]["StringEquals"] == {
        f"{provider}:aud": "sts.amazonaws.com",
        # Namespace and name as infra/kuberay has them.
        f"{provider}:sub": "system:serviceaccount:s2vc:s2vc",
    }
    machines = json.loads((FOLDER / "ec2-trust-policy.json").read_text())["Statement"]
    assert [found["Principal"] for found in machines] == [{"Service": "ec2.amazonaws.com"}]
