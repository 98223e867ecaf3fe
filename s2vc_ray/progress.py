"""What is told of a running job, and what a person sees of it.

A `Reporter` is told of events. On a terminal they become a live picture; elsewhere plain lines: what became of each
video, and once a minute how far the job is. A job of a million videos floods neither: lines beyond one a second are
counted, not printed. Everything goes to standard error: standard output is for results.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live as Screen

from s2vc_ray import counters
from s2vc_ray.cost import Prices
from s2vc_ray.executor import GopFailure
from s2vc_ray.job_meter import JobMeter
from s2vc_ray.panel import left, panel
from s2vc_ray.pool import WorkerPool
from s2vc_ray.redact import redacted
from s2vc_ray.results import FlowDepths, JobReport, VideoResult
from s2vc_ray.staging import StagedGop
from s2vc_ray.summary import describe, sentences, sum_up, summarise
from s2vc_ray.words import share

_BURST = 200
_STATUS_SECONDS = 60.0
_FAILURES_SHOWN = 5
_REFRESHES = 4
"""A second."""


class Reporter(Protocol):
    """Told what happens in a job, from one thread."""

    def started(self, job: str, sources: int) -> None:
        """The job begins; ``sources`` is how many there are, 0 when they are listed as it goes."""
        ...

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        """One video is about to be coded; ``seconds`` is how long it plays."""
        ...

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """One GOP is staged; ``resumed`` when an earlier run had staged it."""
        ...

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """One try at a GOP failed; unless ``final`` it will be tried again."""
        ...

    def flow(self, depths: FlowDepths) -> None:
        """How full the stages are, told at most once a second."""
        ...

    def pool(self, pool: WorkerPool) -> None:
        """Which workers the job holds, told when that changes and at most once a second besides."""
        ...

    def video_done(self, result: VideoResult) -> None:
        """One source has come to its end."""
        ...

    def finished(self, report: JobReport) -> None:
        """The job ends."""
        ...


class Silent:
    """Says nothing."""

    def started(self, job: str, sources: int) -> None:
        """Nothing."""

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        """Nothing."""

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """Nothing."""

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """Nothing."""

    def flow(self, depths: FlowDepths) -> None:
        """Nothing."""

    def pool(self, pool: WorkerPool) -> None:
        """Nothing."""

    def video_done(self, result: VideoResult) -> None:
        """Nothing."""

    def finished(self, report: JobReport) -> None:
        """Nothing."""


class Fanout:
    """Tells several reporters the same, in their order."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def started(self, job: str, sources: int) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.started(job, sources)

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.planned(video_id, name, frames, gops, seconds)

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.gop_done(gop, resumed=resumed)

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.gop_failed(failure, final=final)

    def flow(self, depths: FlowDepths) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.flow(depths)

    def pool(self, pool: WorkerPool) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.pool(pool)

    def video_done(self, result: VideoResult) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.video_done(result)

    def finished(self, report: JobReport) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.finished(report)


