"""``s2vc reencode``: what it prints, how it ends; and once with the trained codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import compress, reencode
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.cli import main
from s2vc_ray.compress import make_executor
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import read_manifest
from tests import media
from tests.fakes import load_fake


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A destination of the fake codec, which the command finds under the name ``fake``."""
    monkeypatch.setattr(
        compress, "make_executor", lambda uri, config, _: make_executor(uri, config, load_fake)
    )
    config = JobConfig(
        model="fake",
        executor="local",
        gop=8,
        quality=20,
        allow_larger=True,
        metrics=MetricPolicy.parse("none"),
    )
    clip = media.make_clip(tmp_path / "a.mp4", frames=20)
    assert compress.compress([str(clip)], str(tmp_path / "out"), config).clean
    return tmp_path / "out"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["reencode", *map(str, arguments)])
    return int(ended.value.code or 0)


FAKE = ("--model", "fake", "--executor", "local", "--metrics", "none", "--allow-larger")


def test_a_dry_run_says_what_would_be_done(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(out, "--where", "gop_index <> 1", "--quality", 63, "--dry-run") == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("a.mp4.s2vc -> a.mp4.v2.s2vc: GOPs 0, 2 (12 frames, ")
    assert first.endswith("at q 20)")
    assert last == "would code 2 GOPs of 1 archives again"
    assert call(out, "--where", "true", "--quality", 63, "--dry-run", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["version"], one["gops"]) == ("a.mp4.v2.s2vc", [0, 1, 2])
    assert not (out / "a.mp4.v2.s2vc").exists()


def test_it_is_done_and_reported(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(out, "--where", "gop_index <> 1", "--quality", 63, *FAKE, "--json") == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [video["archive"] for video in report["videos"]] == ["a.mp4.v2.s2vc"]
    assert [gop.q for gop in ArchiveReader((out / "a.mp4.v2.s2vc").read_bytes()).gops()] == [63, 20, 63]


def test_failures_end_it_with_1(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out.parent / "a.mp4").unlink()
    assert call(out, "--where", "true", "--quality", 63, *FAKE, "--json") == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--where", "true"), "--quality N, --policy FILE, or --target"),
        (("--where", "true", "--quality", 5, "--max-bpp", 0.1), "--quality N, --policy FILE, or --target"),
        (("--where", "nonsense", "--quality", 5), "nonsense"),
        (("--where", "true", "--target", "beauty=1"), "beauty"),
    ],
)
def test_what_cannot_be_meant(
    out: Path, options: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(out, *options, *FAKE) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_with_the_trained_codec(tmp_path: Path) -> None:
    clip, out = media.make_clip(tmp_path / "a.mkv", frames=12, size=(96, 64)), tmp_path / "out"
    config = JobConfig(
        executor="local", gop=4, quality=8, allow_larger=True, metrics=MetricPolicy.parse("full", ("psnr",))
    )
    assert compress.compress([str(clip)], str(out), config).clean
    before = read_manifest(str(out)).to_pylist()
    worst = min(row["psnr_worst"] for row in before)
    where = f"psnr_worst < {worst + 1e-6}"
    best = JobConfig(
        executor="local", quality=63, allow_larger=True, metrics=MetricPolicy.parse("full", ("psnr",))
    )
    assert reencode.reencode(str(out), where, best).clean
    after = [row for row in read_manifest(str(out)).to_pylist() if row["archive_version"] == 2]
    changed = [
        b["gop_index"]
        for a, b in zip(before, after, strict=True)
        if a["payload_sha256"] != b["payload_sha256"]
    ]
    assert changed == [row["gop_index"] for row in before if row["psnr_worst"] == worst]
    assert min(row["psnr_worst"] for row in after) > worst
    assert {row["verify"] for row in after} == {"decoded"}
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(out), "--depth", "pixels", "--no-events"])
    assert ended.value.code == 0
