"""What the audit's queries read, counted: row groups and parts, not seconds."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray.audit_tables import AuditTables, open_tables
from s2vc_ray.manifest_compact import compact_manifest, named_part, named_parts
from s2vc_ray.storage import open_storage
from tests.audited import job_id, video
from tests.memory_storage import MemoryStorage


@pytest.fixture
def ten_days(monkeypatch: pytest.MonkeyPatch) -> MemoryStorage:
    """A copy of ten jobs of fifty GOPs, a row group each."""
    monkeypatch.setattr("s2vc_ray.manifest_compact.ROWS", 50)
    storage = MemoryStorage()
    for day in range(1, 11):
        video(storage, f"{day}.mp4", [{"psnr_mean": 30 + day + gop / 100} for gop in range(50)], day=day)
    compact_manifest(storage)
    return storage


def scans(tables: AuditTables, query: str) -> list[dict[str, Any]]:
    """What DuckDB says of each reading of files that a query takes."""
    (answer,) = tables.ask(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").to_pylist()
    found: list[dict[str, Any]] = []

    def look(node: Any) -> None:
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            look(inner)
        if isinstance(node, dict) and "row_groups_scanned" in node:
            found.append(node)

    look(json.loads(answer["explain_value"]))
    return found


def scanned(tables: AuditTables, query: str) -> int:
    """Row groups that a query reads."""
    return sum(one["row_groups_scanned"] for one in scans(tables, query))


@pytest.mark.parametrize(
    ("where", "row_groups"),
    [("", 10), (f"job = '{job_id(4)}'", 1), (f"job >= '{job_id(9)}'", 2), ("psnr_mean > 40.2", 1)],
)
def test_a_condition_reads_only_the_row_groups_that_may_meet_it(
    ten_days: MemoryStorage, where: str, row_groups: int
) -> None:
    with open_tables(ten_days) as tables:
        tables.sum_up(where)
        assert scanned(tables, "SELECT sum(payload_bytes), sum(psnr_mean) FROM chosen") == row_groups


def test_of_parts_only_those_since_the_copy_are_read(ten_days: MemoryStorage) -> None:
    late = video(ten_days, "late.mp4", [{}, {}], day=11)
    ten_days.asked.clear()
    with open_tables(ten_days) as tables:
        tables.sum_up()
        counts = tables.ask("SELECT count(*) AS rows, count(DISTINCT video_id) AS videos FROM gops")
        assert counts.to_pylist() == [{"rows": 502, "videos": 11}]
    assert [asked for asked in ten_days.asked if asked.startswith("read manifest/")] == [f"read {late}"]


@pytest.mark.parametrize("again", [False, True])
def test_the_worst_are_found_by_their_figure_alone(ten_days: MemoryStorage, again: bool) -> None:
    """Unless some rows stand no more: those have to be told from the others by their names."""
    if again:
        video(ten_days, "1.mp4", [{"psnr_mean": 50.0}], day=12)
    with open_tables(ten_days) as tables:
        tables.sum_up()
        query = (
            "SELECT psnr_mean, q, job FROM chosen WHERE psnr_mean IS NOT NULL ORDER BY psnr_mean DESC LIMIT 2"
        )
        assert tables.ask(query)["psnr_mean"].to_pylist() == ([50.0, 40.49] if again else [40.49, 40.48])
        alone = ["psnr_mean"] in (_listed(scan["extra_info"]["Projections"]) for scan in scans(tables, query))
    assert alone is not again


def test_a_copy_on_the_same_disk_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))
    for day in (1, 2):
        video(storage, f"{day}.mp4", [{}] * 3, day=day)
    compact_manifest(storage)
    (copy,) = (tmp_path / "manifest-compact").iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path.parent))
    for refuses, links in ((False, 2), (True, 1)):
        if refuses:
            monkeypatch.setattr("os.link", _no_link)
        with open_tables(storage) as tables:
            assert copy.stat().st_nlink == links
            assert tables.ask("SELECT count(*) AS rows FROM gops").to_pylist() == [{"rows": 6}]
        assert copy.stat().st_nlink == 1


def test_names_of_parts_one_by_one_and_together() -> None:
    keys = [
        "manifest/job=20260101T000000Z-000001/0123456789abcdef.parquet",
        "manifest/job=\u00e9 = 1/0123456789abcdef.parquet",
        "manifest/job=a/0123456789ABCDEF.parquet",
        "manifest/job=a/0123456789abcdef.parquet.tmp",
        "x/manifest/job=a/0123456789abcdef.parquet",
        "manifest/job=a/b/0123456789abcdef.parquet",
        "manifest/job=/0123456789abcdef.parquet",
        "manifest/notes.txt",
    ]
    found = [one and (one["job"], one["video_id"]) for one in named_parts(keys).to_pylist()]
    assert found == [named_part(key) for key in keys]
    assert [bool(one) for one in found] == [True, True] + [False] * 6


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _no_link(*arguments: object, **options: object) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")
