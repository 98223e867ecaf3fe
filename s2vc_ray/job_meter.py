"""What a job under way has come to, counted from its events: the one source of every figure shown.

`JobMeter` is a `Reporter` that only counts. The terminal, Prometheus and the final summary read it with `read`,
from any thread; what they cost does not depend on how many GOPs there are. Memory is bounded: sums, one entry
per video that is being coded, and two minutes of history for rates. Counts are of this run alone: what an
earlier run had staged is `Counts.gops_resumed` and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace

from s2vc_ray.executor import GopFailure
from s2vc_ray.pool import WorkerPool
from s2vc_ray.results import FlowDepths, JobReport, VideoResult
from s2vc_ray.sources import Source
from s2vc_ray.staging import StagedGop
from s2vc_ray.usage import Usage

_RECENT_SECONDS = 120.0
_MOST_CLASSES = 50
"""Error classes counted apart; more would be a label without bound."""


@dataclass(slots=True)
class Counts:
    """A job's figures at one moment. `JobMeter.read` gives a copy that is the reader's own.

    Attributes:
        job, sources: the job's id, and how many sources it knew at its start; 0 when they are listed as it goes.
        started: when it began, and ``moved``: when it last got a GOP or a video done; Unix time.
        seconds: how long it has run.
        videos: ended sources by status. ``failures``: those with an error, by its class.
        planned_videos, planned_gops, planned_frames: of videos that were to be coded.
        frames_settled: those of `planned_frames` that are staged, or given up with their video.
        gops_coded, gops_resumed: staged by this run, and found staged. ``gops_failed``: given up, by class.
        retries: GOPs tried again, by the class of error.
        probes: how often GOPs were coded to find the q that their target needs; 0 without targets.
        frames, pixels, payload_bytes, video_seconds: of the GOPs coded. ``video_seconds`` is playing time.
        source_bytes, archive_bytes: of the videos archived.
        worker_seconds, gpu_seconds: workers and their GPUs over time, busy or not; None when no pool was told.
        usage: how workers have spent their time.
        fps, busy: frames per second, and the share of their lanes that codecs filled, both of the last two
            minutes; None before anything is known.
        depths, pool: the latest told.
    """

    job: str = ""
    sources: int = 0
    started: float = 0.0
    moved: float = 0.0
    seconds: float = 0.0
    videos: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    planned_videos: int = 0
    planned_gops: int = 0
    planned_frames: int = 0
    frames_settled: int = 0
    gops_coded: int = 0
    gops_resumed: int = 0
    gops_failed: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    probes: int = 0
    frames: int = 0
    pixels: int = 0
    payload_bytes: int = 0
    video_seconds: float = 0.0
    source_bytes: int = 0
    archive_bytes: int = 0
    worker_seconds: float | None = None
    gpu_seconds: float | None = None
    usage: Usage = field(default_factory=Usage)
    fps: float | None = None
    busy: float | None = None
    depths: FlowDepths | None = None
    pool: WorkerPool | None = None

    @property
    def bpp(self) -> float | None:
        """Payload bits per true pixel; None before anything is coded."""
        return 8 * self.payload_bytes / self.pixels if self.pixels else None

    @property
    def whole_run_busy(self) -> float | None:
        """The share of their lanes that codecs filled since workers came up; None when no pool was told."""
        return self.usage.busy if self.usage.lane_seconds else None

    @property
    def seconds_left(self) -> float | None:
        """At the run's mean speed, known sources not yet planned taken to be like those that are.

        None before there is a speed. At the least so long where sources are still being listed.
        """
        if not self.frames or not self.seconds:
            return None
        unplanned = max(
            0, self.sources - self.planned_videos - self.videos["skipped"] - self.videos["excluded"]
        )
        usual = self.planned_frames / max(1, self.planned_videos)
        left = self.planned_frames - self.frames_settled + unplanned * usual
        return left * self.seconds / self.frames


@dataclass(slots=True)
class _Video:
    """What is left to do of a video that is being coded, and the duration of its frames."""

    frames_left: int
    frame_seconds: float


@dataclass(frozen=True, slots=True)
class _Moment:
    """The sums that rates are made of, as they were at ``at``."""

    at: float
    frames: int
    usage: Usage


class JobMeter:
    """Counts a job's events.

    Args:
        clock: seconds that never go back; tests give their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts = Counts()
        self._lock = threading.Lock()
        self._begun = self._poured = clock()
        self._ended: float | None = None
        self._recent: deque[_Moment] = deque([_Moment(self._begun, 0, Usage())])
        self._open: dict[str, _Video] = {}

    def started(self, job: str, sources: int) -> None:
        """The clock starts here."""
        with self._lock:
            self._begun = self._poured = self._clock()
            self._recent = deque([_Moment(self._begun, 0, Usage())])
            self._counts.job, self._counts.sources = job, sources
            self._counts.started = self._counts.moved = time.time()

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        """Add to what is to be done."""
        with self._lock:
            counts = self._counts
            counts.planned_videos += 1
            counts.planned_gops += gops
            counts.planned_frames += frames
            counts.moved = time.time()
            self._open[video_id] = _Video(frames, (seconds or 0.0) / max(1, frames))

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """Add to what is done; bytes, frames and seconds only of what this run has coded."""
        with self._lock:
            counts, frames = self._counts, len(gop.pts)
            frame_seconds = self._settle(gop.video_id, gop.frames_expected)
            if resumed:
                counts.gops_resumed += 1
                return
            counts.gops_coded += 1
            counts.probes += gop.probes if gop.target else 0
            counts.frames += frames
            counts.pixels += frames * gop.width * gop.height
            counts.payload_bytes += gop.payload_bytes
            counts.video_seconds += frames * frame_seconds
            counts.moved = time.time()
            self._remember()

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """Count a retry, or a GOP given up."""
        with self._lock:
            _add(self._counts.gops_failed if final else self._counts.retries, failure.error_class)

    def flow(self, depths: FlowDepths) -> None:
        """Keep the latest."""
        with self._lock:
            self._counts.depths = depths
            self._remember()

    def pool(self, pool: WorkerPool) -> None:
        """Keep the latest; until the next, so many workers are being paid for."""
        with self._lock:
            self._pour()
            counts = self._counts
            counts.pool = pool
            # Workers' answers overtake one another; a counter that falls would look like a restart.
            counts.usage = Usage(*map(max, astuple(counts.usage), astuple(pool.usage)))
            self._remember()

    def video_done(self, result: VideoResult) -> None:
        """Count its end, and what its archive saves. What was not coded of it never will be."""
        with self._lock:
            counts = self._counts
            left = self._open.pop(Source(result.uri, result.name).video_id, None)
            counts.frames_settled += left.frames_left if left else 0
            counts.videos[result.status] += 1
            if result.error_class:
                _add(counts.failures, result.error_class)
            if result.status in ("ok", "partial"):
                counts.source_bytes += result.source_bytes or 0
                counts.archive_bytes += result.archive_bytes or 0
            counts.moved = time.time()

    def finished(self, report: JobReport) -> None:
        """Stop the clock."""
        with self._lock:
            self._pour()
            self._ended = self._clock()

    def read(self) -> Counts:
        """A copy of the figures as they are now."""
        with self._lock:
            self._pour()
            now, held = self._now(), self._counts
            self._forget(now)
            since = self._recent[0]
            lanes = held.usage.lane_seconds - since.usage.lane_seconds
            inside = held.usage.busy_seconds - since.usage.busy_seconds
            return replace(
                held,
                seconds=now - self._begun,
                videos=held.videos.copy(),
                failures=held.failures.copy(),
                gops_failed=held.gops_failed.copy(),
                retries=held.retries.copy(),
                fps=(held.frames - since.frames) / (now - since.at)
                if held.frames and now > since.at
                else None,
                # A batch's seconds are known only at its end, so that its share may spill over.
                busy=min(1.0, inside / lanes) if lanes > 0 else None,
            )

    def _settle(self, video_id: str, frames: int) -> float:
        """Take ``frames`` off what is left of a video; returns the duration of one of them, 0 if not known."""
        video = self._open.get(video_id)
        if video is None:
            return 0.0
        taken = min(frames, video.frames_left)
        video.frames_left -= taken
        self._counts.frames_settled += taken
        return video.frame_seconds

    def _now(self) -> float:
        return self._clock() if self._ended is None else self._ended

    def _pour(self) -> None:
        """Add what the workers have cost since the last time."""
        now, counts, pool = self._now(), self._counts, self._counts.pool
        if pool is not None:
            since = now - self._poured
            counts.worker_seconds = (counts.worker_seconds or 0.0) + pool.workers * since
            counts.gpu_seconds = (counts.gpu_seconds or 0.0) + pool.gpus * since
        self._poured = now

    def _remember(self) -> None:
        now = self._clock()
        if now - self._recent[-1].at >= 1.0:
            self._recent.append(_Moment(now, self._counts.frames, self._counts.usage))
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Keep one moment from before the window: what the window is measured against."""
        while len(self._recent) > 1 and self._recent[1].at <= now - _RECENT_SECONDS:
            self._recent.popleft()


def _add(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < _MOST_CLASSES else "Other"] += 1
