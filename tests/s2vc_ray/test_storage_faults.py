"""S3 that fails in every way it can, each told from the others: what passes is survived, what does not is named."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3
from moto.server import ThreadedMotoServer

from s2vc_ray import counters, s3_client
from s2vc_ray.backoff import Patience
from s2vc_ray.errors import ConfigError, StorageError, StoreUnavailable
from s2vc_ray.storage import open_source, open_storage, stat_source
from s2vc_ray.storage_s3 import S3Storage
from tests.faulty_s3 import (
    Fault,
    FaultyS3,
    answer,
    at_time,
    corrupt_answer,
    corrupt_request,
    cut,
    cut_body,
    cut_request,
    fail_after,
    faulty_s3,
    hang,
    hang_after,
    lose_answer,
    shorten,
    stall_request,
    without_ranges,
)
from tests.seaweed import SeaweedServer

MIB = 1 << 20
# A machine that is slow for a moment meets the short timeout: tests count retries with "at least".
BRISK = Patience(seconds=30, first=0.01, longest=0.05, connect_timeout=1, read_timeout=0.4)
DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A server with one bucket, ``bucket``; each test has a prefix of its own there."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib3.request("PUT", f"http://{host}:{port}/bucket")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, no waiting inside botocore, and counters at zero."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: random.uniform(0, 0.02)
    )
    monkeypatch.setattr(counters, "_counts", Counter())


@pytest.fixture(scope="module")
def module_proxy(moto: str) -> Iterator[FaultyS3]:
    with faulty_s3(moto) as proxy:
        yield proxy


@pytest.fixture
def proxy(module_proxy: FaultyS3) -> FaultyS3:
    """The module's proxy, whole again: with it, all tests share one client."""
    module_proxy.heal()
    module_proxy.seen.clear()
    return module_proxy


@pytest.fixture
def storage(proxy: FaultyS3) -> S3Storage:
    prefix = os.urandom(6).hex()
    return S3Storage(
        "bucket", prefix, endpoint_url=proxy.endpoint, part_bytes=5 * MIB, patience=BRISK, shared=True
    )


def retries() -> dict[str, int]:
    return {dict(s.labels)["reason"]: s.value for s in counters.snapshot() if s.name == "s3_retries"}


def exercise(storage: S3Storage) -> None:
    """Every kind of request once, with what must come of it."""
    assert storage.put("a", DATA)
    assert not storage.put("a", b"other")
    assert storage.read("a") == DATA
    assert storage.read("a", 10, 20) == DATA[10:20]
    with storage.open("a") as stream:
        assert stream.read() == DATA
    assert [found.key for found in storage.list()] == ["a"]
    assert abs(storage.now() - time.time()) < 10
    storage.delete("a")
    assert storage.stat("a") is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (answer(500, "InternalError"), "server_error"),
        (answer(502, "BadGateway"), "server_error"),
        (answer(503, "ServiceUnavailable"), "server_error"),
        (answer(503, "SlowDown"), "throttled"),
        (answer(429, "TooManyRequests"), "throttled"),
        (answer(400, "RequestTimeout"), "timeout"),
        (answer(409, "OperationAborted"), "conflict"),
        (cut, "connection"),
        (hang, "timeout"),
    ],
)
def test_what_passes_is_survived_and_counted(
    storage: S3Storage, proxy: FaultyS3, fault: Fault, reason: str
) -> None:
    # Seven in a row are more than botocore itself repeats.
    puts = 2 if fault is hang else 7
    proxy.next("PUT", *[fault] * puts)
    proxy.next("GET", fault)
    proxy.next("DELETE", fault)
    exercise(storage)
    assert retries()[reason] >= puts + 2


@pytest.mark.parametrize("fault", [answer(500, ""), answer(503, ""), answer(429, ""), cut, hang])
def test_a_head_that_fails_has_only_its_status_to_say_so(
    storage: S3Storage, proxy: FaultyS3, fault: Fault
) -> None:
    proxy.next("HEAD", *[fault] * 2)
    assert storage.stat("k") is None
    assert sum(retries().values()) >= 2


