"""What a person sees: plain lines, the live picture, and neither of them ever floods."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from s2vc_ray import counters
from s2vc_ray.cost import Prices
from s2vc_ray.counters import Sample
from s2vc_ray.job_meter import Counts
from s2vc_ray.panel import left, panel
from s2vc_ray.progress import Fanout, Live, Plain, Reporter, Silent
from s2vc_ray.results import FlowDepths
from s2vc_ray.words import duration, few, share, size, tally
from tests.job_events import DEPTHS, POOL, Clock, ended, failure, gop, report, tell_job


def console(width: int = 140, *, terminal: bool = False) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=terminal, color_system=None), out


def drawn(renderable: Any, width: int = 140) -> list[str]:
    paper, out = console(width)
    paper.print(renderable)
    return out.getvalue().splitlines()


@pytest.fixture(autouse=True)
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "snapshot", list[Sample])


def test_plain_lines_name_every_video_and_end_with_the_figures() -> None:
    paper, out = console()
    tell_job(Plain(paper))
    lines = out.getvalue().splitlines()
    assert lines[:6] == [
        "job job-1: 3 sources",
        "a.mp4: 20 frames in 2 GOPs",
        "s3://b/v.mp4: GOP 1: TimeoutError: slow; trying again",
        "a.mp4: 20 frames, 4.0 kB -> 500 B, 0.0500 bpp",
        "b.mp4: 30 frames in 3 GOPs",
        "b.mp4: FAILED, SourceError: no video stream",
    ]
    assert lines[7] == "1 compressed, 0 in part, 1 skipped, 1 failed in 10.0 s; 4.0 kB -> 500 B"
    assert lines[8].startswith("coded 10 frames in 1 GOPs")
    assert "GOPs tried again: TimeoutError 1" in lines
    assert "sources with an error: SourceError 1" in lines


def test_the_cost_is_said_when_a_price_was() -> None:
    clock = Clock()
    paper, out = console()
    plain = Plain(paper, Prices(per_hour=3600.0), clock)
    plain.started("j", 0)
    plain.pool(POOL)
    clock.now += 3
    plain.finished(report())
    assert "cost 6 for 0.00167 GPU-hours" in out.getvalue()


def test_once_a_minute_a_plain_job_says_how_far_it_is() -> None:
    clock = Clock()
    paper, out = console()
    plain = Plain(paper, clock=clock)
    plain.started("j", 1)
    plain.planned("v", "a", 400, 40)
    for _ in range(20):
        clock.now += 5
        plain.gop_done(gop(0), resumed=False)
        plain.flow(DEPTHS)
    said = [line for line in out.getvalue().splitlines() if "fps" in line]
    assert said == ["30 % of 400 frames, 12 GOPs, 2.0 fps, 2 min 20 s left"]


@pytest.mark.parametrize("view", [Plain, Live])
def test_a_million_events_do_not_flood(view: Callable[..., Plain]) -> None:
    clock = Clock()
    paper, out = console(terminal=view is Live)
    reporter = view(paper, clock=clock)
    try:
        for number in range(20_000):
            clock.now += 0.01
            reporter.planned(f"v{number}", f"{number}.mp4", 20, 2)
            reporter.gop_done(gop(0, f"v{number}"), resumed=False)
            reporter.gop_failed(failure(1, video=f"v{number}"), final=False)
            reporter.video_done(ended(f"{number}.mp4", "failed"))
        reporter.finished(report())
    finally:
        reporter.close()
    lines = out.getvalue().splitlines()
    # 200 at once, then one for each of the 200 seconds, a status a minute, and the end.
    assert 300 < len(lines) < 420
    assert any("lines left out)" in line for line in lines[:-5])
    assert any("the manifest has all" in line for line in lines)


def test_secrets_in_errors_are_not_shown() -> None:
    paper, out = console()
    plain = Plain(paper)
    plain.video_done(ended("b", "failed", error="GET https://me:pw@host/x?X-Amz-Signature=abc failed"))
    assert "pw" not in out.getvalue()
    assert "abc" not in out.getvalue()


def test_the_picture_shows_everything_at_once() -> None:
    counts = Counts(
        job="j",
        sources=7,
        seconds=63.0,
        planned_videos=7,
        planned_frames=3200,
        frames_settled=1664,
        frames=1664,
        gops_coded=52,
        gops_resumed=3,
        pixels=1664 * 1000,
        payload_bytes=1664 * 2,
        fps=26.4,
        busy=0.97,
        depths=DEPTHS,
        pool=POOL,
    )
    counts.videos.update(ok=2, failed=1)
    counts.retries.update(TimeoutError=2)
    counts.failures.update(SourceError=1)
    lines = drawn(panel(counts, 14, ["tape-7.mov: FAILED, SourceError: no video stream"]))
    assert "52 %  1664/3200 frames  1 min 03 s, 58 s left" in " ".join(lines[0].split(" ")).replace(
        "   ", "  "
    )
    assert lines[1] == "52 GOPs  3 staged before  26.4 fps  0.0160 bpp  videos 3 of 7"
    assert lines[2] == (
        "planning 3  queued 17  coding 4/6  committing 1  workers 2  encoder 97 %  GPU 91 %, 32.2 GB of 85.9 GB"
    )
    assert lines[3] == (
        "GOPs tried again: TimeoutError 2  requests tried again: 14  sources with an error: SourceError 1"
    )
    assert lines[4] == "tape-7.mov: FAILED, SourceError: no video stream"


def test_the_picture_of_nothing_makes_nothing_up() -> None:
    lines = drawn(panel(Counts()))
    assert len(lines) == 2
    assert "time left not known yet" in lines[0]
    assert lines[1] == "0 GOPs  videos 0"


def test_the_picture_fits_a_narrow_terminal() -> None:
    counts = Counts(depths=DEPTHS, pool=POOL, busy=1.0)
    assert all(len(line) <= 40 for line in drawn(panel(counts, 0, ["x" * 200]), width=40))


def test_time_left_is_at_least_while_sources_are_still_listed() -> None:
    counts = Counts(
        seconds=10.0, frames=10, planned_videos=1, planned_frames=20, frames_settled=10, depths=DEPTHS
    )
    assert left(counts) == "at least 10 s left"
    assert left(replace(counts, sources=1)) == "10 s left"
    assert left(replace(counts, depths=FlowDepths(0, 0, 2, 6, 0))) == "10 s left"


def test_the_last_failures_stay_in_the_picture() -> None:
    paper, _ = console(terminal=True)
    live = Live(paper)
    for number in range(8):
        live.video_done(ended(f"{number}.mp4", "failed"))
        live.video_done(ended(f"good-{number}.mp4"))
    lines = drawn(live.picture())
    assert [line.split(":")[0] for line in lines if "FAILED" in line] == [f"{n}.mp4" for n in range(3, 8)]
    assert not any("good" in line for line in lines)
    live.close()


def test_live_leaves_standard_output_alone_and_the_figures_behind(capsys: pytest.CaptureFixture[str]) -> None:
    paper, out = console(terminal=True)
    live = Live(paper)
    live.started("job-1", 1)
    print("a result")
    sys.stdout.flush()
    live.finished(report(ended()))
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in out.getvalue()
    assert "1 compressed, 0 in part" in out.getvalue()


def test_a_fanout_tells_all_of_them_everything() -> None:
    class Told:
        def __init__(self) -> None:
            self.events: list[str] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: self.events.append(name)

    one, other = Told(), Told()
    tell_job(Fanout(one, other))
    events = {name for name in vars(Reporter) if not name.startswith("_")}
    assert set(one.events) == events
    assert one.events == other.events
    tell_job(Silent())


def test_figures_in_words() -> None:
    assert [size(value) for value in (None, 0, 999, 1500, 2.5e12, 3e15, -1500)] == [
        "-",
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 TB",
        "3.0 PB",
        "-1.5 kB",
    ]
    assert [duration(value) for value in (None, 0.4, 59.6, 425, 12000, 1e6)] == [
        "-",
        "0 s",
        "1 min 00 s",
        "7 min 05 s",
        "3 h 20 min",
        "11 d 13 h",
    ]
    assert [share(None), share(0.975), share(1)] == ["-", "98 %", "100 %"]
    assert [few(value) for value in (0, 0.012345, 12.34, 1234.5)] == ["0", "0.0123", "12.3", "1,234"]
    assert tally({"a": 1, "b": 3, "c": 2}, most=2) == "b 3, c 2, 1 others 1"
