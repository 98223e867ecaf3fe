"""Other programs read the manifest as it lies: DuckDB, Polars, pandas, pyarrow; parts of all versions together."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from s2vc_ray.manifest import SCHEMA
from s2vc_ray.storage import open_storage
from tests.audited import job_id, video

_FIRST = SCHEMA.names[: SCHEMA.names.index("error") + 1]
"""Columns of version 1."""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three jobs: one part as version 1 wrote it, one of today, and one with a column that is not invented yet."""
    storage = open_storage(str(tmp_path))
    keys = [video(storage, f"{day}.mp4", [{}, {"payload_bytes": 3000}], day=day) for day in (1, 2, 3)]
    old = pq.ParquetFile(io.BytesIO(storage.read(keys[0]))).read()
    new = pq.ParquetFile(io.BytesIO(storage.read(keys[2]))).read()
    for key, table in ((keys[0], old.select([n for n in _FIRST if n != "job"])), (keys[2], _invented(new))):
        pq.write_table(table, tmp_path / key)
    return tmp_path / "manifest"


def _invented(table: pa.Table) -> pa.Table:
    return table.append_column("invented", pa.array([7.0] * len(table)))


def break_all_but(manifest: Path, job: str) -> None:
    """Whoever still reads another job's parts fails."""
    for part in manifest.glob("job=*/*.parquet"):
        if part.parent.name != f"job={job}":
            part.write_bytes(b"PAR1 broken PAR1")


def test_duckdb(manifest: Path) -> None:
    source = f"read_parquet('{manifest}/**/*.parquet', hive_partitioning = true, union_by_name = true)"
    query = f"select job, sum(payload_bytes)::int, max(psnr_p5), max(invented) from {source} group by 1 order by 1"
    found = duckdb.execute(query).fetchall()
    assert found == [(job_id(day), 4000, None, 7.0 if day == 3 else None) for day in (1, 2, 3)]
    break_all_but(manifest, job_id(2))
    pruned = f"read_parquet('{manifest}/**/*.parquet', hive_partitioning = true)"
    query = f"select count(*) from {pruned} where job = '{job_id(2)}'"
    # The first file tells the columns, so it must be readable.
    shutil.copy(next(manifest.glob(f"job={job_id(2)}/*")), next(manifest.glob(f"job={job_id(1)}/*")))
    assert duckdb.execute(query).fetchall() == [(2,)]


def test_polars(manifest: Path) -> None:
    today = next(manifest.glob(f"job={job_id(2)}/*"))
    schema: Any = {**pl.read_parquet_schema(today), "job": pl.String}
    frame = pl.scan_parquet(
        manifest / "**/*.parquet",
        schema=schema,
        hive_partitioning=True,
        missing_columns="insert",
        extra_columns="ignore",
    )
    sums = frame.group_by("job").agg(pl.col("payload_bytes").sum()).sort("job").collect()
    assert sums.rows() == [(job_id(day), 4000) for day in (1, 2, 3)]
    break_all_but(manifest, job_id(2))
    assert frame.filter(pl.col("job") == job_id(2)).select(pl.len()).collect().item() == 2


def test_pandas(manifest: Path) -> None:
    frame = pd.read_parquet(manifest, columns=["job", "payload_bytes"])
    assert frame.groupby(frame["job"].astype(str))["payload_bytes"].sum().to_dict() == {
        job_id(day): 4000 for day in (1, 2, 3)
    }
    chosen = pd.read_parquet(manifest, columns=["q"], filters=[("job", "==", job_id(2))])
    assert chosen["q"].tolist() == [20, 20]


def test_pyarrow_dataset(manifest: Path) -> None:
    table = ds.dataset(manifest, schema=SCHEMA, format="parquet", partitioning="hive").to_table()
    assert table.column_names == SCHEMA.names
    assert sorted(table["job"].to_pylist()) == sorted([job_id(day) for day in (1, 2, 3)] * 2)
    break_all_but(manifest, job_id(2))
    chosen = ds.dataset(manifest, schema=SCHEMA, format="parquet", partitioning="hive")
    assert chosen.to_table(filter=ds.field("job") == job_id(2)).num_rows == 2
