"""Sources that a policy excludes are not coded, and everybody is told so: an exclusion is no failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import compress as compress_module
from s2vc_ray.audit import AuditOptions, audit
from s2vc_ray.cli import main
from s2vc_ray.compress import compress, make_executor
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import read_manifest
from s2vc_ray.policy import Policy
from s2vc_ray.provenance import read_events
from s2vc_ray.reencode import reencode
from s2vc_ray.results import JobReport
from s2vc_ray.status import status
from s2vc_ray.storage import open_storage
from s2vc_ray.summary import describe, summarise
from s2vc_ray.tables import manifest_table, summarise_manifest
from s2vc_ray.targets import Floor
from s2vc_ray.verify import verify
from s2vc_ray.verify_archive import VerifyOptions
from tests import media
from tests.fakes import load_fake

FLOOR = Floor("psnr", 12)
REASON = "excluded by the policy: its name matches masters/**"


def run(sources: Path, out: Path, *exclude: str) -> JobReport:
    return compress([str(sources)], str(out), config(*exclude), load_codec=load_fake)


def config(*exclude: str) -> JobConfig:
    return JobConfig(
        model="fake",
        executor="local",
        device="cpu",
        gop=8,
        metrics=MetricPolicy.parse("sample:1", ("psnr",)),
        target=FLOOR,
        policy=Policy(FLOOR, exclude=exclude),
        allow_larger=True,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two clips, and a folder of masters, one of which is no video at all."""
    root = tmp_path / "in"
    (root / "masters").mkdir(parents=True)
    for seed, name in enumerate(("a.mp4", "b.mp4", "masters/a.mp4")):
        media.make_clip(root / name, frames=10, seed=seed)
    (root / "masters" / "b.mp4").write_bytes(b"not to be opened")
    return root


def parts(out: Path) -> list[Path]:
    return sorted((out / "manifest").rglob("*.parquet"))


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["source_name"]: row for row in read_manifest(str(out)).to_pylist()}


def test_they_are_not_coded_and_have_a_row(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(sources, out, "masters/**")
    assert report.clean
    assert (report.totals.ok, report.totals.excluded, report.totals.failed) == (2, 2, 0)
    assert sorted(path.name for path in out.rglob("*.s2vc")) == ["a.mp4.s2vc", "b.mp4.s2vc"]
    for name in ("masters/a.mp4", "masters/b.mp4"):
        row = rows(out)[name]
        assert (row["status"], row["error_class"], row["error"]) == ("excluded", None, REASON)
        assert (row["archive"], row["gop_index"], row["codec"]) == (None, None, None)
        assert row["policy_sha256"] == config().policy.sha256  # type: ignore[union-attr]
        assert '"exclude": ["masters/**"]' in row["config"]
    told = {video.name: describe(video) for video in report.videos}
    assert told["masters/b.mp4"] == f"masters/b.mp4: {REASON}"
    assert "2 excluded by the policy" in summarise(report)


def test_run_again_nothing_is_written(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(sources, out, "masters/**")
    before = parts(out)
    report = run(sources, out, "masters/**")
    assert (report.totals.skipped, report.totals.excluded) == (2, 2)
    assert parts(out) == before
    # Another reason is news.
    run(sources, out, "**/a.mp4")
    assert rows(out)["masters/a.mp4"]["error"].endswith("matches **/a.mp4")


def test_exclusions_decide_no_archives_bytes(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(sources, out, "masters/**")
    report = run(sources, out, "masters/**", "b.*")
    assert report.clean
    assert (report.totals.skipped, report.totals.excluded) == (1, 3)


def test_what_is_there_stays_and_counts(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (sources / "masters" / "b.mp4").unlink()
    assert run(sources, out).clean
    assert run(sources, out, "masters/**").totals.excluded == 1
    report = audit(str(out), AuditOptions(require=("status = 'ok'",)))
    assert report.passed
    assert (report.totals["videos"], report.totals["ok"], report.totals["failed_later"]) == (3, 3, 0)
    assert {video["status"] for video in summarise_manifest(read_manifest(str(out)))} == {"ok"}
    assert [video["later_failure"] for video in summarise_manifest(read_manifest(str(out)))] == [None] * 3
    (checked,) = verify([str(out)], VerifyOptions(model="fake", events=False))
    assert checked.clean
    assert "masters/a.mp4.s2vc" in (out / "manifest-sha256.txt").read_text()
    # Included again, it is found again.
    assert run(sources, out).totals.skipped == 3


def test_everybody_is_told(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(sources, out, "masters/**")
    storage = open_storage(str(out))
    report = audit(storage, AuditOptions())
    assert (report.totals["videos"], report.totals["ok"], report.totals["excluded"]) == (4, 2, 2)
    assert [one["source_name"] for one in report.excluded] == ["masters/a.mp4", "masters/b.mp4"]
    assert {one["reason"] for one in report.excluded} == {REASON}
    assert report.failures == []
    state = status(storage, older_than=1e9)
    assert state.clean
    assert (state.counts["done"], state.counts["excluded"], state.counts["failed"]) == (2, 2, 0)
    videos = summarise_manifest(read_manifest(storage))
    assert [video["status"] for video in videos] == ["ok", "ok", "excluded", "excluded"]
    assert manifest_table(videos).row_count == 4
    assert {event["object"] for event in read_events(storage).to_pylist()} == {"a.mp4.s2vc", "b.mp4.s2vc"}
    (checked,) = verify([str(out)], VerifyOptions(model="fake", events=False))
    assert checked.clean


def test_the_command_exits_0(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        compress_module, "make_executor", lambda uri, options, _: make_executor(uri, options, load_fake)
    )
    file = tmp_path / "policy.toml"
    file.write_text('floor = "psnr=12"\nexclude = ["masters/**"]')
    options = ("--model", "fake", "--executor", "local", "--metric", "psnr", "--allow-larger", "--json")
    with pytest.raises(SystemExit) as ended:
        main(["compress", str(sources), str(tmp_path / "out"), *options, "--policy", str(file)])
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert (told["totals"]["ok"], told["totals"]["excluded"], told["failed"]) == (2, 2, 0)


def test_a_failure_that_is_excluded_now_is_none_any_more(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(sources, out).totals.failed == 1
    assert run(sources, out, "masters/b.*").clean
    report = audit(str(out), AuditOptions())
    assert (report.totals["failed"], report.totals["excluded"], report.failures) == (0, 1, [])
    assert status(str(out), older_than=1e9).clean


def test_they_are_not_coded_again_either(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (sources / "masters" / "b.mp4").unlink()
    run(sources, out)
    report = reencode(str(out), "true", config("**/a.mp4"), load_codec=load_fake)
    assert (report.totals.excluded, report.totals.failed) == (2, 0)
    assert not list(out.rglob("a.mp4.v2.s2vc"))
