"""What an audit says of a manifest, against figures worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import s2vc_ray.audit_print
from s2vc_ray import cli
from s2vc_ray.audit import AuditOptions, AuditReport, audit
from s2vc_ray.bag import bag_entries
from s2vc_ray.errors import ConfigError, ObjectMissing
from s2vc_ray.manifest import read_manifest
from s2vc_ray.manifest_compact import compact_manifest
from s2vc_ray.provenance import SCHEMA as EVENTS
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.survey import survey
from s2vc_ray.tables import summarise_manifest
from s2vc_ray.verify import verify
from s2vc_ray.verify_archive import VerifyOptions
from tests.audited import job_id, video
from tests.memory_storage import MemoryStorage
from tests.seaweed import SeaweedServer

ALL = AuditOptions(limit=0)


def s2vc(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Three videos: two GOPs, one GOP, one failure."""
    storage = open_storage(str(tmp_path / "out"))
    two = [
        {"payload_bytes": 1000, "psnr_mean": 30.0, "psnr_worst": 28.0},
        {"payload_bytes": 3000, "psnr_mean": 36.0, "psnr_worst": 20.0, "metric_frames": 8},
    ]
    video(storage, "two.mp4", two)
    video(storage, "one.mp4", [{"payload_bytes": 500, "psnr_mean": 40.0, "psnr_worst": 39.0}], day=2)
    video(storage, "bad.mp4", day=2, status="failed", gop_index=3)
    return storage


def rows_of(report: AuditReport) -> dict[str, dict[str, Any]]:
    return {row["source_name"]: row for row in report.rows}


def test_videos_jobs_and_totals_add_up(storage: Storage) -> None:
    report = audit(storage, ALL)
    two = rows_of(report)["two.mp4"]
    assert (two["gops"], two["frames"], two["seconds"]) == (2, 50, 2)
    assert two["bpp"] == pytest.approx(8 * 4000 / 50_000)
    assert two["kbps"] == pytest.approx(16)
    assert (two["saved_bytes"], two["ratio"]) == (8000, 5)
    assert two["psnr_mean"] == pytest.approx((4 * 30 + 8 * 36) / 12)
    assert two["psnr_gops_p5"] == pytest.approx(30.3)
    assert two["psnr_worst"] == 20
    assert two["encode_fps"] == pytest.approx(5)
    assert two["lpips_alex_mean"] is None
    bad = rows_of(report)["bad.mp4"]
    assert (bad["status"], bad["gops"], bad["bpp"], bad["error"]) == ("failed", 0, None, "bad.mp4 is broken")
    first, second = report.jobs
    assert (first["job"], first["videos"], first["failed"], first["gops"]) == (job_id(1), 1, 0, 2)
    assert (second["videos"], second["failed"], second["psnr_gops_p5"]) == (2, 1, 40)
    t = report.totals
    assert (t["videos"], t["ok"], t["failed"], t["gops"], t["saved_bytes"]) == (3, 2, 1, 3, 16_000)
    assert t["bpp"] == pytest.approx(8 * 4500 / 75_000)
    (psnr,) = report.quality
    assert (psnr["metric"], psnr["gops"], psnr["worst"]) == ("psnr", 3, 20)
    assert psnr["p5"] == pytest.approx(30.6)


def test_the_worst_gops_come_first_and_say_where_they_are(storage: Storage) -> None:
    worst = audit(storage, ALL).worst["psnr"]
    assert [(gop["source_name"], gop["gop_index"], gop["psnr_worst"]) for gop in worst] == [
        ("two.mp4", 1, 20),
        ("two.mp4", 0, 28),
        ("one.mp4", 0, 39),
    ]
    # The first picture's time stamp is 2 s; places count from the first picture.
    assert worst[0]["at"] == pytest.approx(1)
    assert len(audit(storage, AuditOptions(limit=1)).worst["psnr"]) == 1


