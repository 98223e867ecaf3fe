"""Compact copies of the manifest: nothing is lost, nothing is seen twice, whatever happens between the steps."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from s2vc_ray import cli
from s2vc_ray.audit import AuditOptions, audit
from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.manifest import SCHEMA, SCHEMA_VERSION, part_key, read_manifest
from s2vc_ray.manifest_compact import COMPACT, compact_manifest
from s2vc_ray.storage import Storage, Unfinished, open_storage
from s2vc_ray.survey import is_our_write
from tests.audited import job_id, video
from tests.destinations import video_id
from tests.memory_storage import MemoryStorage

ALL = AuditOptions(limit=0, by="gop")


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    video(storage, "a.mp4", [{}, {}, {}])
    video(storage, "b.mp4", [{}], day=2)
    video(storage, "a.mp4", day=2, status="failed")
    return storage


def said(storage: Storage) -> dict[str, Any]:
    """All that an audit says."""
    return asdict(audit(storage, ALL))


def copies(storage: MemoryStorage) -> list[str]:
    return [key for key in storage.objects if key.startswith(COMPACT)]


def test_a_copy_changes_nothing_that_anybody_says(storage: MemoryStorage) -> None:
    before, table, parts = said(storage), read_manifest(storage), dict(storage.objects)
    report = compact_manifest(storage)
    assert (report.parts, report.rows, report.already, report.left_out) == (3, 5, 0, ())
    assert copies(storage) == [report.key]
    assert read_manifest(storage).equals(table)
    assert {key: storage.objects[key] for key in parts} == parts
    storage.asked.clear()
    assert said(storage) == before
    assert not [asked for asked in storage.asked if asked.startswith("read manifest/")]


def test_again_there_is_nothing_to_do_and_what_came_since_goes_into_another(storage: MemoryStorage) -> None:
    compact_manifest(storage)
    again = compact_manifest(storage)
    assert (again.key, again.parts, again.already) == (None, 0, 3)
    video(storage, "c.mp4", day=3)
    before = said(storage)
    more = compact_manifest(storage)
    assert (more.parts, more.already, len(copies(storage))) == (1, 3, 2)
    assert said(storage) == before
    assert before["totals"]["videos"] == 3


def test_two_at_once_make_the_same_object(storage: MemoryStorage) -> None:
    first = compact_manifest(storage).key
    assert first is not None
    (data, _) = storage.objects.pop(first)
    assert compact_manifest(storage).key == first
    assert storage.objects[first][0] == data


def test_copies_that_overlap_tell_no_row_twice(storage: MemoryStorage) -> None:
    before = said(storage)
    (one,) = (compact_manifest(storage).key,)
    assert one is not None
    kept = storage.objects.pop(one)
    late = MemoryStorage(objects={key: item for key, item in storage.objects.items() if "day" not in key})
    for key in [key for key in late.objects if video_id("b.mp4") in key]:
        del late.objects[key]
    other = compact_manifest(late).key
    assert other is not None
    assert other != one
    storage.objects |= {one: kept, other: late.objects[other]}
    assert said(storage) == before


def test_killed_before_the_copy_is_put_nothing_is_there(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = said(storage)

    def killed(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put_file", killed)
        with pytest.raises(KeyboardInterrupt):
            compact_manifest(storage)
    assert copies(storage) == []
    assert said(storage) == before
    assert compact_manifest(storage).parts == 3


def test_rows_of_a_part_that_was_removed_are_not_told(storage: MemoryStorage) -> None:
    compact_manifest(storage)
    del storage.objects[part_key(job_id(2), video_id("b.mp4"))]
    assert {row["source_name"] for row in said(storage)["rows"]} == {"a.mp4"}
    del storage.objects[part_key(job_id(2), video_id("a.mp4"))]
    report = audit(storage, AuditOptions())
    assert report.totals["failed_later"] == 0


def test_a_damaged_copy_is_named_and_its_parts_are_read(storage: MemoryStorage) -> None:
    before = said(storage)
    key = compact_manifest(storage).key
    assert key is not None
    storage.objects[key] = (b"PAR1 damaged PAR1", 0.0)
    after = said(storage)
    (unreadable,) = after["unreadable"]
    assert key in unreadable
    assert after == {**before, "unreadable": after["unreadable"]}
    with pytest.raises(StorageError, match="remove it"):
        compact_manifest(storage)


def changed(storage: MemoryStorage, key: str, **columns: pa.Array | None) -> None:
    table = pq.ParquetFile(io.BytesIO(storage.read(key))).read()
    for name, column in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if column is not None:
            table = table.append_column(name, column)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    storage.put(key, sink.getvalue(), overwrite=True)


def test_older_parts_are_filled_up_and_newer_ones_stay_as_they_are(storage: MemoryStorage) -> None:
    old = part_key(job_id(1), video_id("a.mp4"))
    later = dict.fromkeys(SCHEMA.names[SCHEMA.names.index("source_notes") :])
    changed(storage, old, **later, schema_version=pa.array([1, 1, 1]))
    new = video(storage, "new.mp4", day=3)
    changed(storage, new, schema_version=pa.array([SCHEMA_VERSION + 1]), invented=pa.array(["x"]))
    wrong = video(storage, "wrong.mp4", day=3)
    changed(storage, wrong, bpp=pa.array(["many"]))
    moved = video(storage, "moved.mp4", day=3)
    storage.objects[part_key("j", "0" * 16)] = storage.objects.pop(moved)
    report = compact_manifest(storage)
    assert report.parts == 3
    assert sorted(left.partition(":")[0] for left in report.left_out) == sorted(
        [new, wrong, part_key("j", "0" * 16)]
    )
    rows = said(storage)["rows"]
    # An audit takes of a newer part what it knows.
    assert {row["source_name"] for row in rows} == {"a.mp4", "b.mp4", "new.mp4"}
    assert {row["schema_version"] for row in rows} == {1, SCHEMA_VERSION, SCHEMA_VERSION + 1}
    assert {row["creator"] for row in rows} == {None}


def test_others_see_each_row_once_beside_a_copy(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    video(storage, "a.mp4", [{}, {}])
    compact_manifest(storage)
    table = ds.dataset(tmp_path / "manifest", format="parquet", partitioning="hive").to_table()
    assert table.num_rows == 2


@pytest.fixture
def ten_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ten jobs, a row group each."""
    monkeypatch.setattr("s2vc_ray.manifest_compact.ROWS", 50)
    storage = open_storage(str(tmp_path))
    for day in range(1, 11):
        rng = np.random.default_rng(day)
        video(
            storage,
            f"{day}.mp4",
            [{"psnr_mean": value, "q": day} for value in rng.normal(30, 2, 50)],
            day=day,
        )
    key = compact_manifest(storage).key
    assert key is not None
    return tmp_path / key