def test_patience_ends_and_the_error_says_with_what(storage: S3Storage, proxy: FaultyS3) -> None:
    short = S3Storage(storage.bucket, endpoint_url=proxy.endpoint, patience=replace(BRISK, seconds=0.3))
    proxy.always("ANY", answer(503, "SlowDown", "please reduce your request rate"))
    with pytest.raises(StoreUnavailable, match="SlowDown: please reduce your request rate"):
        short.put("k", b"x")
    proxy.always("ANY", cut)
    with pytest.raises(StoreUnavailable, match="cannot reach http"):
        short.read("k")
    assert retries()["throttled"] > 3


def test_a_short_outage_of_the_whole_server_is_survived(storage: S3Storage, proxy: FaultyS3) -> None:
    outage_ends = time.monotonic() + 1

    def outage(exchange: object) -> None:
        if time.monotonic() > outage_ends:
            proxy.heal()

    proxy.always("ANY", outage)
    exercise(storage)


@pytest.mark.parametrize("fault", [cut_body(0), cut_body(3000), shorten(1), shorten(5000)])
@pytest.mark.parametrize("ranged", [False, True])
def test_a_body_that_breaks_off_is_read_again(
    storage: S3Storage, proxy: FaultyS3, fault: Fault, ranged: bool
) -> None:
    storage.put("k", DATA)
    proxy.next("GET", fault, fault)
    assert (
        storage.read("k", *((1, 9000) if ranged else ())) == DATA[slice(*((1, 9000) if ranged else (None,)))]
    )
    assert sum(retries().values()) >= 2


def test_a_truncated_range_never_reaches_a_reader(storage: S3Storage, proxy: FaultyS3) -> None:
    storage.put("k", DATA)
    short = S3Storage(
        storage.bucket, storage.prefix, endpoint_url=proxy.endpoint, patience=replace(BRISK, seconds=0.2)
    )
    proxy.always("GET", shorten(1))
    with pytest.raises(StorageError, match="bytes"):
        short.read("k", 0, 100)
    with short.open("k") as stream, pytest.raises(StorageError, match="bytes"):
        stream.read(100)


def test_a_server_without_ranged_reads_is_read_right(storage: S3Storage, proxy: FaultyS3) -> None:
    storage.put("k", DATA)
    proxy.always("GET", without_ranges)
    assert storage.read("k", 100, 200) == DATA[100:200]
    with storage.open("k") as stream:
        stream.seek(5000)
        assert stream.read(10) == DATA[5000:5010]


def test_bytes_that_arrive_wrong_are_read_again(storage: S3Storage, proxy: FaultyS3) -> None:
    storage.put("k", DATA)
    proxy.next("GET", corrupt_answer, corrupt_answer)
    assert storage.read("k") == DATA
    assert retries()["corrupted"] == 2
    proxy.always("GET", corrupt_answer)
    with pytest.raises(StorageError, match=r"MD5 .*tried 5 times"):
        storage.read("k")


def test_a_listing_that_breaks_off_goes_on_where_it_was(storage: S3Storage, proxy: FaultyS3) -> None:
    keys = [f"k{number}" for number in range(7)]
    for key in keys:
        storage.put(key, b"x")

    def two_a_page(params: dict[str, object], **_: object) -> None:
        params["MaxKeys"] = 2

    own = S3Storage("bucket", storage.prefix, endpoint_url=proxy.endpoint, patience=BRISK)
    own._client.meta.events.register("provide-client-params.s3.ListObjectsV2", two_a_page)
    proxy.next("GET continuation-token", cut_body(50), answer(500, "InternalError"), shorten(40))
    proxy.seen.clear()
    assert [found.key for found in own.list()] == keys
    assert len(proxy.seen) >= 4 + 3


@pytest.mark.parametrize("fault", [lose_answer, hang_after, fail_after(500, "InternalError")])
@pytest.mark.parametrize("times", [1, 5])
def test_a_write_whose_answer_is_lost_is_known_for_its_own(
    storage: S3Storage, proxy: FaultyS3, fault: Fault, times: int
) -> None:
    proxy.next("PUT", *[fault] * (1 if fault is hang_after else times))
    assert storage.put("k", DATA), "it was this very call that wrote it"
    assert counters.total("s3_lost_answers") == 1
    assert not storage.put("k", DATA), "the same bytes from another call are another write"