def test_a_gop_of_the_fallback_codec_tells_its_crf(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    video(storage, "a.mp4", [{}, {"codec": "av1", "q": None, "crf": 37, "psnr_worst": 20.0}])
    for report in (audit(storage, ALL), audit(storage, AuditOptions(by="gop"))):
        assert [(gop["q"], gop["crf"]) for gop in report.worst["psnr"]] == [(None, 37), (20, None)]
        said = io.BytesIO()
        s2vc_ray.audit_print.write_report(report, "table", said)
        assert said.getvalue().split().count(b"crf") == (2 if report.by == "gop" else 1)


def test_the_worst_places_are_told_where_there_are_any(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    video(storage, "plain.mp4")
    assert audit(storage, ALL).places == {}
    places = [
        {"tile_worst": 0.5, "text_worst": 0.9},
        {"tile_worst": 0.2, "tile_worst_x": 64},
        {"tile_worst": 0.8},
    ]
    video(storage, "a.mp4", places)
    report = audit(storage, ALL)
    assert {name: [gop["gop_index"] for gop in gops] for name, gops in report.places.items()} == {
        "text_worst": [0],
        "tile_worst": [1, 0, 2],
    }
    first = report.places["tile_worst"][0]
    assert (first["source_name"], first["at"], first["tile_worst_x"]) == ("a.mp4", 1, 64)
    said = io.BytesIO()
    s2vc_ray.audit_print.write_report(report, "table", said)
    assert b"worst GOPs by text" in said.getvalue()
    assert b"worst GOPs by faces" not in said.getvalue()


def test_of_lower_is_better_the_highest_is_the_worst(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    values = [0.1, 0.2, 0.9]
    video(storage, "a.mp4", [{"lpips_alex_mean": each, "lpips_alex_worst": each + 0.05} for each in values])
    report = audit(storage, ALL)
    assert report.worst["lpips_alex"][0]["gop_index"] == 2
    lpips = report.quality[1]
    assert (lpips["p5"], lpips["worst"]) == pytest.approx((0.83, 0.95))


def test_where_leaves_gops_out_of_every_sum(storage: Storage) -> None:
    report = audit(storage, AuditOptions(where="psnr_mean > 33", limit=0))
    assert {name: row["gops"] for name, row in rows_of(report).items()} == {"one.mp4": 1, "two.mp4": 1}
    assert report.totals["payload_bytes"] == 3500
    assert not report.failures
    failed = audit(storage, AuditOptions(where=f"job = '{job_id(2)}' and created > '2026-01-01 12:00'"))
    assert sorted(rows_of(failed)) == ["bad.mp4", "one.mp4"]
    assert [row["error_class"] for row in failed.failures] == ["SourceError"]


def test_an_unknown_name_is_answered_with_those_there_are(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"lpips.*not found.*lpips_alex_worst.*encode_fps"):
        audit(storage, AuditOptions(where="lpips > 0.3"))
    with pytest.raises(ConfigError, match=r"videos: .*saved_bytes"):
        audit(storage, AuditOptions(require=("size > 3",)))
    assert s2vc("audit", tmp_path / "out", "--where", "lpips >") == 2
    assert s2vc("audit", tmp_path / "out", "--sql", "select nothing from gops") == 2
    assert "psnr_worst" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["psnr_worst > 10 or status = 'failed'"], 0, "met by all 3"),
        (["psnr_worst > 25 or status = 'failed'"], 1, "not met by 1 of 3"),
        # A figure that is missing is not a good one.
        (["psnr_worst > 10"], 1, "not met by 1 of 3"),
        (["lpips_alex_worst < 0.4"], 1, "not met by 3 of 3"),
        (["psnr_worst > 25", "--by", "gop", "--where", "gop_index = 0 and status = 'ok'"], 0, "met by all 2"),
        (["psnr_mean > 31", "--by", "job", "--where", "status = 'ok'"], 0, "met by all 2"),
        (["psnr_worst > 10", "--where", "job = 'none'"], 1, "nothing was left"),
    ],
)
def test_requirements_decide_the_exit_code(
    storage: Storage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    assert s2vc("audit", tmp_path / "out", "--require", *arguments) == code
    assert said in capsys.readouterr().err
    # The same whatever is printed.
    assert s2vc("audit", tmp_path / "out", "--format", "csv", "--require", *arguments) == code


def test_what_does_not_meet_a_requirement_is_named(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert s2vc("audit", tmp_path / "out", "--by", "gop", "--require", "psnr_worst > 25") == 1
    said = capsys.readouterr().err
    assert "two.mp4 GOP 1" in said
    assert "two.mp4 GOP 0" not in said


def test_outliers_lie_far_from_the_median_of_their_group(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    rng = np.random.default_rng(1)
    for number in range(20):
        large = number == 7
        video(
            storage,
            f"{number}.mp4",
            [
                {
                    "payload_bytes": 100_000 if large else int(rng.integers(900, 1100)),
                    "psnr_mean": 30 + number / 10,
                }
            ],
            encode_seconds=500.0 if number == 3 else float(rng.uniform(4, 6)),
        )
    # Of a configuration of its own, too few to compare with.
    video(storage, "other.mp4", [{"payload_bytes": 50_000}], config_hash="f" * 16)
    found = audit(storage, ALL).outliers
    assert {(one["name"], one["figure"]) for one in found} == {
        ("7.mp4", "log bpp"),
        ("3.mp4", "log encode_mpps"),
    }
    logs = np.log([row["bpp"] for row in audit(storage, ALL).rows if row["source_name"] != "other.mp4"])
    middle = np.median(logs)
    expected = 0.6745 * (np.log(32) - middle) / np.median(np.abs(logs - middle))
    (bpp,) = (one for one in found if one["figure"] == "log bpp")
    assert bpp["deviations"] == pytest.approx(expected)
    assert any(one["name"] == "7.mp4 GOP 0" for one in audit(storage, AuditOptions(by="gop")).outliers)


def test_the_furthest_outliers_of_all_figures_come_first(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    for number in range(20):
        near = 30 + number / 10
        gop = {
            "payload_bytes": 4000 if number == 3 else 1000 + number,
            "psnr_mean": math.inf if number == 7 else 20.0 if number == 9 else near,
        }
        video(storage, f"{number}.mp4", [gop], encode_seconds=5 + number / 100)
    found = audit(storage, ALL).outliers
    assert [(one["name"], one["figure"]) for one in found] == [
        ("7.mp4", "psnr"),
        ("3.mp4", "log bpp"),
        ("9.mp4", "psnr"),
    ]
    assert found[0]["deviations"] is None
    assert abs(found[1]["deviations"]) > abs(found[2]["deviations"]) > 5
    assert audit(storage, AuditOptions(limit=2)).outliers == found[:2]


@pytest.fixture
def eventful() -> MemoryStorage:
    """Videos that several jobs describe."""
    storage = MemoryStorage()
    digests = {name: number * 64 for name, number in zip("abcde", "12345", strict=True)}
    video(storage, "stands.mp4", [{}, {}], archive_sha256=digests["a"], status="partial")
    video(storage, "stands.mp4", day=3, status="failed", error="the second try")
    video(storage, "repaired.mp4", status="failed")
    video(storage, "repaired.mp4", day=2, archive_sha256=digests["b"])
    video(storage, "again.mp4", archive_sha256=digests["c"])
    video(storage, "again.mp4", [{}, {}, {}], day=2, archive_sha256=digests["d"])
    video(storage, "never.mp4", day=1, status="failed", error="first")
    video(storage, "never.mp4", day=2, status="failed", error="last")
    # One archive of two videos: the same file, moved and compressed again.
    video(storage, "moved.mp4", archive="same.mp4.s2vc", archive_sha256=digests["e"])
    video(storage, "same.mp4", day=2, archive_sha256=digests["e"])
    return storage


def test_everybody_describes_an_archive_by_the_latest_job_that_did_not_fail(eventful: MemoryStorage) -> None:
    days = {"again.mp4": 2, "never.mp4": 2, "repaired.mp4": 2, "same.mp4": 2, "stands.mp4": 1}
    report = audit(eventful, ALL)
    assert {name: row["job"] for name, row in rows_of(report).items()} == {
        n: job_id(d) for n, d in days.items()
    }
    stands = rows_of(report)["stands.mp4"]
    assert (stands["status"], stands["gops"], stands["later_error"]) == ("partial", 2, "the second try")
    assert rows_of(report)["repaired.mp4"]["later_job"] is None
    assert {(one["source_name"], one["status"]) for one in report.failures} == {
        ("never.mp4", "failed"),
        ("stands.mp4", "partial"),
        ("stands.mp4", "failed later"),
    }
    shown = {one["source_name"]: one for one in summarise_manifest(read_manifest(eventful))}
    assert {name: one["job"] for name, one in shown.items()} == {n: job_id(d) for n, d in days.items()}
    assert shown["stands.mp4"]["later_failure"] == "SourceError: the second try"
    assert shown["repaired.mp4"]["later_failure"] is None
    assert shown["never.mp4"]["error"] == "last"
    with survey(eventful) as found:
        bagged = dict(bag_entries(found))
    rows = audit(eventful, AuditOptions(by="gop", limit=0)).rows
    archives = {row["archive"]: row["archive_sha256"] for row in rows if row["archive"]}
    assert (
        bagged
        == archives
        == {one["archive"]: archives[one["archive"]] for one in shown.values() if one["archive"]}
    )


def test_verify_misses_an_archive_although_a_later_job_failed(
    eventful: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vc_ray.verify.open_storage", lambda uri: eventful)
    (report,) = verify(["memory:"], VerifyOptions(events=False))
    found = {(one.key, one.outcome) for one in report.problems}
    assert ("stands.mp4.s2vc", "missing") in found
    assert ("stands.mp4.s2vc", "failed") in found
    assert ("repaired.mp4.s2vc", "failed") not in found


def test_the_last_fixity_check_of_each_archive_counts(storage: Storage) -> None:
    def event(day: int, outcome: str, kind: str = "fixity check") -> dict[str, Any]:
        said = {"event_id": "i", "event_type": kind, "run": "r", "agent": "a", "detail": ""}
        return {
            **said,
            "time": datetime(2026, 2, day, tzinfo=UTC),
            "object": "two.mp4.s2vc",
            "outcome": outcome,
        }

    events = [
        event(1, "success"),
        event(3, "failure"),
        event(2, "success"),
        event(4, "success", "measurement"),
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(events, schema=EVENTS), sink)
    storage.put("events/20260201T000000Z-abcdef.parquet", sink.getvalue())
    report = audit(storage, ALL)
    assert {one["outcome"]: one["archives"] for one in report.verification} == {
        "failure": 1,
        "never checked": 1,
    }
    assert rows_of(report)["two.mp4"]["checked"] == datetime(2026, 2, 3, tzinfo=UTC)


def test_provenance_counts_gops_by_what_coded_them(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    video(storage, "a.mp4", [{"device": "cuda:0"}, {"device": "cuda:0"}, {"device": "cpu"}])
    report = audit(storage, ALL)
    assert [(one["device"], one["gops"], one["frames"]) for one in report.provenance] == [
        ("cuda:0", 2, 50),
        ("cpu", 1, 25),
    ]


def test_a_part_that_cannot_be_read_is_named_and_the_rest_is_told(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.put("manifest/job=x/0123456789abcdef.parquet", b"PAR1 no PAR1")
    storage.put("manifest/other.parquet", b"")
    report = audit(storage, ALL)
    assert (report.totals["videos"], len(report.unreadable), report.passed) == (3, 2, False)
    assert s2vc("audit", tmp_path / "out") == 1
    assert "0123456789abcdef" in capsys.readouterr().err


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="no manifest"):
        audit(open_storage(str(tmp_path)), ALL)
    with pytest.raises(ConfigError, match="--by"):
        AuditOptions(by="frame")
    assert s2vc("audit", tmp_path, "--format", "xml") == 2


def test_formats_hold_the_same_rows(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    query = ["--sql", "select source_name, gop_index, bpp from gops where status = 'ok' order by 1, 2"]
    assert s2vc("audit", out, *query, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["source_name"], row["gop_index"]) for row in rows] == [
        ("one.mp4", 0),
        ("two.mp4", 0),
        ("two.mp4", 1),
    ]
    assert s2vc("audit", out, *query, "--format", "csv") == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(line["bpp"]) for line in lines] == [row["bpp"] for row in rows]
    target = tmp_path / "rows.parquet"
    assert s2vc("audit", out, *query, "--format", "parquet", "--out", target) == 0
    assert pq.read_table(target).to_pylist() == rows
    assert s2vc("audit", out, *query, "--limit", "2") == 0
    text = capsys.readouterr().out
    assert "two.mp4" in text
    assert "and more" in text
    assert s2vc("audit", out, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["totals"]["videos"] == 3
    assert s2vc("audit", out) == 0
    assert "1 failed" in capsys.readouterr().out


def test_a_file_is_written_whole_and_replaces_none_unasked(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, target = tmp_path / "out", tmp_path / "film.mp4"
    target.write_bytes(b"a source")
    assert s2vc("audit", out, "--format", "csv", "--out", target) == 2
    assert target.read_bytes() == b"a source"
    assert s2vc("audit", out, "--format", "parquet") == 2

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(s2vc_ray.audit_print, "write_rows", full)
    assert s2vc("audit", out, "--format", "csv", "--out", target, "--overwrite") == 4
    assert target.read_bytes() == b"a source"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "out"]


def test_names_cannot_command_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video(open_storage(str(tmp_path)), "evil\x1b]0;owned\x07.mp4", status="failed", error="\x1b[31m[bold]")
    assert s2vc("audit", tmp_path, "--require", "status = 'ok'") == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "[bold]" in said.out


@pytest.mark.s3
def test_on_s3_it_says_the_same(
    storage: Storage, seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{seaweed_server.new_bucket()}/small"
    remote = open_storage(uri)
    for item in storage.list():
        remote.put(item.key, storage.read(item.key))
    here = audit(storage, ALL)
    for _ in range(2):
        there = audit(uri, ALL)
        assert asdict(there) == {**asdict(here), "destination": uri}
        compact_manifest(uri)
