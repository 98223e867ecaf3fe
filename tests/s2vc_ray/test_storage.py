"""The contract that every storage backend passes, on a folder and on a real S3 server."""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError
from s2vc_ray.range_stream import RangeStream
from s2vc_ray.storage import (
    Storage,
    check_key,
    local_path,
    open_source,
    open_storage,
    stat_source,
)
from s2vc_ray.storage_local import LocalStorage
from s2vc_ray.storage_s3 import S3Storage
from tests.destinations import sweep
from tests.seaweed import SeaweedServer

RACERS = 8


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "store")
    else:
        server: SeaweedServer = request.getfixturevalue("seaweed_server")
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{server.new_bucket()}/some/prefix"


@pytest.fixture
def storage(uri: str) -> Storage:
    return open_storage(uri)


def test_an_object_comes_back_as_it_was_put(storage: Storage) -> None:
    data = bytes(range(256)) * 40
    assert storage.put("a/b/clip.s2vc", data)
    found = storage.stat("a/b/clip.s2vc")
    assert found is not None
    assert (found.key, found.size) == ("a/b/clip.s2vc", len(data))
    assert found.etag
    assert abs(found.mtime - time.time()) < 60
    assert storage.read("a/b/clip.s2vc") == data


def test_ranges_are_cut_at_the_end_of_the_object(storage: Storage) -> None:
    storage.put("k", b"0123456789")
    assert storage.read("k", 3, 6) == b"345"
    assert storage.read("k", 7) == b"789"
    assert storage.read("k", 0, 4) == b"0123"
    assert storage.read("k", 8, 100) == b"89"
    assert storage.read("k", 10) == b""
    assert storage.read("k", 50, 60) == b""
    assert storage.read("k", 4, 4) == b""
    for start, end in ((-1, None), (4, 2)):
        with pytest.raises(ValueError, match="byte range"):
            storage.read("k", start, end)


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    assert storage.put("empty", b"")
    assert storage.read("empty") == b""
    assert storage.read("empty", 0, 5) == b""
    with storage.open("empty") as stream:
        assert stream.read() == b""
    found = storage.stat("empty")
    assert found is not None
    assert found.size == 0


def test_a_missing_object_is_none_or_an_error(storage: Storage) -> None:
    assert storage.stat("none") is None
    for attempt in (
        lambda: storage.read("none"),
        lambda: storage.read("none", 2, 3),
        lambda: storage.read("none", 2, 2),
        lambda: storage.open("none"),
    ):
        with pytest.raises(ObjectMissing, match="none"):
            attempt()
    storage.delete("none")


def test_put_leaves_an_existing_object_alone_unless_told(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"from file")
    assert storage.put("k", b"first")
    assert not storage.put("k", b"second")
    assert not storage.put_file("k", path)
    assert storage.read("k") == b"first"
    before = storage.stat("k")
    assert storage.put("k", b"third", overwrite=True)
    assert storage.read("k") == b"third"
    assert storage.put_file("k", path, overwrite=True)
    assert storage.read("k") == b"from file"
    after = storage.stat("k")
    assert before is not None
    assert after is not None
    assert before.etag != after.etag


def test_open_seeks_and_reads_ranges(storage: Storage) -> None:
    data = b"".join(i.to_bytes(4, "little") for i in range(600_000))
    storage.put("big", data)
    with storage.open("big") as stream:
        assert stream.seekable()
        assert stream.seek(0, io.SEEK_END) == len(data)
        assert stream.read(10) == b""
        stream.seek(-7, io.SEEK_END)
        assert stream.read() == data[-7:]
        stream.seek(1_500_001)
        assert stream.read(33) == data[1_500_001:1_500_034]
        assert stream.tell() == 1_500_034
        stream.seek(0)
        assert stream.read() == data


