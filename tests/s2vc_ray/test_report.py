"""What an HTML report holds: the audit's figures, stills or why not, and never more than a browser can take."""

from __future__ import annotations

import io
import json
import re
import shutil
import tomllib
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import s2vc_ray.report.data as report_data
from s2vc_ray import cli
from s2vc_ray.access import open_archive
from s2vc_ray.audit import AuditOptions, AuditReport, audit, report_of
from s2vc_ray.audit_tables import open_tables
from s2vc_ray.errors import SourceError
from s2vc_ray.export import shown
from s2vc_ray.moments import FrameNumber
from s2vc_ray.report import html_report, page
from s2vc_ray.report.stills import StillOptions, StillPair, Wanted, choose, take_stills
from s2vc_ray.source_frames import SourceFrames
from s2vc_ray.storage import Storage, open_storage
from tests.audited import video
from tests.fakes import load_fake
from tests.reports import CLOSING, SCRIPT, archives, hostile

NOW = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return archives(tmp_path)


def made(storage: Storage, where: str = "", stills: int = 0, **options: Any) -> str:
    chosen = StillOptions(count=stills, model="fake", **options)
    html, _ = html_report(storage, AuditOptions(where), chosen, now=NOW, load_codec=load_fake)
    return html.decode()


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    found: dict[str, Any] = json.loads(text)
    return found


def pairs_of(storage: Storage, count: int = 3, **options: Any) -> list[StillPair]:
    report = audit(storage, AuditOptions())
    folder = Path(storage.uri.removeprefix("file://")).parent / "in"
    wanted = [
        Wanted(metric, row, str(folder / row["source_name"]), row["source_name"])
        for metric, row in choose(report, count)
    ]
    chosen = StillOptions(count=count, **{"model": "fake", **options})
    return list(take_stills(storage, wanted, chosen, load_codec=load_fake))


def test_figures_are_the_audits(storage: Storage) -> None:
    html = made(storage)
    data = data_of(html)
    assert data["videos"]["total"] == 2
    columns = data["videos"]["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in data["videos"]["rows"]]
    told = {row["source_name"]: row for row in audit(storage, AuditOptions()).rows}
    for row in rows:
        for name in ("bpp", "psnr_mean", "psnr_worst", "archive_bytes", "gops", "seconds"):
            assert row[name] == pytest.approx(told[row["source_name"]][name], rel=1e-5)
    line = data["timelines"]["1"]
    assert (line["gop"], line["per"]) == ([0, 1, 2], 1)
    assert line["psnr_mean"] == [25, 26, 27]
    assert line["at"] == [0, 0.32, 0.64]
    assert [one["figure"] for one in data["histograms"]] == [
        "bpp",
        "psnr_mean",
        "psnr_worst",
        "q",
        "encode_fps",
    ]
    for one in data["histograms"]:
        assert sum(one["counts"]) == 6
    assert [row[1] for row in data["worst"][0]["rows"]] == ["b.mp4"] * 3 + ["a.mp4"] * 3
    assert "Made 2026-02-03 04:05 UTC" in html
    assert "<td>20</td>" in html


def test_conditions_and_requirements_are_shown(storage: Storage) -> None:
    options = AuditOptions("psnr_mean < 30", ("psnr_worst > 20.5", "gops > 0"))
    html, report = html_report(storage, options, StillOptions(count=0), now=NOW, load_codec=load_fake)
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html.decode())))
    assert not report.passed
    assert "only GOPs for which psnr_mean < 30" in text
    assert "fails for 1 of 1: b.mp4" in text
    assert "holds for all 1" in text
    assert data_of(html.decode())["videos"]["total"] == 1


def test_names_and_errors_stay_text(storage: Storage) -> None:
    hostile(storage)
    html = made(storage)
    assert "<script>window" not in html
    assert "<img src=x" not in html
    assert "<b>SourceError" not in html
    assert "\u202e" not in html
    assert html.count("</script>") == 2
    assert html.count("<!--") == 0
    names = {row[0] for row in data_of(html)["videos"]["rows"]}
    assert {SCRIPT, r"film\u202e4pm.exe.mp4"} < names
    assert CLOSING in unescape(html)


