"""One schema, immutable parts, readable as they lie."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from s2vc_model.metrics import METRICS
from s2vc_ray.config import MEASURABLE
from s2vc_ray.errors import ObjectExists, StorageError
from s2vc_ray.manifest import (
    QUALITY,
    SCHEMA,
    ManifestRow,
    PartIndex,
    describe,
    part_key,
    read_columns,
    read_manifest,
    write_part,
)
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.tables import summarise_manifest

ROW = ManifestRow(
    job="j1",
    created=datetime(2026, 1, 2, tzinfo=UTC),
    config_hash="c",
    config="{}",
    video_id="v1",
    source_uri="/a.mp4",
    source_name="a.mp4",
    status="ok",
    source_sha256="s",
    archive="a.mp4.s2vc",
    gop_index=0,
    frames_encoded=8,
    width=16,
    height=16,
    payload_bytes=100,
    kbps=2.5,
    psnr_mean=30.0,
    psnr_worst=28.0,
    metric_frames=4,
)


def test_there_are_columns_for_every_metric_that_a_job_measures() -> None:
    assert tuple(QUALITY) == MEASURABLE
    for name in MEASURABLE:
        assert METRICS[name].higher_is_better == QUALITY[name]
        assert {f"{name}_{kind}" for kind in ("mean", "worst", "p5", "worst_frame")} <= set(SCHEMA.names)


def test_schema_has_every_field_and_a_version() -> None:
    assert SCHEMA.names == [field.name for field in fields(ManifestRow)]
    assert SCHEMA.metadata[b"s2vc.schema_version"] == b"7"
    assert not SCHEMA.field("video_id").nullable
    assert SCHEMA.field("gop_index").nullable


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    write_part(storage, [ROW, replace(ROW, gop_index=1)])
    rows = read_manifest(str(tmp_path)).to_pylist()
    assert [ManifestRow(**row) for row in rows] == [ROW, replace(ROW, gop_index=1)]


def old_part(storage: Storage, row: ManifestRow) -> None:
    """A part as schema version 1 wrote it: without the columns that came later."""
    key = write_part(storage, [row])
    later = SCHEMA.names[SCHEMA.names.index("error") + 1 :]
    table = pq.ParquetFile(io.BytesIO(storage.read(key))).read().drop_columns(later)
    at = table.schema.get_field_index("schema_version")
    table = table.set_column(at, table.schema.field(at), pa.array([1] * len(table), pa.int64()))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"s2vc.schema_version": "1"}), sink, compression="zstd")
    storage.put(key, sink.getvalue(), overwrite=True)


def test_parts_of_an_older_version_still_read(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    old = replace(ROW, source_size=1, source_etag="e", archive_bytes=2)
    old_part(storage, old)
    assert "creator" not in pq.ParquetFile(tmp_path / part_key("j1", "v1")).schema_arrow.names
    new = replace(old, job="j2", creator="s2vc-ray 0.1.0", framemd5_sha256="d", source_notes="10 bits to 8")
    write_part(storage, [new])
    rows = [ManifestRow(**row) for row in read_manifest(storage).to_pylist()]
    assert sorted(rows, key=lambda row: row.job) == [replace(old, schema_version=1), new]
    key = part_key("j1", "v1")
    assert read_columns(storage.read(key), ["creator", "archive"]).to_pylist() == [
        {"creator": None, "archive": "a.mp4.s2vc"}
    ]
    told = describe(storage, [key], archive="a.mp4.s2vc", config_hash="c")
    assert told is not None
    assert (told.archive_bytes, told.targets_missed) == (2, 0)


def test_missed_targets_of_all_gops_are_told(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    row = replace(ROW, source_size=1, source_etag="e", archive_bytes=2, target="t", target_met=True)
    key = write_part(storage, [row, replace(row, target_met=False), replace(row, target_met=None)])
    told = describe(storage, [key], archive="a.mp4.s2vc", config_hash="c")
    assert told is not None
    assert told.targets_missed == 1


def test_a_part_is_written_once(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    write_part(storage, [ROW])
    with pytest.raises(ObjectExists, match=part_key("j1", "v1")):
        write_part(storage, [ROW])


def test_others_read_it_as_a_hive_partitioned_table(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    write_part(storage, [ROW])
    write_part(storage, [replace(ROW, job="j2")])
    table = ds.dataset(tmp_path / "manifest", format="parquet", partitioning="hive").to_table()
    assert sorted(table["job"].to_pylist()) == ["j1", "j2"]
    duckdb = pytest.importorskip("duckdb")
    pattern = f"{tmp_path}/manifest/**/*.parquet"
    table_of_parts = f"read_parquet('{pattern}', hive_partitioning=true)"
    query = f"select job, sum(payload_bytes) from {table_of_parts} group by 1 order by 1"
    assert duckdb.sql(query).fetchall() == [("j1", 100), ("j2", 100)]


def test_pandas_reads_the_folder_as_it_lies(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    write_part(storage, [ROW])
    write_part(storage, [replace(ROW, job="j2", gop_index=1)])
    frame = pd.read_parquet(tmp_path / "manifest")
    assert sorted(zip(frame["job"].astype(str), frame["gop_index"], strict=True)) == [("j1", 0), ("j2", 1)]


def test_an_unreadable_part_is_named(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.put(part_key("j1", "v1"), b"not parquet")
    with pytest.raises(StorageError, match=r"v1\.parquet"):
        read_manifest(storage)


def test_an_empty_destination_is_an_empty_table(tmp_path: Path) -> None:
    assert read_manifest(str(tmp_path)).num_rows == 0


def test_the_index_finds_every_part_of_a_video_and_no_other(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    one, other, none = "00" * 8, "ff" * 8, "0f" * 8
    keys = [write_part(storage, [replace(ROW, job=job, video_id=one)]) for job in ("j1", "j2")]
    keys.append(write_part(storage, [replace(ROW, video_id=other)]))
    storage.put(f"manifest/job=j1/{'g' * 16}.parquet", b"a stranger's")
    index = PartIndex(storage)
    assert len(index) == 3
    assert sorted(index.keys(one)) == keys[:2]
    assert index.keys(other) == (keys[2],)
    assert index.keys(none) == ()
    assert PartIndex(open_storage(str(tmp_path / "empty"))).keys(one) == ()


def test_a_description_is_of_this_archive_and_configuration(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    asked = {"archive": "a.mp4.s2vc", "config_hash": "c"}
    good = write_part(storage, [ROW, replace(ROW, gop_index=1)])
    failed = write_part(storage, [replace(ROW, video_id="v2", status="failed")])
    later = replace(ROW, job="j2", created=ROW.created.replace(year=2027))
    cut = write_part(storage, [replace(later, status="partial", error_class="E", error="cut")])
    told = describe(storage, [good], **asked)
    assert told is not None
    assert (told.status, told.error, told.source_sha256) == ("ok", None, "s")
    assert describe(storage, [failed], **asked) is None
    assert describe(storage, [], **asked) is None
    assert describe(storage, [good], archive="b.mp4.s2vc", config_hash="c") is None
    assert describe(storage, [good], archive="a.mp4.s2vc", config_hash="d") is None
    for parts in ([good, cut], [cut, good]):
        told = describe(storage, parts, **asked)
        assert told is not None
        assert (told.status, told.error_class, told.error) == ("partial", "E", "cut")


def test_summary_is_the_latest_job_weighted_by_frames(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    earlier = datetime(2026, 1, 1, tzinfo=UTC)
    write_part(storage, [replace(ROW, job="j0", status="failed", error="bad", created=earlier)])
    write_part(storage, [ROW, replace(ROW, gop_index=1, psnr_mean=40.0, psnr_worst=20.0, metric_frames=1)])
    (video,) = summarise_manifest(read_manifest(storage))
    assert (video["status"], video["gops"], video["payload_bytes"]) == ("ok", 2, 200)
    assert video["psnr_mean"] == pytest.approx(32.0)
    assert video["psnr_worst"] == 20.0
    assert video["bpp"] == pytest.approx(8 * 200 / (16 * 16 * 16))
    assert video["kbps"] == pytest.approx(2.5)
