"""Rows of an archive that is coded again: as the part has them, and small."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from s2vc_ray.errors import StorageError
from s2vc_ray.manifest import SCHEMA_VERSION, ManifestRow, write_part
from s2vc_ray.revision import Revision, Rows
from s2vc_ray.storage_local import LocalStorage

GOPS = 2500

REVISION = Revision(
    "a.mp4",
    "a.mp4",
    video="v" * 16,
    job="job",
    base="a.s2vc",
    base_sha256="",
    base_bytes=1,
    version=2,
    gops=(),
)


def written(gops: int) -> list[ManifestRow]:
    plain = ManifestRow(
        job="job",
        created=datetime(2026, 11, 23, tzinfo=UTC),
        config_hash="0" * 16,
        config="all options as JSON " * 40,
        video_id="v" * 16,
        source_uri="s3://bucket/folder/a.mp4",
        source_name="a.mp4",
        status="ok",
    )
    return [
        replace(
            plain,
            gop_index=at,
            frames_expected=32,
            payload_sha256=f"{at:064x}",
            bpp=at / 7,
            target_met=at % 2 == 0,
        )
        for at in range(gops)
    ]


def rows_of(folder: Path, rows: list[ManifestRow]) -> Rows:
    storage = LocalStorage(folder)
    write_part(storage, rows)
    return REVISION.rows(storage)


def test_rows_are_those_of_the_part_in_their_order(tmp_path: Path) -> None:
    told = written(GOPS)
    rows = rows_of(tmp_path, told[::-1])
    assert list(rows) == told
    assert len(rows) == GOPS
    assert (rows[0], rows[-1], rows[1234]) == (told[0], told[-1], told[1234])
    assert rows[998:1003] == tuple(told[998:1003])
    assert rows.column("payload_sha256") == [row.payload_sha256 for row in told]
    with pytest.raises(IndexError):
        rows[GOPS]


def test_a_row_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    before = pa.total_allocated_bytes()
    rows = rows_of(tmp_path, written(GOPS))
    assert (pa.total_allocated_bytes() - before) / GOPS < 1000
    assert len(rows) == GOPS


def test_rows_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    told = written(2)
    with pytest.raises(StorageError, match="newer version"):
        rows_of(tmp_path, [told[0], replace(told[1], schema_version=SCHEMA_VERSION + 1)])
