"""The command line: results on stdout, one clear line of error on stderr, documented exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from s2vc_ray import cli, compress, decompress
from s2vc_ray.manifest import read_manifest
from tests import media
from tests.fakes import load_fake

OPTIONS = ["--model", "fake", "--executor", "local", "--gop", "8", "--metrics", "none", "--allow-larger"]
Call = Callable[..., int]


@pytest.fixture
def s2vc(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command with the fake codec; returns its exit code."""
    monkeypatch.setattr(compress, "compress", partial(compress.compress, load_codec=load_fake))
    monkeypatch.setattr(decompress, "decompress", partial(decompress.decompress, load_codec=load_fake))

    def call(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    return call


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return media.make_clip(tmp_path / "in" / "a.mp4", frames=20)


def test_there_and_back(s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert s2vc("compress", clip.parent, out, *OPTIONS) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a.mp4: 20 frames" in captured.err
    assert s2vc("info", "--verify", out / "a.mp4.s2vc") == 0
    assert "source_name" in capsys.readouterr().out
    assert s2vc("manifest", "show", out) == 0
    assert "a.mp4" in capsys.readouterr().out
    assert s2vc("decompress", out / "a.mp4.s2vc", tmp_path / "b.mp4", "--model", "fake") == 0
    assert len(media.all_frames(tmp_path / "b.mp4")[1]) == 20


def test_options_can_be_turned_round(s2vc: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"x264-params": "tff=1"}
    clip = media.make_clip(tmp_path / "a.mp4", rgb=media.scenes((5, 9)), options=options, fields="tff")
    asked = ("--no-scene-cuts", "--deinterlace", "--no-enlarge", "--refine", 3)
    assert s2vc("compress", clip, tmp_path / "out", *asked, *OPTIONS) == 0
    assert s2vc("info", tmp_path / "out" / "a.mp4.s2vc", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["scene_cuts"], facts["deinterlace"], facts["field_order"]) == (False, True, "progressive")
    assert (facts["gops"], facts["gop_length"], facts["enlarge"], facts["refine"]) == (2, 8, False, 3)


def test_json_everywhere(s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "out" / "a.mp4.s2vc"
    assert s2vc("compress", clip, tmp_path / "out", "--json", *OPTIONS) == 0
    (video,) = json.loads(capsys.readouterr().out)["videos"]
    assert (video["status"], video["frames"]) == ("ok", 20)
    assert s2vc("info", archive, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["frames"], facts["gops"], facts["payload_bytes"]) == (20, 3, video["payload_bytes"])
    assert s2vc("manifest", "show", tmp_path / "out", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["payload_bytes"] == video["payload_bytes"]
    assert s2vc("decompress", archive, tmp_path / "b.mkv", "--model", "fake", "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 20


def test_failed_sources_exit_1(
    s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media.text_file(clip.parent / "letter.mp4")
    assert s2vc("compress", clip.parent, tmp_path / "out", *OPTIONS) == 1
    assert "letter.mp4: FAILED" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.mp4.s2vc").exists()
    assert s2vc("manifest", "show", tmp_path / "out") == 0
    assert "letter.mp4: SourceError" in capsys.readouterr().out


def test_bad_usage_exits_2(
    s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert s2vc("compress", clip, *OPTIONS) == 2
    assert "SRC... DST" in capsys.readouterr().err
    assert s2vc("compress", clip, tmp_path / "out", "--quality", "99") == 2
    assert "quality is 99" in capsys.readouterr().err
    assert s2vc("compress", tmp_path / "*.none", tmp_path / "out", *OPTIONS) == 2
    assert s2vc("nonsense") == 2
    assert s2vc("decompress", clip, "-", "--json") == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target", "lpips=0.2", "--target-bpp", "0.1"], "--target and --target-bpp"),
        (["--target-size", "1M", "--target-ratio", "0.1"], "--target-size and --target-ratio"),
        (["--target-bpp", "0.1", "--max-bpp", "0.1"], "--target-bpp for a budget alone"),
        (["--target", "lpips"], "METRIC=VALUE"),
        (["--target", "lpips=0.2"], "measure lpips_alex"),
        (["--target", "vmaf=90", "--metrics", "sample:2"], "--metrics full"),
        (["--target-size", "big"], "700M"),
        (["--target-ratio", "0"], "above 0"),
    ],
)
def test_targets_that_cannot_be_are_refused(
    s2vc: Call,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    says: str,
) -> None:
    assert s2vc("compress", clip, tmp_path / "out", *OPTIONS, *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_target_searches_up_to_the_highest_quality_and_a_miss_exits_1(
    s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = [
        *OPTIONS,
        "--model",
        "fake:curve",
        "--metrics",
        "sample:2",
        "--metric",
        "ms_ssim",
        "--fallback",
        "none",
    ]
    assert s2vc("compress", clip, tmp_path / "out", *curve, "--target", "psnr=14") == 0
    assert s2vc("compress", clip, tmp_path / "much", *curve, "--target", "psnr=60", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["totals"]["targets_missed"] == told["totals"]["gops"] > 0
    rows = read_manifest(str(tmp_path / "much")).to_pylist()
    # The curve falls a little before its end: the best that was measured is taken.
    assert {row["q"] for row in rows} <= {59, 60, 61, 62, 63}
    assert all(row["psnr_worst"] and row["ms_ssim_worst"] for row in rows)


def test_unusable_archives_exit_3(
    s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert s2vc("info", clip) == 3
    assert capsys.readouterr().err.startswith("s2vc: NotAnArchive: ")
    s2vc("compress", clip, tmp_path / "out", *OPTIONS)
    archive = tmp_path / "out" / "a.mp4.s2vc"
    assert s2vc("decompress", archive, tmp_path / "b.mp4", "--model", "fake:other") == 3
    assert s2vc("decompress", archive, tmp_path / "b.mp4", "--model", "nonsense") == 3


def test_missing_objects_exit_4(s2vc: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("info", tmp_path / "gone.s2vc") == 4
    assert s2vc("manifest", "show", tmp_path / "gone") == 4
    assert "gone" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["compress"], ["decompress"], ["info"], ["manifest", "show"]])
def test_help_has_examples(s2vc: Call, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc(*command, "--help") == 0
    text = capsys.readouterr().out
    assert f"\n  s2vc {' '.join(command)} " in text
    assert "--json" in text


def test_planning_modules_import_neither_torch_nor_ray() -> None:
    code = (
        "import sys, s2vc_ray.cli, s2vc_ray.plan, s2vc_ray.manifest, s2vc_ray.compress, s2vc_ray.decompress;"
        "print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("job", ["jobs.compress", "jobs.decompress"])
def test_jobs_are_the_same_commands(job: str) -> None:
    done = subprocess.run([sys.executable, "-m", job, "--help"], capture_output=True, text=True, check=True)
    assert f"s2vc {job.removeprefix('jobs.')} " in done.stdout


def test_a_job_is_watched_from_the_command_line(
    s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "job.log"
    watched = ["--log", log, "--log-level", "debug", "--metrics-port", 0, "--price-per-hour", 3600]
    assert s2vc("compress", clip, tmp_path / "out", "--json", *watched, *OPTIONS) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert (summary["gops"], summary["frames"]) == (3, 20)
    assert summary["video_hours"] == pytest.approx(20 / 25 / 3600)
    assert summary["cost"]["unit"] == "worker"
    assert summary["cost"]["total"] == pytest.approx(summary["worker_hours"] * 3600)
    assert 0 < summary["encoder_busy"] <= 1
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert (events[0], events.count("gop_done"), events[-1]) == ("job_started", 3, "job_finished")
    assert s2vc("compress", clip, tmp_path / "out", "--log", "-", *OPTIONS) == 0
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["event"] == "job_finished"


@pytest.mark.parametrize(
    "wrong", [["--log-level", "loud", "--log", "-"], ["--metrics-port", 70000], ["--price-per-hour", -1]]
)
def test_bad_ways_of_watching_exit_2(s2vc: Call, clip: Path, tmp_path: Path, wrong: list[object]) -> None:
    assert s2vc("compress", clip, tmp_path / "out", *wrong, *OPTIONS) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("workers", "says"),
    [("many", "such as 4"), ("3:2", "MIN <= MAX"), (":", "such as 4"), ("-1", "such as 4")],
)
def test_a_pool_that_cannot_be_is_refused(
    s2vc: Call, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str, says: str
) -> None:
    assert s2vc("compress", clip, tmp_path / "out", *OPTIONS, f"--workers={workers}") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
