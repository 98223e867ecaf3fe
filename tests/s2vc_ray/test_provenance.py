"""Events: one table of what was done, from the manifest and every verification, without disturbing the manifest."""

from __future__ import annotations

import pytest

from s2vc_ray.errors import StorageError
from s2vc_ray.gc import collect
from s2vc_ray.manifest import read_manifest
from s2vc_ray.provenance import SCHEMA, Agent, EventLog, read_events
from s2vc_ray.status import status
from s2vc_ray.storage import Unfinished
from s2vc_ray.survey import is_our_write
from s2vc_ray.verify_report import Check, Verdict
from tests.destinations import describe
from tests.memory_storage import MemoryStorage

AGENT = Agent("s2vc-ray", "0.1.0", "fake", "fa" * 32, "cpu")
VERDICT = Verdict(
    "a.mp4.s2vc",
    "not measured",
    ("no source",),
    sha256="1" * 64,
    checks=(Check("fixity check", "success", "every CRC"), Check("measurement", "not measured", "no source")),
)


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.put("a.mp4.s2vc", b"archive")
    describe(
        storage,
        "a.mp4",
        "ok",
        size=7,
        gops=3,
        frames_encoded=8,
        archive_sha256="1" * 64,
        creator="s2vc-ray 0.1.0",
    )
    describe(storage, "b.mp4", "failed", job=2)
    return storage


def verified(storage: MemoryStorage, depth: str = "pixels") -> str | None:
    with EventLog(storage, depth) as log:
        log.add(VERDICT, AGENT)
        return log.close()


def test_compressions_are_read_off_the_manifest(storage: MemoryStorage) -> None:
    done, failed = read_events(storage).to_pylist()
    assert (done["event_type"], done["outcome"], done["object"]) == ("compression", "success", "a.mp4.s2vc")
    assert (done["agent"], done["agent_version"], done["object_sha256"]) == ("s2vc-ray", "0.1.0", "1" * 64)
    assert done["detail"] == "3 GOPs, 24 frames of /in/a.mp4"
    assert (failed["outcome"], failed["object"]) == ("failure", "b.mp4.s2vc")
    assert failed["detail"] == "SourceError: b.mp4 is broken"
    assert [row["event_id"] for row in read_events(storage).to_pylist()] == [
        done["event_id"],
        failed["event_id"],
    ]


def test_a_verification_is_one_part_and_both_are_one_table(storage: MemoryStorage) -> None:
    before = read_manifest(storage)
    key = verified(storage)
    assert key is not None
    assert key in storage.objects
    again = verified(storage)
    assert again != key
    table = read_events(storage)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [row["event_type"] for row in rows] == [
        "compression",
        "compression",
        *["fixity check", "measurement"] * 2,
    ]
    assert len({row["event_id"] for row in rows}) == 6
    assert (rows[3]["outcome"], rows[3]["detail"], rows[3]["depth"]) == (
        "not measured",
        "no source",
        "pixels",
    )
    assert (rows[3]["weights_sha256"], rows[3]["device"]) == ("fa" * 32, "cpu")
    assert read_manifest(storage).equals(before)


def test_a_verification_that_breaks_off_keeps_what_it_found(storage: MemoryStorage) -> None:
    def breaks_off() -> None:
        with EventLog(storage, "bytes") as log:
            log.add(VERDICT, AGENT)
            raise StorageError("the store is gone")

    with pytest.raises(StorageError):
        breaks_off()
    assert len(read_events(storage)) == 4


def test_nothing_verified_is_nothing_written(storage: MemoryStorage) -> None:
    with EventLog(storage, "bytes") as log:
        assert log.close() is None
    assert list(storage.list("events/")) == []


def test_many_events_go_to_disk_before_they_go_to_the_store(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vc_ray.provenance._ROWS", 10)
    with EventLog(storage, "bytes") as log:
        for _ in range(23):
            log.add(VERDICT, AGENT)
            assert len(log._rows) < 12
    assert len(read_events(storage)) == 2 + 46


def test_a_damaged_part_is_named_and_a_strangers_file_passed_over(storage: MemoryStorage) -> None:
    storage.put("events/notes.parquet", b"a stranger's")
    assert len(read_events(storage)) == 2
    storage.put("events/20260101T000000Z-abcdef.parquet", b"not parquet")
    with pytest.raises(StorageError, match=r"20260101T000000Z-abcdef\.parquet"):
        read_events(storage)


def test_status_and_gc_know_events_lists_and_bag(storage: MemoryStorage) -> None:
    verified(storage)
    storage.put("a.mp4.framemd5", b"list")
    storage.put("manifest-sha256.txt", b"")
    before = dict(storage.objects)
    report = status(storage, older_than=0)
    assert {name: count for name, count in report.counts.items() if count} == {"done": 1, "failed": 1}
    assert collect(storage, older_than=0).objects == 0
    assert storage.objects == before


def test_a_frame_list_that_waits_for_its_archive_is_shown(storage: MemoryStorage) -> None:
    storage.put("c.mp4.framemd5", b"list")
    report = status(storage, older_than=0)
    assert report.counts["unpaired"] == 1
    assert report.entries["unpaired"] == [{"name": "c.mp4.framemd5", "bytes": 4}]
    storage.delete("a.mp4.s2vc")
    storage.put("a.mp4.framemd5", b"list")
    assert status(storage, older_than=0).counts["unpaired"] == 1, "the archive is told missing already"


@pytest.mark.parametrize(
    "key", ["a.mp4.framemd5", "manifest-sha256.txt", "events/20260101T000000Z-abcdef.parquet"]
)
def test_unfinished_writes_of_them_are_ours(key: str) -> None:
    assert is_our_write(Unfinished(key, "token", 0.0))
    assert not is_our_write(Unfinished("film.mov", "token", 0.0))
