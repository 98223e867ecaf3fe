"""A compress job under way: sources stream in, videos stream out, and nothing grows with their number.

    sources ──► plan (tasks) ──► GopQueue ──► Dispatch (workers) ──► finish (tasks) ──► Tally
                  └── skipped, failed ───────────────────────────────────┘

One thread drives it and never waits for storage: planning and finishing are tasks. Sources are listed and planned only
as fast as the queue empties, so what the driver holds is a few GOPs for each batch that workers take, and of an open
video the digests of what is staged. All state that matters is at the destination: kill the job anywhere, start it
again, and it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from s2vc_ray.errors import S2vcError, TaskDied
from s2vc_ray.executor import Dispatch, Executor, GopFailure, GopOutcome, GopTask
from s2vc_ray.finish import excluded, finish_coded, finish_excluded, finish_failed, finish_published, skipped
from s2vc_ray.gop_queue import GopQueue
from s2vc_ray.manifest import PartIndex
from s2vc_ray.plan import ExcludedVideo, Plan, PlannedVideo, VideoFailure, failure_of, plan_video
from s2vc_ray.progress import Reporter
from s2vc_ray.results import FlowDepths, JobReport, Tally, VideoResult
from s2vc_ray.rows import JobContext
from s2vc_ray.sources import Source
from s2vc_ray.storage import Storage
from s2vc_ray.tasks import TaskPool
from s2vc_ray.values import VideoInfo

_LEAST_QUEUED = 256
"""GOPs that are planned ahead at least."""
_BATCHES_AHEAD = 4
"""Batches that are planned ahead for each that workers take."""
_TICK = 0.05
"""Seconds between looks at planning and finishing while workers are busy."""
_REPORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Steps:
    """What a job does about a source: tasks for any node.

    Attributes:
        plan: source, storage, config, weights' SHA-256 and the manifest's parts → what is to be done.
        coded: planned video, SHA-256 of each GOP's staged payload by its index, job, storage → how it ended.
        published: published video, job, storage → how it ended.
    """

    plan: Callable[..., Plan]
    coded: Callable[..., VideoResult]
    published: Callable[..., VideoResult]


COMPRESS = Steps(plan_video, finish_coded, finish_published)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A source and its place in the listing."""

    place: int
    source: Source


@dataclass(slots=True)
class _Open:
    """A planned video of which GOPs are still out."""

    listed: _Listed
    video: PlannedVideo
    done: dict[int, str] = field(default_factory=dict)
    """SHA-256 of the payload of each GOP that is staged."""
    failures: list[GopFailure] = field(default_factory=list)
    untried: int = 0

    @property
    def settled(self) -> bool:
        return len(self.done) + len(self.failures) + self.untried == len(self.video.specs)


