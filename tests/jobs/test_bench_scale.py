"""The driver's benchmark drives the real flow and notices when it loses something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs import bench_scale
from jobs.bench_scale import ScaleOptions, print_scale, run_resume, run_scale


def test_every_synthetic_gop_passes_the_driver() -> None:
    result = run_scale(ScaleOptions(videos=7, gops=3, workers=2))
    assert result.gops == 21
    assert result.milliseconds_per_gop > 0
    assert result.memory


def test_a_lost_video_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_scale, "_planned", lambda source, gops: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_scale(ScaleOptions(videos=2, gops=1))
    monkeypatch.undo()
    monkeypatch.setattr("s2vc_ray.flow.Tally.add", lambda *_: None)
    with pytest.raises(RuntimeError, match="0 of 2 videos"):
        run_scale(ScaleOptions(videos=2, gops=1))


def test_a_half_done_job_starts_with_the_other_half(tmp_path: Path) -> None:
    result = run_resume(ScaleOptions(videos=6, gops=2, workers=1), tmp_path)
    assert (result.videos, result.done) == (6, 3)
    assert 0 < result.index_seconds <= result.first_batch_seconds


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_scale(ScaleOptions(videos=100, gops=2, workers=1), True, Console(), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [one["gops"] for one in found["scale"]] == [2, 20, 200]
    assert found["resume"]["done"] == 50
