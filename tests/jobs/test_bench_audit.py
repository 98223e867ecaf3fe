"""The audit benchmark, small: it audits what it says, and its figures are its processes' own."""

from __future__ import annotations

from pathlib import Path

from jobs.bench_audit import AuditOptions, run_audit, write_copy
from s2vc_ray.audit import AuditOptions as Asked
from s2vc_ray.audit import audit


def test_every_command_is_timed(tmp_path: Path) -> None:
    ballast = bytearray(b"x") * 400_000_000
    found = list(run_audit(AuditOptions(rows=200, parts=3, gops=20), tmp_path))
    assert [one.command.split()[0] for one in found] == ["audit"] * 5 + ["manifest", "audit"]
    # What this process holds is not counted.
    assert all(40 < one.peak_mb < 350 for one in found), found
    assert len(ballast)


def test_the_copy_is_a_manifest(tmp_path: Path) -> None:
    write_copy(tmp_path / "out", 10, 20)
    report = audit(str(tmp_path / "out"), Asked())
    assert (report.totals["videos"], report.totals["gops"], report.unreadable) == (10, 200, ())