def test_put_file_copies_the_file(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    assert storage.put_file("deep/er/f", path)
    path.write_bytes(b"changed later")
    assert storage.read("deep/er/f") == b"x" * 3_000_000
    with pytest.raises(StorageError, match="absent"):
        storage.put_file("g", tmp_path / "absent")
    assert storage.stat("g") is None


def test_list_takes_any_prefix(storage: Storage) -> None:
    keys = ["a-b", "a/b", "a/b.c", "a/d/c", "a0", "ab/x", "b", "z z", "é/ü +%25?#&"]
    for key in reversed(keys):
        storage.put(key, key.encode())
    assert sorted(found.key for found in storage.list()) == keys
    assert sorted(found.key for found in storage.list("a/")) == ["a/b", "a/b.c", "a/d/c"]
    assert sorted(found.key for found in storage.list("a/b")) == ["a/b", "a/b.c"]
    assert [found.key for found in storage.list("é/ü +")] == ["é/ü +%25?#&"]
    assert list(storage.list("nothing/")) == []
    for prefix in ("", "a/", "a/b", "é/ü +", "nothing/"):
        assert sorted(storage.keys(prefix)) == sorted(found.key for found in storage.list(prefix))
    for found in storage.list():
        assert found == storage.stat(found.key)
        assert storage.read(found.key) == found.key.encode()


def test_delete_removes_only_its_key(storage: Storage) -> None:
    storage.put("s/1", b"1")
    storage.put("s/2", b"2")
    storage.delete("s/1")
    assert [found.key for found in storage.list()] == ["s/2"]
    storage.delete("s/2")
    assert list(storage.list()) == []
    assert storage.put("s/1", b"again")


def test_many_are_deleted_and_the_rest_stays(storage: Storage) -> None:
    for number in range(5):
        storage.put(f"s/{number}", b"x")
    storage.delete_many(f"s/{number}" for number in (0, 2, 4, 99))
    assert sorted(found.key for found in storage.list()) == ["s/1", "s/3"]
    storage.delete_many([])
    with pytest.raises(StorageError, match="key"):
        storage.delete_many(["../s"])


def test_the_stores_clock_is_that_of_its_objects(storage: Storage) -> None:
    storage.put("k", b"x")
    found = storage.stat("k")
    assert found is not None
    assert abs(storage.now() - found.mtime) < 60
    assert [found.key for found in storage.list()] == ["k"], "asking leaves nothing behind"
    assert list(storage.unfinished()) == []


def test_unfinished_writes_are_told_and_discarded(storage: Storage, tmp_path: Path) -> None:
    storage.put("a/k", b"x")
    if isinstance(storage, S3Storage):
        for key in ("a/one", "b/two"):
            storage._client.create_multipart_upload(Bucket=storage.bucket, Key=f"{storage.prefix}/{key}")
    else:
        for key in ("a/.one.s2vc-tmp", "b/.two.s2vc-tmp"):
            (tmp_path / "store" / key).parent.mkdir(exist_ok=True)
            (tmp_path / "store" / key).touch()
    found = sorted(storage.unfinished(), key=lambda write: write.key)
    assert [write.key[0] for write in found] == ["a", "b"]
    assert all(abs(storage.now() - write.since) < 60 for write in found)
    assert [write.key[0] for write in storage.unfinished("a/")] == ["a"]
    storage.discard(found[0])
    storage.discard(found[0])
    assert [write.key[0] for write in storage.unfinished()] == ["b"]
    assert sweep(storage, older_than=3600) == 0
    assert sweep(storage, older_than=-60) == 1
    assert [found.key for found in storage.list()] == ["a/k"]


def test_storages_pickle_and_their_uri_opens_them(storage: Storage, uri: str) -> None:
    storage.put("k", b"v")
    assert pickle.loads(pickle.dumps(storage)).read("k") == b"v"
    assert open_storage(storage.uri).read("k") == b"v"


def test_of_racing_puts_one_wins(storage: Storage) -> None:
    def put(number: int) -> bool:
        return storage.put("race/k", b"%d" % number * 1000)

    winners = _race(put)
    assert len(winners) == 1
    assert storage.read("race/k") == b"%d" % winners[0] * 1000


def test_of_racing_put_files_one_wins(storage: Storage, tmp_path: Path) -> None:
    size = 5 << 20
    if isinstance(storage, S3Storage):
        storage.part_bytes = size

    def put(number: int) -> bool:
        path = tmp_path / f"file{number}"
        path.write_bytes(b"%d" % number * (size + 1))
        barrier.wait()
        return storage.put_file("race/f", path)

    barrier = threading.Barrier(RACERS)
    winners = _race(put)
    if not isinstance(storage, S3Storage):
        assert len(winners) == 1
    # The S3 server of the tests may let multipart completions that overlap all succeed.
    assert storage.read("race/f") in [b"%d" % winner * (size + 1) for winner in winners]
    barrier = threading.Barrier(1)
    assert not put(9), "who comes later loses"
    assert sweep(storage, older_than=-60) == 0, "losers clean up after themselves"


def test_keys_that_could_leave_the_root_are_refused(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    for key in (
        "",
        "/",
        "/etc/passwd",
        "..",
        "../outside",
        "a/../../outside",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
    ):
        for call in (
            storage.stat,
            storage.read,
            storage.open,
            storage.delete,
            lambda key: storage.put(key, b"x"),
            lambda key: storage.put_file(key, tmp_path / "outside"),
        ):
            with pytest.raises(StorageError, match="key"):
                call(key)
    assert list(storage.list()) == []


@pytest.mark.parametrize("key", ["\ud800", "k" * 901, ".1.s2vc-tmp", "x.s2vc-tmp/y"])
def test_keys_no_backend_can_hold_are_refused(key: str) -> None:
    with pytest.raises(StorageError, match="key"):
        check_key(key)


@pytest.mark.parametrize(
    "uri", ["", "gs://bucket/x", "http://host/x", "s3://", "s3:///x", "file://host/x", "file://"]
)
def test_unusable_uris_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_storage(uri)


def test_local_uris_name_their_folder() -> None:
    assert local_path("a/b c") == Path("a/b c")
    assert local_path("file:///a/b%20c%3f") == Path("/a/b c?")
    assert local_path("file://localhost/a#b") == Path("/a#b")
    assert LocalStorage("/a/b c?#%").uri == "file:///a/b%20c%3F%23%25"


def test_sources_are_read_where_they_are(storage: Storage, uri: str) -> None:
    storage.put("in/clip one.mp4", b"0123456789")
    source = f"{uri}/in/clip one.mp4"
    found = stat_source(source)
    assert (found.key, found.size) == ("clip one.mp4", 10)
    with open_source(source) as stream:
        stream.seek(4)
        assert stream.read(3) == b"456"
    for missing in (f"{uri}/in/clip two.mp4", f"{uri}/in"):
        with pytest.raises(ObjectMissing):
            stat_source(missing)
        with pytest.raises(ObjectMissing):
            open_source(missing)


def test_range_stream_is_a_plain_stream() -> None:
    data = bytes(range(100))
    stream = RangeStream(len(data), lambda start, end: data[start:end])
    assert stream.read(3) == b"\0\1\2"
    assert stream.seek(-1, io.SEEK_CUR) == 2
    assert stream.read() == data[2:]
    assert stream.read(1) == b""
    with pytest.raises(ValueError, match="seek"):
        stream.seek(-101, io.SEEK_END)


def test_reading_a_stream_takes_few_requests() -> None:
    data = bytes(10 << 20)
    ranges: list[tuple[int, int]] = []

    def read_range(start: int, end: int) -> bytes:
        ranges.append((start, end))
        return data[start:end]

    with RangeStream(len(data), read_range).buffered() as stream:
        assert stream.read() == data
        assert len(ranges) <= 2
        ranges.clear()
        stream.seek(5000)
        for _ in range(1000):
            stream.read(100)
        assert len(ranges) == 1


def _race(put: Callable[[int], bool]) -> list[int]:
    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(put, range(RACERS)))
    return [number for number, result in enumerate(won) if result]