class Flow:
    """One run of a job.

    Args:
        listing: lists all sources; read as they are needed. Called twice when the manifest knows any of them: those it
            knows come second, for they are probably done, and looking takes longer than finding one that is not.
        executor: started.
        tasks: where planning and finishing run.
        batch: most GOPs of a batch.
        steps: what is done about a source.
    """

    def __init__(
        self,
        job: JobContext,
        listing: Callable[[], Iterator[Source]],
        storage: Storage,
        executor: Executor,
        tasks: TaskPool,
        reporter: Reporter,
        batch: int,
        steps: Steps = COMPRESS,
    ) -> None:
        self._job = job
        self._steps = steps
        self._listing = listing
        self._sources = self._new_first()
        self._storage = storage
        self._executor = executor
        self._tasks = tasks
        self._reporter = reporter
        self._batch = batch
        self._dispatch = Dispatch(executor, job.config.attempts, self._failed_try)
        self._queue = GopQueue(batch)
        self._parts = PartIndex(storage)
        self._planning: dict[Future[Any], _Listed] = {}
        self._finishing: dict[Future[VideoResult], tuple[_Listed, bool]] = {}
        self._open: dict[str, _Open] = {}
        self._tally = Tally()
        self._listed = False
        self._listing_error: S2vcError | None = None
        self._reported = 0.0

    def run(self) -> JobReport:
        """Bring every source to its end.

        Raises:
            S2vcError: the listing broke off, the destination or the cluster is gone; what was done stays done.
        """
        self._reporter.started(self._job.job, 0)
        while self._step():
            pass
        if self._listing_error is not None:
            raise self._listing_error
        seconds = (datetime.now(UTC) - self._job.created).total_seconds()
        report = JobReport(
            self._job.job, self._job.config_hash, seconds, self._tally.totals, self._tally.videos()
        )
        self._reporter.pool(self._executor.pool)
        self._reporter.finished(report)
        return report

    def _step(self) -> bool:
        """Move everything that can move, then wait a little; False when all is done."""
        self._list_and_plan()
        self._collect_tasks()
        self._dispatch.fill(self._queue.take)
        self._report_depths()
        pending = [*self._planning, *self._finishing]
        if not self._dispatch.idle:
            # Without tasks to look after, a worker's next result is all there is to wait for.
            for outcome in self._dispatch.collect(_TICK if pending or not self._listed else None):
                self._settle(outcome)
        elif pending:
            wait(pending, timeout=_REPORT_SECONDS, return_when=FIRST_COMPLETED)
        return bool(
            self._planning or self._finishing or self._queue or not self._listed or not self._dispatch.idle
        )

    def _list_and_plan(self) -> None:
        enough = max(_LEAST_QUEUED, _BATCHES_AHEAD * self._dispatch.window * self._batch)
        room = 2 * self._tasks.width
        while not self._listed and len(self._queue) < enough:
            if len(self._planning) >= self._tasks.width or len(self._planning) + len(self._finishing) >= room:
                return
            try:
                listed = next(self._sources)
            except StopIteration:
                self._listed = True
                return
            except S2vcError as error:
                # What is under way is worth finishing first.
                self._listed, self._listing_error = True, error
                return
            plan = self._tasks.submit(
                self._steps.plan,
                listed.source,
                self._storage,
                self._job.config.of(listed.source.name),
                self._job.codec.weights_sha256,
                self._parts.keys(listed.source.video_id),
            )
            self._planning[plan] = listed

    def _collect_tasks(self) -> None:
        for plan in [plan for plan in self._planning if plan.done()]:
            listed = self._planning.pop(plan)
            try:
                self._take_plan(listed, plan.result())
            except TaskDied as error:
                self._finish(listed, finish_failed, failure_of(listed.source, error))
        for end in [end for end in self._finishing if end.done()]:
            listed, failing = self._finishing.pop(end)
            try:
                self._end(listed, end.result())
            except TaskDied as error:
                if failing:
                    raise
                self._finish(listed, finish_failed, failure_of(listed.source, error))

    def _new_first(self) -> Iterator[_Listed]:
        """Every source, those without a manifest part before those with one."""
        for known in (False, True) if len(self._parts) else (False,):
            for place, source in enumerate(self._listing()):
                if bool(self._parts.keys(source.video_id)) == known:
                    yield _Listed(place, source)

    def _take_plan(self, listed: _Listed, plan: Plan) -> None:
        if isinstance(plan, PlannedVideo):
            self._open_video(listed, plan)
        elif isinstance(plan, VideoFailure):
            self._finish(listed, finish_failed, plan)
        elif isinstance(plan, ExcludedVideo):
            if plan.described:
                self._end(listed, excluded(plan))
            else:
                self._finish(listed, finish_excluded, plan)
        elif plan.described is None:
            self._finish(listed, self._steps.published, plan)
        else:
            self._end(listed, skipped(plan))

    def _open_video(self, listed: _Listed, video: PlannedVideo) -> None:
        source, frames = video.source, sum(spec.frames for spec in video.specs)
        self._reporter.planned(source.video_id, source.name, frames, len(video.specs), _seconds(video.info))
        # What is known of a GOP lies with its payload, and whoever commits the video reads it there.
        done = {gop.index: gop.payload_sha256 for gop in video.staged}
        open_ = _Open(listed, replace(video, staged=()), done)
        self._open[video.source.video_id] = open_
        for gop in video.staged:
            self._reporter.gop_done(gop, resumed=True)
        todo = (spec for spec in video.specs if spec.index not in open_.done)
        version = video.fixity.size, video.fixity.etag
        self._queue.add(GopTask(spec, video.staging, video.max_bpp, version, source.name) for spec in todo)
        self._close_if_settled(open_)

    def _failed_try(self, failure: GopFailure, final: bool) -> None:
        self._reporter.gop_failed(failure, final=final)

    def _settle(self, outcome: GopOutcome) -> None:
        if isinstance(outcome, GopFailure):
            open_ = self._open[outcome.task.spec.video_id]
            open_.failures.append(outcome)
            # The video is lost already; what is staged stays for the next run.
            open_.untried += len(self._queue.drop(outcome.task.spec.video_id))
        else:
            open_ = self._open[outcome.video_id]
            open_.done[outcome.index] = outcome.payload_sha256
            self._reporter.gop_done(outcome, resumed=False)
        self._close_if_settled(open_)

    def _close_if_settled(self, open_: _Open) -> None:
        if not open_.settled:
            return
        video = self._open.pop(open_.video.source.video_id).video
        if open_.failures:
            self._finish(open_.listed, finish_failed, _blame(video, open_.failures))
        else:
            self._finish(open_.listed, self._steps.coded, video, open_.done)

    def _finish(self, listed: _Listed, how: Callable[..., VideoResult], *what: Any) -> None:
        # From here on, all that is said of a video is of what was asked of it.
        job = replace(self._job, config=self._job.config.of(listed.source.name))
        end = self._tasks.submit(how, *what, job, self._storage)
        self._finishing[end] = listed, how is finish_failed

    def _end(self, listed: _Listed, result: VideoResult) -> None:
        self._tally.add(listed.place, result)
        self._reporter.video_done(result)

    def _report_depths(self) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        self._reporter.pool(self._executor.pool)
        self._reporter.flow(
            FlowDepths(
                planning=len(self._planning),
                queued=len(self._queue),
                coding=self._dispatch.under_way,
                window=self._dispatch.window,
                committing=len(self._finishing),
            )
        )


def _seconds(info: VideoInfo) -> float | None:
    """How long a video plays."""
    return float((info.pts[-1] - info.pts[0] + info.last_duration) * info.time_base) if info.pts else None


def _blame(video: PlannedVideo, failures: list[GopFailure]) -> VideoFailure:
    first = min(failures, key=lambda failure: failure.task.spec.index)
    others = f" ({len(failures) - 1} other GOPs failed as well)" if len(failures) > 1 else ""
    text = f"{video.source.uri}: GOP {first.task.spec.index} of {len(video.specs)}: {first.error}{others}"
    return VideoFailure(
        video.source,
        first.error_class,
        text,
        video.fixity,
        gop_index=first.task.spec.index,
        attempts=first.attempts,
    )