class Plain:
    """Lines: one per video, one per failed try, one a minute, and the figures at the end.

    Args:
        console: where to.
        prices: for the figures at the end.
        clock: seconds that never go back; tests give their own.
    """

    def __init__(
        self, console: Console, prices: Prices | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.meter = JobMeter(clock)
        self._console = console
        self._prices = prices
        self._clock = clock
        self._allowance = _Allowance(clock)
        self._said = clock()

    def started(self, job: str, sources: int) -> None:
        """Name the job."""
        self.meter.started(job, sources)
        self._said = self._clock()
        self._say(f"job {job}: {sources} source{'s' * (sources != 1)}" if sources else f"job {job}")

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        """Name the video."""
        self.meter.planned(video_id, name, frames, gops, seconds)
        self._say_sparingly(f"{name}: {frames} frames in {gops} GOPs")

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """A line per GOP is too many: one a minute."""
        self.meter.gop_done(gop, resumed=resumed)
        self._status()

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """Say what will be tried again; what will not ends its video, whose line says it."""
        self.meter.gop_failed(failure, final=final)
        if not final:
            spec = failure.task.spec
            self._say_sparingly(
                f"{spec.source_uri}: GOP {spec.index}: {failure.error_class}: {failure.error}; trying again"
            )

    def flow(self, depths: FlowDepths) -> None:
        """Count."""
        self.meter.flow(depths)
        self._status()

    def pool(self, pool: WorkerPool) -> None:
        """Count."""
        self.meter.pool(pool)

    def video_done(self, result: VideoResult) -> None:
        """Its end, and its numbers."""
        self.meter.video_done(result)
        self._say_sparingly(describe(result))

    def finished(self, report: JobReport) -> None:
        """The totals."""
        self.meter.finished(report)
        left_out = self._allowance.take_left_out()
        if left_out:
            self._say(f"({left_out} lines left out: the manifest has all)")
        for line in (
            summarise(report),
            *sentences(sum_up(self.meter.read(), counters.snapshot(), self._prices)),
        ):
            self._say(line)

    def close(self) -> None:
        """Nothing is held."""

    def _say(self, line: str) -> None:
        self._console.print(redacted(line), markup=False, highlight=False, soft_wrap=True)

    def _say_sparingly(self, line: str) -> None:
        if self._allowance.grant():
            left_out = self._allowance.take_left_out()
            self._say(f"({left_out} lines left out) {line}" if left_out else line)

    def _status(self) -> None:
        if self._clock() - self._said >= _STATUS_SECONDS:
            self._said = self._clock()
            counts = self.meter.read()
            done = share(counts.frames_settled / counts.planned_frames) if counts.planned_frames else "-"
            self._say(
                f"{done} of {counts.planned_frames} frames, {counts.gops_coded} GOPs, "
                f"{counts.fps or 0:.1f} fps, {left(counts)}"
            )


class Live(Plain):
    """The picture of `panel`, drawn four times a second whatever happens; above it the lines of `Plain`.

    The last failures stay in the picture when their lines have scrolled away.
    """

    def __init__(
        self, console: Console, prices: Prices | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, prices, clock)
        self._failures: deque[str] = deque(maxlen=_FAILURES_SHOWN)
        self._screen = Screen(
            console=console,
            get_renderable=self.picture,
            refresh_per_second=_REFRESHES,
            transient=True,
            # Standard output belongs to results, wherever it goes.
            redirect_stdout=False,
        )

    def picture(self) -> RenderableType:
        """What is on the screen now."""
        retried = sum(s.value for s in counters.snapshot() if s.name.endswith("_retries"))
        return panel(self.meter.read(), retried, list(self._failures))

    def started(self, job: str, sources: int) -> None:
        """Show the picture."""
        super().started(job, sources)
        self._screen.start()

    def video_done(self, result: VideoResult) -> None:
        """Keep failures in sight."""
        super().video_done(result)
        if result.error_class:
            self._failures.append(redacted(describe(result)))

    def finished(self, report: JobReport) -> None:
        """Take the picture away and leave the totals."""
        self.close()
        super().finished(report)

    def close(self) -> None:
        """Give the terminal back."""
        self._screen.stop()

    def _status(self) -> None:
        """Nothing: the picture has it."""


class _Allowance:
    """Lines that may still be printed: a burst, then one a second. What it refuses it counts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(_BURST)
        self._since = clock()
        self._left_out = 0

    def grant(self) -> bool:
        """Whether one more line may be printed now."""
        now = self._clock()
        self._left = min(float(_BURST), self._left + now - self._since)
        self._since = now
        if self._left < 1:
            self._left_out += 1
            return False
        self._left -= 1
        return True

    def take_left_out(self) -> int:
        """How many lines were refused since last asked."""
        left_out, self._left_out = self._left_out, 0
        return left_out
