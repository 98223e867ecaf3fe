"""What the audit's queries read, counted: row groups and parts, not seconds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from s2vc_ray.audit_tables import AuditTables, open_tables
from s2vc_ray.manifest_compact import compact_manifest
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


def scanned(tables: AuditTables, query: str) -> int:
    """Row groups that a query reads."""
    (answer,) = tables.ask(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").to_pylist()
    found: list[dict[str, Any]] = []

    def look(node: Any) -> None:
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            look(inner)
        if isinstance(node, dict) and "row_groups_scanned" in node:
            found.append(node)

    look(json.loads(answer["explain_value"]))
    return sum(one["row_groups_scanned"] for one in found)


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