def test_a_condition_on_the_job_reads_only_its_row_groups(ten_days: Path) -> None:
    (fragment,) = ds.dataset(ten_days, schema=SCHEMA).get_fragments()
    assert len(fragment.split_by_row_group()) == 10
    (group,) = fragment.split_by_row_group(ds.field("job") == job_id(4))
    assert group.to_table()["job"].unique().to_pylist() == [job_id(4)]
    # The same in bytes: with all other row groups destroyed, whoever still reads one fails.
    spared = pq.ParquetFile(ten_days).metadata.row_group(3)
    chunks = [spared.column(number) for number in range(spared.num_columns)]
    begin = min(chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks)
    end = begin + sum(chunk.total_compressed_size for chunk in chunks)
    data = bytearray(ten_days.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:begin] = bytes(begin - 4)
    data[end:footer] = bytes(footer - end)
    ten_days.write_bytes(data)
    query = f"select count(*), sum(q)::int, count(psnr_mean) from '{ten_days}' where job = '{job_id(4)}'"
    assert duckdb.execute(query).fetchall() == [(50, 200, 50)]
    with pytest.raises(duckdb.Error):
        duckdb.execute(query.replace(job_id(4), job_id(5))).fetchall()


def test_figures_have_no_dictionary_and_words_have_one(ten_days: Path) -> None:
    group = pq.ParquetFile(ten_days).metadata.row_group(0)
    chunks = {chunk.path_in_schema: chunk for chunk in map(group.column, range(group.num_columns))}
    assert chunks["psnr_mean"].encodings.count("BYTE_STREAM_SPLIT") == 1
    assert not chunks["psnr_mean"].has_dictionary_page
    assert not chunks["payload_sha256"].has_dictionary_page
    assert chunks["job"].has_dictionary_page
    expected = pq.read_table(ten_days)["psnr_mean"].to_pylist()
    assert pd.read_parquet(ten_days)["psnr_mean"].to_list() == expected
    assert pl.read_parquet(ten_days)["psnr_mean"].to_list() == expected
    assert [
        value for (value,) in duckdb.execute(f"select psnr_mean from '{ten_days}'").fetchall()
    ] == expected


def test_an_upload_of_a_copy_that_nobody_finished_is_ours() -> None:
    assert is_our_write(Unfinished(f"{COMPACT}/0123456789abcdef.parquet", "id", 0.0))
    assert not is_our_write(Unfinished("manifest-compactor/x.parquet", "id", 0.0))


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["manifest", "compact", str(tmp_path)])
        return int(ended.value.code or 0)

    storage = open_storage(str(tmp_path))
    with pytest.raises(ObjectMissing):
        compact_manifest(storage)
    assert run() == 4
    video(storage, "a.mp4", [{}, {}])
    assert run() == 0
    assert "1 parts, 2 rows" in capsys.readouterr().out
    storage.put(part_key("j", "0" * 16), b"no part")
    assert run() == 1
    assert f"left out: {part_key('j', '0' * 16)}" in capsys.readouterr().out