@pytest.mark.parametrize("fault", [lose_answer, fail_after(503, "SlowDown")])
def test_a_lost_answer_is_not_taken_for_a_win(storage: S3Storage, proxy: FaultyS3, fault: Fault) -> None:
    """The writer that loses, and does not hear of it either, is not told that it won."""
    assert storage.put("k", DATA)
    proxy.next("PUT", fault, fault)
    assert not storage.put("k", DATA)
    assert counters.total("s3_lost_answers") == 0


@pytest.mark.parametrize("fault", [lose_answer, fail_after(500, "InternalError"), cut, hang_after])
def test_closing_an_upload_whose_answer_is_lost_is_known_for_its_own(
    storage: S3Storage, proxy: FaultyS3, tmp_path: Path, fault: Fault
) -> None:
    (tmp_path / "file").write_bytes(DATA * 1100)
    proxy.next("POST uploadId", fault)
    assert storage.put_file("k", tmp_path / "file")
    assert storage.read("k") == DATA * 1100
    assert not storage.put_file("k", tmp_path / "file")
    assert list(storage.unfinished()) == []


@pytest.mark.parametrize("fault", [cut, hang, answer(503, "SlowDown"), lose_answer])
def test_a_part_that_is_lost_is_sent_again(
    storage: S3Storage, proxy: FaultyS3, tmp_path: Path, fault: Fault
) -> None:
    (tmp_path / "file").write_bytes(DATA * 1100)
    proxy.next("PUT partNumber=2", fault)
    assert storage.put_file("k", tmp_path / "file")
    assert storage.read("k") == DATA * 1100
    assert list(storage.unfinished()) == []


@pytest.mark.parametrize("fault", [cut_request, stall_request])
def test_a_body_that_does_not_get_through_is_sent_again(
    storage: S3Storage, proxy: FaultyS3, fault: Fault
) -> None:
    """More bytes than sockets buffer, so that the sender notices while it sends."""
    data = bytes(16 * MIB)
    proxy.next("PUT", fault)
    assert storage.put("k", data)
    assert storage.read("k") == data
    assert sum(retries().values()) >= 1


