"""What a person sees while a job runs, and the tables at its end.

A `Reporter` is told of events. On a terminal they become one live line (GOPs, fps, bpp, time left);
elsewhere plain lines, one per video; with ``--json`` nothing at all. Everything goes to standard error:
standard output is for results.
"""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from s2vc_ray.executor import GopFailure
from s2vc_ray.results import FlowDepths, JobReport, VideoResult
from s2vc_ray.staging import StagedGop


class Reporter(Protocol):
    """Told what happens in a job, from one thread."""

    def started(self, job: str, sources: int) -> None:
        """The job begins; ``sources`` is how many are known by now."""
        ...

    def planned(self, video_id: str, name: str, frames: int, gops: int) -> None:
        """One video is about to be coded."""
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

    def planned(self, video_id: str, name: str, frames: int, gops: int) -> None:
        """Nothing."""

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """Nothing."""

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """Nothing."""

    def flow(self, depths: FlowDepths) -> None:
        """Nothing."""

    def video_done(self, result: VideoResult) -> None:
        """Nothing."""

    def finished(self, report: JobReport) -> None:
        """Nothing."""


class Plain:
    """One line per video and one at each end."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, job: str, sources: int) -> None:
        """Name the job."""
        self._say(f"job {job}: {sources} source{'s' * (sources != 1)}")

    def planned(self, video_id: str, name: str, frames: int, gops: int) -> None:
        """Name the video."""
        self._say(f"{name}: {frames} frames in {gops} GOPs")

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """Nothing: a line per GOP is too many."""

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """Say what will be tried again; what will not ends its video, whose line says it."""
        if not final:
            spec = failure.task.spec
            self._say(
                f"{spec.source_uri}: GOP {spec.index}: {failure.error_class}: {failure.error}; trying again"
            )

    def flow(self, depths: FlowDepths) -> None:
        """Nothing."""

    def video_done(self, result: VideoResult) -> None:
        """Its end, and its numbers."""
        self._say(describe(result))

    def finished(self, report: JobReport) -> None:
        """The totals."""
        self._say(summarise(report))

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Live(Plain):
    """A bar over all frames known so far, above it the lines of `Plain`."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "frames  {task.fields[gops]} GOPs  {task.fields[fps]:.1f} fps  {task.fields[bpp]:.4f} bpp"
            ),
            TimeRemainingColumn(),
            console=console,
        )
        super().__init__(self._progress.console)
        self._task = self._progress.add_task("compressing", total=0, gops=0, fps=0.0, bpp=0.0)
        self._total = self._frames = self._coded = self._gops = self._bits = self._pixels = 0
        self._begun = time.monotonic()

    def started(self, job: str, sources: int) -> None:
        """Show the bar."""
        super().started(job, sources)
        self._begun = time.monotonic()
        self._progress.start()

    def planned(self, video_id: str, name: str, frames: int, gops: int) -> None:
        """Lengthen the bar."""
        self._total += frames
        self._progress.update(self._task, total=self._total, description=name)

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """Move the bar. Speed counts only what this run has coded."""
        self._gops += 1
        self._frames += gop.frames_expected
        self._coded += 0 if resumed else gop.frames
        self._bits += 8 * gop.payload_bytes
        self._pixels += gop.frames * gop.width * gop.height
        self._progress.update(
            self._task,
            completed=self._frames,
            gops=self._gops,
            fps=self._coded / max(time.monotonic() - self._begun, 1e-9),
            bpp=self._bits / self._pixels,
        )

    def finished(self, report: JobReport) -> None:
        """Take the bar away and leave the totals."""
        self.close()
        super().finished(report)

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()


def describe(result: VideoResult) -> str:
    """One source's end in one line."""
    if result.status == "failed":
        return f"{result.name}: FAILED, {result.error_class}: {result.error}"
    if result.status == "skipped":
        whole = f"PARTIAL: {result.error}" if result.error else f"{result.archive} is complete"
        return f"{result.name}: skipped, {whole}"
    lost = f", PARTIAL: {result.error}" if result.error else ""
    return (
        f"{result.name}: {result.frames} frames, {size(result.source_bytes)} -> "
        f"{size(result.archive_bytes)}, {result.bpp or 0:.4f} bpp{lost}"
    )


def summarise(report: JobReport) -> str:
    """A job's totals in one line."""
    frames, before, after = report.totals.frames, report.totals.source_bytes, report.totals.archive_bytes
    line = (
        f"{report.count('ok')} compressed, {report.count('partial')} in part, {report.count('skipped')} skipped, "
        f"{report.count('failed')} failed in {report.seconds:.1f} s"
    )
    if frames:
        line += f"; {frames} frames at {frames / report.seconds:.1f} fps, {size(before)} -> {size(after)}"
    return line


def size(count: int | None) -> str:
    """A size in bytes for people: ``1.5 MB``; a dash when unknown."""
    if count is None:
        return "-"
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
