"""The compress job: sources in, archives and manifest rows out. The CLI and ``jobs/`` call `compress`.

                 plan (threads)         execute (actors)          commit (threads)
    sources ──► PlannedVideo ──► GopBatch ──► StagedGop/GopFailure ──► archive, manifest part
                     └── PublishedVideo: skipped ─┴── VideoFailure: a failure row, the others go on

One thread drives it; only planning and committing, which wait for storage, run beside it. All state that
matters is at the destination: kill the job anywhere, start it again, and it goes on.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime

from s2vc_ray.commit import adopt, commit_video
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import Executor, GopBatch, GopFailure, GopTask, LocalExecutor, execute
from s2vc_ray.manifest import Records, write_part
from s2vc_ray.plan import PlannedVideo, PublishedVideo, VideoFailure, failure_of, plan_video
from s2vc_ray.progress import Reporter, Silent
from s2vc_ray.results import JobReport, Tally, VideoResult
from s2vc_ray.rows import INCOMPLETE, JobContext, Published, failure_row, incompleteness
from s2vc_ray.sources import Source, list_sources
from s2vc_ray.staging import StagedGop, staging_key, unpack_staged
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.worker import CodecLoader, Worker, load_s2vc

_PLANNERS = 4
_PLAN_AHEAD = 16
_COMMITTERS = 2
_ABANDONED_SECONDS = 24 * 3600.0
"""A write that began longer ago belongs to a job that was killed."""


def compress(
    sources: Sequence[str],
    destination: str,
    config: JobConfig,
    *,
    reporter: Reporter | None = None,
    load_codec: CodecLoader = load_s2vc,
    executor: Executor | None = None,
) -> JobReport:
    """Compress everything ``sources`` name into archives under ``destination``.

    Args:
        sources: see `s2vc_ray.sources.list_sources`. They are only read.
        destination: a folder or ``s3://`` prefix; see `s2vc_ray.storage.open_storage`.
        config: the job.
        reporter: told what happens as it happens.
        load_codec: where workers get their codec.
        executor: where batches run; None makes the one that ``config`` names.

    Returns:
        One result per source, failures included.

    Raises:
        ConfigError: the job cannot start: bad sources, destination, model or cluster.
        S2vcError: the destination or the cluster is gone; what was done stays done.
    """
    found = list_sources(sources)
    storage = open_storage(destination)
    executor = executor or make_executor(storage.uri, config, load_codec)
    try:
        codec = executor.start()
        storage.sweep(older_than=_ABANDONED_SECONDS)
        created = datetime.now(UTC)
        job = JobContext(f"{created:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", created, config, codec)
        return _Run(job, found, storage, executor, reporter or Silent()).run()
    finally:
        executor.close()


def make_executor(destination: str, config: JobConfig, load_codec: CodecLoader = load_s2vc) -> Executor:
    """The executor that ``config`` names. Ray is imported only for its own."""
    if config.executor == "local":
        return LocalExecutor(
            lambda: Worker(destination, config, threads=config.threads or 1, load_codec=load_codec)
        )
    try:
        from s2vc_ray.ray_executor import RayExecutor
    except ImportError as error:
        raise ConfigError(
            f"executor 'ray' needs Ray ({error}): pip install 'ray', or use --executor local"
        ) from error
    return RayExecutor(destination, config, load_codec)


@dataclass(slots=True)
class _Open:
    """A planned video of which GOPs are still out."""

    video: PlannedVideo
    done: dict[int, StagedGop] = field(default_factory=dict)
    failures: list[GopFailure] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        return len(self.done) + len(self.failures) == len(self.video.specs)


_Committed = tuple[Published, Sequence[StagedGop]]


class _Run:
    """One job under way."""

    def __init__(
        self, job: JobContext, sources: list[Source], storage: Storage, executor: Executor, reporter: Reporter
    ) -> None:
        self._job = job
        self._sources = sources
        self._storage = storage
        self._executor = executor
        self._reporter = reporter
        self._records = Records(storage)
        self._open: dict[str, _Open] = {}
        self._commits: dict[Future[_Committed], tuple[PlannedVideo | PublishedVideo, int]] = {}
        self._tally = Tally()
        self._place = {source.uri: at for at, source in enumerate(sources)}
        self._committers = ThreadPoolExecutor(_COMMITTERS, "commit")

    def run(self) -> JobReport:
        self._reporter.started(self._job.job, len(self._sources))
        with self._committers:
            for outcome in execute(self._executor, self._batches(), attempts=self._job.config.attempts):
                self._settle(outcome)
                self._collect_commits()
            while self._commits:
                wait(self._commits, return_when=FIRST_COMPLETED)
                self._collect_commits()
        seconds = (datetime.now(UTC) - self._job.created).total_seconds()
        report = JobReport(
            self._job.job, self._job.config_hash, seconds, self._tally.totals, self._tally.videos()
        )
        self._reporter.finished(report)
        return report

    def _batches(self) -> Iterator[GopBatch]:
        """GOPs that are still to be coded, video by video; planning runs a little ahead."""
        for plan in self._plans():
            if isinstance(plan, VideoFailure):
                self._fail(plan)
            elif isinstance(plan, PublishedVideo):
                self._skip(plan)
            else:
                yield from self._batches_of(plan)

    def _plans(self) -> Iterator[PlannedVideo | PublishedVideo | VideoFailure]:
        job, ahead = self._job, deque[Future[PlannedVideo | PublishedVideo | VideoFailure]]()
        with ThreadPoolExecutor(_PLANNERS, "plan") as planners:
            try:
                for source in self._sources:
                    ahead.append(
                        planners.submit(
                            plan_video, source, self._storage, job.config, job.codec.weights_sha256
                        )
                    )
                    if len(ahead) >= _PLAN_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                # When the job ends early, what was to be read ahead is not waited for.
                planners.shutdown(cancel_futures=True)

    def _batches_of(self, video: PlannedVideo) -> Iterator[GopBatch]:
        try:
            staged = {item.key for item in self._storage.list(f"{video.staging}/")}
            done = {
                spec.index: self._staged(video, spec.index)
                for spec in video.specs
                if staging_key(video.staging, spec.index) in staged
            }
        except Exception as error:  # one video's trouble, as in planning
            self._fail(failure_of(video.source, error, video.fixity))
            return
        self._reporter.planned(video.source.video_id, video.source.name, video.info.frames, len(video.specs))
        open_ = self._open[video.source.video_id] = _Open(video, done)
        for gop in done.values():
            self._reporter.gop_done(gop, resumed=True)
        self._close_if_settled(open_)
        left = [GopTask(spec, video.staging) for spec in video.specs if spec.index not in done]
        size = self._job.config.batch_on(self._job.codec.device)
        for at in range(0, len(left), size):
            if open_.failures:
                # The video is lost already; what is staged stays for the next run.
                for task in left[at:]:
                    open_.failures.append(GopFailure(task, "NotTried", "another GOP of this video failed", 0))
                self._close_if_settled(open_)
                return
            yield GopBatch(tuple(left[at : at + size]))

    def _staged(self, video: PlannedVideo, index: int) -> StagedGop:
        key = staging_key(video.staging, index)
        return unpack_staged(self._storage.read(key), key)[0]

    def _settle(self, outcome: StagedGop | GopFailure) -> None:
        if isinstance(outcome, GopFailure):
            open_ = self._open[outcome.task.spec.video_id]
            open_.failures.append(outcome)
        else:
            open_ = self._open[outcome.video_id]
            open_.done[outcome.index] = outcome
            self._reporter.gop_done(outcome, resumed=False)
        self._close_if_settled(open_)

    def _close_if_settled(self, open_: _Open) -> None:
        if not open_.settled:
            return
        video = self._open.pop(open_.video.source.video_id).video
        if open_.failures:
            self._fail(_blame(video, open_.failures))
        else:
            future = self._committers.submit(
                commit_video, video, list(open_.done.values()), self._job, self._storage
            )
            self._commits[future] = (video, video.fixity.size)

    def _skip(self, video: PublishedVideo) -> None:
        key = video.source.archive_key
        try:
            described = self._records.find(
                video.source.video_id,
                archive=key,
                source_sha256=video.fixity.sha256,
                config_hash=self._job.config_hash,
            )
        except Exception as error:  # one video's trouble, as in planning
            self._fail(failure_of(video.source, error, video.fixity))
            return
        if described is None:
            future = self._committers.submit(adopt, video, self._job, self._storage)
            self._commits[future] = (video, video.fixity.size)
            return
        found = self._storage.stat(key)
        self._finish(
            VideoResult(
                video.source.uri,
                video.source.name,
                "skipped",
                archive=key,
                source_bytes=video.fixity.size,
                archive_bytes=found.size if found else None,
                error_class=described.error_class,
                error=described.error,
            )
        )

    def _collect_commits(self) -> None:
        for future in [future for future in self._commits if future.done()]:
            video, size = self._commits.pop(future)
            error = future.exception()
            if isinstance(error, Exception):
                self._fail(failure_of(video.source, error, video.fixity))
                continue
            published, gops = future.result()
            lacking = incompleteness(video.source, published.header, gops)
            self._finish(
                VideoResult(
                    video.source.uri,
                    video.source.name,
                    "partial" if lacking else "ok",
                    archive=published.key,
                    source_bytes=size,
                    archive_bytes=published.fixity.size,
                    payload_bytes=sum(gop.payload_bytes for gop in gops),
                    frames=sum(gop.frames for gop in gops),
                    frames_lost=published.header.frames - sum(gop.frames for gop in gops),
                    gops=len(gops),
                    pixels=sum(gop.frames * gop.width * gop.height for gop in gops),
                    error_class=INCOMPLETE if lacking else None,
                    error=lacking,
                )
            )

    def _fail(self, failure: VideoFailure) -> None:
        write_part(self._storage, [failure_row(self._job, failure)])
        source = failure.source
        self._finish(
            VideoResult(
                source.uri,
                source.name,
                "failed",
                source_bytes=failure.fixity.size if failure.fixity else None,
                error_class=failure.error_class,
                error=failure.error,
            )
        )

    def _finish(self, result: VideoResult) -> None:
        self._tally.add(self._place[result.uri], result)
        self._reporter.video_done(result)


def _blame(video: PlannedVideo, failures: Sequence[GopFailure]) -> VideoFailure:
    tried = [failure for failure in failures if failure.attempts]
    first = min(tried, key=lambda failure: failure.task.spec.index)
    others = f" ({len(tried) - 1} other GOPs failed as well)" if len(tried) > 1 else ""
    text = f"{video.source.uri}: GOP {first.task.spec.index} of {len(video.specs)}: {first.error}{others}"
    return VideoFailure(
        video.source,
        first.error_class,
        text,
        video.fixity,
        gop_index=first.task.spec.index,
        attempts=first.attempts,
    )
