"""``python -m jobs.bench chaos``: what it prints, and that a violation is an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from jobs import bench_chaos
from jobs.bench import app
from jobs.bench_chaos import ChaosOptions
from tests.chaos.run import Event, Outcome


def outcomes() -> list[Outcome]:
    good = Outcome(1, events=[Event(3.2, "actor at 10%")], drivers=2, retries=4, seconds=61.0)
    good.report = {"gops": 37, "lost": 0, "duplicated": 0}
    bad = Outcome(2, drivers=1, missed=["node for 4.0 s"], violations=["waves.mp4: no archive"])
    bad.report = {"gops": 32, "lost": 5, "duplicated": 0}
    return [good, bad]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What the runs come to, in place of running them; to be changed by the test."""
    found = outcomes()

    def run(options: ChaosOptions, report: Callable[[Outcome], None]) -> list[Outcome]:
        for outcome in found[: options.runs]:
            report(outcome)
        return found[: options.runs]

    monkeypatch.setattr(bench_chaos, "run_chaos", run)
    return found


def test_clean_runs_exit_with_0(made: list[Outcome]) -> None:
    done = CliRunner().invoke(app, ["chaos", "--runs", "1"])
    assert done.exit_code == 0
    assert "seed 1: 3s actor at 10% | 2 drivers, 0 gave up, 4 retries, 0 left over | 61 s | ok" in done.output
    assert "runs 1, clean 1, faults 1" in done.output


def test_a_violation_is_told_and_exits_with_1(made: list[Outcome]) -> None:
    done = CliRunner().invoke(app, ["chaos", "--runs", "2"])
    assert done.exit_code == 1
    assert "never due: node for 4.0 s" in done.output
    assert "VIOLATED: waves.mp4: no archive" in done.output
    assert "lost 5" in done.output


def test_json_has_every_run(made: list[Outcome]) -> None:
    done = CliRunner().invoke(app, ["chaos", "--runs", "2", "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [run["seed"] for run in found["runs"]] == [1, 2]
    assert (found["totals"]["lost"], found["totals"]["clean"]) == (5, 1)