def test_an_upload_that_somebody_aborts_is_begun_afresh(
    storage: S3Storage, proxy: FaultyS3, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(DATA * 1100)
    proxy.next("PUT partNumber=2", answer(404, "NoSuchUpload"))
    assert storage.put_file("k", tmp_path / "file")
    assert storage.read("k") == DATA * 1100
    proxy.always("PUT partNumber=2", answer(404, "NoSuchUpload"))
    with pytest.raises(StorageError, match="aborted 5 times"):
        storage.put_file("other", tmp_path / "file")


@pytest.mark.s3
def test_bytes_that_are_spoilt_on_their_way_in_are_sent_again(
    seaweed_server: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS, like S3, checks Content-MD5; moto does not."""
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "file").write_bytes(DATA * 1100)
    with faulty_s3(seaweed_server.endpoint) as proxy:
        storage = S3Storage(
            seaweed_server.new_bucket(), endpoint_url=proxy.endpoint, part_bytes=5 * MIB, patience=BRISK
        )
        proxy.next("PUT", corrupt_request)
        assert storage.put("k", DATA)
        proxy.next("PUT partNumber=2", corrupt_request)
        proxy.next("POST uploadId", lose_answer)
        assert storage.put_file("f", tmp_path / "file")
        assert (storage.read("k"), storage.read("f")) == (DATA, DATA * 1100)
        assert retries()["corrupted"] == 2
        assert list(storage.unfinished()) == []
        proxy.always("PUT", corrupt_request)
        with pytest.raises(StorageError, match=r"Digest|MD5|Checksum|SHA256"):
            storage.put("l", DATA)
        assert storage.stat("l") is None


def _put_file(storage: S3Storage) -> None:
    storage.part_bytes = 5
    storage.put_file("k", __file__, overwrite=True)


@pytest.mark.parametrize(
    ("method", "call", "permission"),
    [
        ("PUT", lambda s: s.put("k", b"x"), "s3:PutObject"),
        ("POST", _put_file, "s3:PutObject"),
        ("GET", lambda s: s.read("k"), "s3:GetObject"),
        ("HEAD", lambda s: s.stat("k"), "s3:GetObject"),
        ("GET", lambda s: list(s.list()), "s3:ListBucket"),
        ("GET", lambda s: list(s.unfinished()), "s3:ListBucketMultipartUploads"),
        ("DELETE", lambda s: s.delete("k"), "s3:DeleteObject"),
        ("POST", lambda s: s.delete_many(["k"]), "s3:DeleteObject"),
    ],
)
def test_what_permission_is_missing_is_named_at_once(
    storage: S3Storage, proxy: FaultyS3, method: str, call: Callable[[S3Storage], None], permission: str
) -> None:
    proxy.always(method, answer(403, "AccessDenied"))
    with pytest.raises(StorageError, match=f"permission denied .*{permission}.*{storage.bucket}") as caught:
        call(storage)
    assert not isinstance(caught.value, StoreUnavailable)
    assert len(proxy.seen) == 1
    assert retries() == {}


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (400, "ExpiredToken", "credentials have expired"),
        (403, "InvalidAccessKeyId", "does not accept the AWS credentials"),
        (403, "SignatureDoesNotMatch", "does not accept the AWS credentials"),
        (403, "RequestTimeTooSkewed", "this machine's clock"),
        (404, "NoSuchBucket", "does not exist at http"),
        (400, "MalformedXML", "MalformedXML: made up"),
        (501, "NotImplemented", "NotImplemented: made up"),
    ],
)
def test_what_does_not_pass_is_told_at_once(
    storage: S3Storage, proxy: FaultyS3, status: int, code: str, said: str
) -> None:
    proxy.always("PUT", answer(status, code))
    with pytest.raises(StorageError, match=said) as caught:
        storage.put("k", b"x")
    assert not isinstance(caught.value, StoreUnavailable)
    assert len(proxy.seen) == 1


def test_many_objects_are_deleted_in_few_requests(storage: S3Storage, proxy: FaultyS3) -> None:
    for number in range(5):
        storage.put(f"k{number}", b"x")
    proxy.seen.clear()
    storage.delete_many(f"k{number}" for number in range(1500))
    assert len(proxy.seen) == 2
    assert list(storage.list()) == []
    storage.put("k", b"x")
    proxy.always("POST", answer(501, "NotImplemented"))
    storage.delete_many(["k", "no such"])
    assert list(storage.list()) == []


def test_ages_are_of_the_stores_clock(storage: S3Storage, proxy: FaultyS3) -> None:
    proxy.always("GET", at_time("Sun, 06 Nov 1994 08:49:37 GMT"))
    assert storage.now() == 784111777
    proxy.always("GET", at_time(""))
    with pytest.raises(StorageError, match="what time it is"):
        storage.now()


def test_patience_can_be_set_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2VC_S3_PATIENCE", "5")
    storage = open_storage("s3://bucket")
    assert isinstance(storage, S3Storage)
    assert storage.patience.seconds == 5
    for nonsense in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv("S2VC_S3_PATIENCE", nonsense)
        with pytest.raises(ConfigError, match="S2VC_S3_PATIENCE"):
            open_storage("s3://bucket")


def test_pauses_grow_with_jitter_up_to_a_bound() -> None:
    patience = Patience(seconds=1000, first=1, longest=8)
    pauses = list(patience.pauses())
    assert 200 < len(pauses) < 300
    assert all(
        0 <= pause <= limit for pause, limit in zip(pauses, [1, 2, 4, *[8] * len(pauses)], strict=False)
    )
    assert len(set(pauses)) > 100
    assert list(Patience(seconds=0).pauses()) == []


def test_a_source_is_read_through_faults_as_well(
    storage: S3Storage, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put("clip.mp4", DATA)
    proxy.next("GET", cut_body(100))
    proxy.next("HEAD", answer(500, "InternalError"))
    with open_source(f"{storage.uri}/clip.mp4", endpoint_url=proxy.endpoint, patience=BRISK) as stream:
        assert stream.read() == DATA


def test_sources_share_a_client_until_the_environment_changes(
    storage: S3Storage, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put("clip.mp4", DATA)
    made: list[object] = []
    make = s3_client.make_client
    monkeypatch.setattr(s3_client, "_shared", {})
    monkeypatch.setattr(s3_client, "make_client", lambda *wanted: made.append(wanted) or make(*wanted))
    for _ in range(5):
        stat_source(f"{storage.uri}/clip.mp4", endpoint_url=proxy.endpoint)
    assert len(made) == 1
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    stat_source(f"{storage.uri}/clip.mp4", endpoint_url=proxy.endpoint)
    assert len(made) == 2