def test_a_policy_lets_nothing_but_the_pages_own_run(storage: Storage) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', made(storage))
    rules = dict(rule.split(" ", 1) for rule in unescape(policy).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"].startswith("'sha256-")
    assert "unsafe" not in policy


def test_what_is_not_known_to_json_or_a_screen_is_made_so() -> None:
    dirty = {"a": [float("nan"), float("inf"), 1 / 3], "b\x1b": ("x\u202ey", "s3://me:pw@host/a"), "c": None}
    assert page.clean(dirty) == {
        "a": [None, None, 0.333333],
        "b\\x1b": ["x\\u202ey", "s3://***@host/a"],
        "c": None,
    }


def test_stills_are_the_worst_frames_of_both_sides(storage: Storage, tmp_path: Path) -> None:
    first, *_ = pairs_of(storage)
    assert (first.wanted.row["source_name"], first.wanted.row["gop_index"]) == ("b.mp4", 0)
    assert (first.frame, float(first.seconds or 0), first.exact) == (3, 0.12, True)
    assert (first.width, first.height) == (96, 64)
    with open_archive(str(tmp_path / "out" / "b.mp4.s2vc"), model="fake", load_codec=load_fake) as archive:
        frame = next(archive.frames(FrameNumber(3)))
        source = SourceFrames(str(tmp_path / "in" / "b.mp4"), archive.header).frame(frame.pts)
        expected = [source, shown(frame, archive.header)]
    for jpeg, wanted in zip((first.source, first.decoded), expected, strict=True):
        assert jpeg is not None
        picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
        assert np.abs(picture - wanted).mean() < 4
    assert np.abs(expected[0].astype(int) - expected[1]).mean() > 10


def test_each_gop_is_shown_once_and_every_metric_has_its_turn() -> None:
    report = AuditReport("", "", "video")
    rows = [{"archive": "x", "gop_index": number} for number in range(4)]
    report.worst = {"psnr": [rows[0], rows[1]], "lpips_alex": [rows[0], rows[2]], "dists": [rows[3]]}
    chosen = [(metric, row["gop_index"]) for metric, row in choose(report, 10)]
    assert chosen == [("psnr", 0), ("dists", 3), ("psnr", 1), ("lpips_alex", 2)]
    assert choose(report, 2) == [("psnr", rows[0]), ("dists", rows[3])]


def test_what_is_not_to_be_had_is_said(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "in" / "b.mp4").rename(tmp_path / "in" / "c.mp4")
    (gone,) = pairs_of(storage, 1)
    assert gone.decoded is not None
    assert (gone.source, "no such source" in gone.source_reason) == (None, True)
    (found,) = pairs_of(storage, 1, sources=str(tmp_path / "in" / "c.mp4"))
    assert found.source is not None
    (tmp_path / "in" / "b.mp4").write_bytes(b"short")
    (other,) = pairs_of(storage, 1)
    assert "is not the source: it has 5 bytes" in other.source_reason
    (weights,) = pairs_of(storage, 1, model="fake:other")
    assert "--model" in weights.decoded_reason
    (tmp_path / "out" / "b.mp4.s2vc").write_bytes(b"damaged")
    (damaged,) = pairs_of(storage, 1)
    assert "The archive cannot be read" in damaged.decoded_reason
    (tmp_path / "out" / "b.mp4.s2vc").unlink()
    (missing,) = pairs_of(storage, 1)
    assert (missing.frame, "The archive cannot be read" in missing.source_reason) == (None, True)
    html = made(storage, stills=2)
    assert html.count("Decoded not available.") == 2


def test_archives_are_found_by_any_name_and_nowhere_else(storage: Storage, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "out" / "b.mp4.s2vc", tmp_path / "out" / "50%41 #1.mp4.s2vc")
    shutil.copy(tmp_path / "out" / "b.mp4.s2vc", tmp_path / "beside.s2vc")
    metric, row = choose(audit(storage, AuditOptions()), 1)[0]
    names = ("50%41 #1.mp4.s2vc", "../beside.s2vc", str(tmp_path / "beside.s2vc"))
    wanted = [Wanted(metric, {**row, "archive": name}, "/nowhere/b.mp4", "b.mp4") for name in names]
    found, outside, absolute = take_stills(storage, wanted, StillOptions(model="fake"), load_codec=load_fake)
    assert found.decoded is not None
    for pair in (outside, absolute):
        assert (pair.decoded, "The archive cannot be read" in pair.decoded_reason) == (None, True)


def test_a_manifest_whose_keys_are_no_keys_is_reported_all_the_same(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    for number, archive in enumerate(("a\0b", "o'clock; drop table gops", "../../x")):
        video(storage, f"{number}.mp4", archive=archive)
    html = made(storage, stills=3)
    assert html.count("Decoded not available.") == 3
    assert data_of(html)["videos"]["total"] == 3


def test_where_the_worst_frame_was_not_recorded_the_middle_one_is_shown(storage: Storage) -> None:
    report = audit(storage, AuditOptions())
    metric, row = choose(report, 1)[0]
    wanted = Wanted(metric, {**row, "psnr_worst_frame": None}, "/nowhere/b.mp4", "b.mp4")
    (pair,) = take_stills(storage, [wanted], StillOptions(model="fake"), load_codec=load_fake)
    assert (pair.frame, pair.exact) == (4, False)


def test_a_source_frame_is_found_by_its_time(tmp_path: Path, storage: Storage) -> None:
    with open_archive(str(tmp_path / "out" / "a.mp4.s2vc"), model="fake", load_codec=load_fake) as archive:
        header, pts = archive.header, [frame.pts for frame in archive.frames()]
    source = SourceFrames(str(tmp_path / "in" / "a.mp4"), header)
    everything = dict(source.frames(pts))
    assert list(everything) == pts
    for at in (0, 7, 8, 23):
        assert np.array_equal(source.frame(pts[at]), everything[pts[at]])
    assert [one for one, _ in source.frames(pts[5:9])] == pts[5:9]
    with pytest.raises(SourceError, match="has no frame at pts"):
        source.frame(pts[-1] + 1)
    with pytest.raises(SourceError, match="is not the source"):
        SourceFrames(str(tmp_path / "in" / "b.mp4"), header)


def test_lists_are_bounded_and_problems_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "VIDEOS", 6)
    monkeypatch.setattr(report_data, "PROBLEMS", 2)
    monkeypatch.setattr(report_data, "TIMELINES", 3)
    monkeypatch.setattr(report_data, "POINTS", 6)
    monkeypatch.setattr(report_data, "GOPS", 5)
    monkeypatch.setattr(report_data, "_FIRST", 1)
    storage = open_storage(str(tmp_path / "out"))
    for number in range(8):
        video(storage, f"{number}.mp4", [{"pts_first": 25 * at} for at in range(5)])
    video(storage, "worst.mp4", [{}, {"psnr_worst": 3.0, "psnr_mean": 10.0}, {}, {}])
    for number in range(4):
        video(storage, f"bad-{number}.mp4", status="failed")
    with open_tables(storage) as tables:
        tables.sum_up()
        report = report_data_of(tables)
    assert (len(report.videos), report.videos_total) == (6, 13)
    names = [row["source_name"] for row in report.videos]
    assert "worst.mp4" in names
    assert sum(name.startswith("bad") for name in names) >= 2
    assert names == sorted(names)
    assert 1 <= len(report.timelines) <= 3
    line = report.timelines[names.index("worst.mp4")]
    assert (line["gop"], line["per"]) == ([0, 2], 2)
    assert line["psnr_mean"] == [20, 30]
    assert line["psnr_worst"] == [3, 28]
    assert (len(report.gops), report.gops_total) == (5, 44)


def report_data_of(tables: Any) -> report_data.ReportData:
    return report_data.report_data(tables, report_of(tables, "x", AuditOptions()))


def test_targets_and_codecs_are_told_where_there_are_any(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    video(storage, "plain.mp4")
    html = made(storage)
    assert "Targets met" not in html
    assert not {"target", "targets_missed", "probes"} & set(data_of(html)["videos"]["columns"])
    video(
        storage,
        "aimed.mp4",
        [{"codec": "av1", "target_met": True}, {"target_met": False}, {"target_met": True}],
        target="psnr=30",
        probes=3,
    )
    html = made(storage)
    assert "Targets met</dt><dd>66.7 %" in html
    assert "av1: 1 GOPs" in html
    data = data_of(html)["videos"]
    aimed = dict(zip(data["columns"], data["rows"][0], strict=True))
    assert (aimed["codec"], aimed["target"], aimed["targets_missed"], aimed["probes"]) == (
        "av1, s2vc",
        "psnr=30",
        1,
        9,
    )
    assert {"target", "target_met", "codec"} <= set(data_of(html)["worst"][0]["columns"])


def test_worst_places_are_listed_where_they_were_looked_for(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    tile = {"tile_worst_frame": 7, "tile_worst_x": 64, "tile_worst_y": 0}
    video(storage, "a.mp4", [{"tile_worst": 0.9, **tile}, {"tile_worst": 0.2, "text_worst": 0.5, **tile}])
    rankings = {one["name"]: one for one in data_of(made(storage))["worst"]}
    assert set(rankings) == {"psnr", "tile_worst", "text_worst"}
    assert rankings["tile_worst"]["rows"][0][:5] == [0, "a.mp4", 1, 1, 0.2]
    assert rankings["tile_worst"]["columns"][:4] == ["source_name", "gop_index", "at", "tile_worst"]
    assert {"tile_worst_frame", "tile_worst_x", "tile_worst_y"} < set(rankings["tile_worst"]["columns"])
    assert len(rankings["text_worst"]["rows"]) == 1


@pytest.mark.parametrize(
    ("values", "low", "step", "counts"),
    [
        ([0.5], 0.5, 5e-7, [1]),
        ([0.0, 0.0], 0.0, 1e-9, [2]),
        ([1.0, 2.0, 9.0], 1.0, 1.0, [1, 1, 0, 0, 0, 0, 0, 0, 1]),
        ([-0.3, 0.3, 0.3], -0.3, 0.1, [1, 0, 0, 0, 0, 0, 2]),
    ],
)
def test_histograms_have_round_bins_that_hold_everything(
    tmp_path: Path, values: list[float], low: float, step: float, counts: list[int]
) -> None:
    storage = open_storage(str(tmp_path / "out"))
    video(storage, "x.mp4", [{"psnr_mean": value} for value in values])
    with open_tables(storage) as tables:
        tables.sum_up()
        (found,) = (one for one in report_data_of(tables).histograms if one.figure == "psnr_mean")
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.step == pytest.approx(step)
    assert sum(found.counts) == len(values)
    assert list(found.counts) == counts


def test_the_command_writes_one_file_whole(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, html = str(tmp_path / "out"), tmp_path / "report.html"
    base = ["audit", out, "--html", str(html), "--stills", "0"]
    assert s2vc(*base) == 0
    assert data_of(html.read_text())["videos"]["total"] == 2
    assert "2 videos" in capsys.readouterr().err
    html.write_text("mine")
    assert s2vc(*base) == 2
    assert s2vc(*base, "--overwrite", "--where", "nothing > 1") == 2
    assert html.read_text() == "mine"
    assert s2vc(*base, "--overwrite", "--require", "gops > 5") == 1
    assert "fails for" in html.read_text()
    for more in (["--format", "csv"], ["--sql", "select 1"], ["--out", str(tmp_path / "x")]):
        assert s2vc(*base, "--overwrite", *more) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "report.html"]


def s2vc(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_assets_are_in_the_package_that_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]
    root = Path(__file__).parents[2] / "s2vc_ray"
    for package in ("report", "view"):
        there = {
            path for path in (root / package).iterdir() if path.suffix not in (".py", "") and path.is_file()
        }
        packed = {path for pattern in data[f"s2vc_ray.{package}"] for path in (root / package).glob(pattern)}
        assert there == packed
        assert len(packed) >= 3
