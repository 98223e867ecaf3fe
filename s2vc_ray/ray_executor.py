"""Batches on Ray actors, of this machine or of a cluster. With its ``ray_`` siblings, what knows Ray.

    submit ─► waiting ─► flight on an actor ─┬► result
                 ▲                           └► fault: `ray_faults` says whose
                 └── again, later ───────────────┘

Ray restarts and retries nothing: this does, and so it can see, count and pace what is lost. **Infrastructure is
retried without limit**: when every actor is gone the job waits for others. **Batches that may kill their worker are
not**: one that was under way in a process that died is a suspect and runs alone from then on, and what dies alone
twice is a failure of the application, which `Dispatch` tries again a bounded number of times.
A batch that lingers on a slow or lost actor is copied to an idle one: staging is idempotent.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from s2vc_ray.config import JobConfig
from s2vc_ray.counters import count, merge
from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch, GopFailure
from s2vc_ray.pool import GpuReading, WorkerPool
from s2vc_ray.ray_cluster import Cluster, connect
from s2vc_ray.ray_encoder import Answer, Encoder, Hello
from s2vc_ray.ray_faults import Actor, Fault, cause_of, diagnose
from s2vc_ray.ray_lateness import Lateness
from s2vc_ray.ray_placement import Placement, place
from s2vc_ray.ray_pool import Member, Pace, Pool
from s2vc_ray.ray_queue import Job, JobQueue
from s2vc_ray.worker import CodecLoader, load_s2vc

_LIVES = 2
"""How often a batch's worker dies while it runs alone before the batch fails; each try of a GOP has as many."""
_TEND_SECONDS = 0.1
_READING_SECONDS = 600.0
"""After which a GPU that is not heard of is taken for gone. Long batches make long silences."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Flight:
    """A job on an actor. ``alone`` when the actor has done nothing else since it began."""

    job: Job
    member: Member
    since: float
    alone: bool


class RayExecutor:
    """Runs batches on Ray actors. See `s2vc_ray.executor.Executor` for the methods.

    Args:
        destination: where workers stage; must mean the same place on every node.
        config: the job.
        load_codec: how workers get their codec; pickled to them.
        pace: its times.
    """

    def __init__(
        self,
        destination: str,
        config: JobConfig,
        load_codec: CodecLoader = load_s2vc,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._destination = destination
        self._config = config
        self._load_codec = load_codec
        self._pace = pace or Pace()
        self._cluster: Cluster
        self._placement: Placement
        self._pool = Pool(self._start_actor, ray.kill, self._pace, time.monotonic)
        self._owns_ray = False
        self._identity: CodecIdentity | None = None
        self._flights: dict[Any, _Flight] = {}
        self._queue = JobQueue()
        self._results: deque[BatchResult] = deque()
        self._under_way = 0
        self._stale = 0
        self._gpus: dict[tuple[str, int], tuple[float, GpuReading]] = {}
        self._lateness = Lateness(self._pace)
        self._reminded = self._tended = -math.inf

    @property
    def window(self) -> int:
        """`Placement.batches` for each actor that is up, less those that only repeat finished ones."""
        return max(1, self._placement.batches * len(self._pool.open) - self._stale)

    @property
    def actors(self) -> tuple[Any, ...]:
        """Handles of the actors that are up, for tests and debugging."""
        return tuple(member.actor for member in self._pool.open)

    @property
    def pool(self) -> WorkerPool:
        """The workers that are up now, how all there were have spent their time, and their machines' GPUs."""
        workers, now = len(self._pool.open), time.monotonic()
        return WorkerPool(
            workers=workers,
            lanes=workers * self._placement.lanes,
            gpus=workers * self._placement.gpus,
            usage=self._pool.usage(),
            readings=tuple(gpu for at, gpu in self._gpus.values() if now - at < _READING_SECONDS),
        )

    def start(self) -> CodecIdentity:
        """Join or start Ray, start the first actors and wait for one to load its codec."""
        self._owns_ray = connect(self._config.ray_address)
        self._cluster = Cluster(self._pace.look)
        self._placement = place(self._config, self._cluster.nodes)
        self._pool.lanes = self._placement.lanes
        self._pool.add(self._placement.first)
        # A first worker takes its time; that is not worth a word yet.
        begun = self._reminded = time.monotonic()
        while self._identity is None:
            if time.monotonic() - begun > self._pace.start:
                raise ConfigError(
                    f"no worker came up in {self._pace.start:.0f} s: each needs {self._placement.cpus:g} CPUs and "
                    f"{self._placement.gpus:g} GPUs; the cluster has {self._cluster}, perhaps all in use"
                )
            self._tend(busy=None)
            self._wait(min(1.0, self._pace.look))
        return self._identity

    def submit(self, batch: GopBatch) -> None:
        """Give ``batch`` to the actor with the least to do, or keep it until there is one."""
        self._under_way += 1
        self._queue.add(Job(batch))
        self._send_waiting()

    def next_result(self, timeout: float | None = None) -> BatchResult | None:
        """A finished batch; None when the window may have changed instead, or ``timeout`` seconds have passed."""
        window = self.window
        busy = self._under_way >= window
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._results:
            self._tend(busy=busy)
            left = self._pace.look if ends is None else ends - time.monotonic()
            if left <= 0 or self.window > window:
                return None
            self._wait(min(left, self._pace.look))
        self._under_way -= 1
        return self._results.popleft()

    def close(self) -> None:
        """End the actors, and Ray itself where `start` started it."""
        for member in list(self._pool.members):
            self._pool.drop(member, "closed", failed=False)
        self._flights = {}
        if self._owns_ray:
            ray.shutdown()

    def _start_actor(self) -> tuple[Any, Any]:
        encoder = ray.remote(Encoder).options(
            num_cpus=self._placement.cpus,
            num_gpus=self._placement.gpus,
            max_restarts=0,
            max_task_retries=0,
            # One more, to be asked whether it is there.
            max_concurrency=self._placement.batches + 1,
            scheduling_strategy="SPREAD" if self._placement.spread else "DEFAULT",
            runtime_env={
                "env_vars": {
                    "OMP_NUM_THREADS": str(self._placement.threads),
                    "OMP_WAIT_POLICY": "passive",
                    # Several heaps would each keep what large activations leave: 200 MB at 720p, for no speed.
                    "MALLOC_ARENA_MAX": "1",
                    "RAY_USAGE_STATS_ENABLED": "0",
                }
            },
        )
        actor: Any = encoder.remote(self._destination, self._config, self._placement, self._load_codec)
        return actor, actor.hello.remote()

    def _tend(self, *, busy: bool | None) -> None:
        """What is due by the clock. Looks at every worker, and so not for every batch."""
        now = time.monotonic()
        if now - self._tended < _TEND_SECONDS:
            return
        self._tended = now
        if self._cluster.look():
            for member in self._pool.open:
                if member.node in self._cluster.draining:
                    member.leaving = "draining"
            self._watch()
        high = self._placement.high
        if high is None:
            high = self._placement.capacity(self._cluster.nodes)
        self._pool.tend(busy=busy, low=self._placement.low, high=high)
        self._send_waiting()
        if not self._pool.open and now - self._reminded > self._pace.remind:
            self._reminded = now
            count("waits_for_workers")
            _log.warning(
                "no worker is up: the cluster has %s, %d workers were asked for, %d batches wait",
                self._cluster,
                len(self._pool.coming),
                self._under_way,
            )

    def _wait(self, seconds: float) -> None:
        """Wait for anything to happen, and deal with all that has."""
        now = time.monotonic()
        due = [at for at in (self._queue.next_due, self._pool.backoff.until) if at is not None and at > now]
        seconds = min([seconds, *(at - now for at in due)])
        coming = {member.hello: member for member in self._pool.coming}
        refs = [*self._flights, *coming]
        if not refs:
            time.sleep(seconds)
            return
        ready, _ = ray.wait(refs, timeout=seconds)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if ref in coming:
                self._meet(coming[ref], ref)
            else:
                self._land(ref)
        self._send_waiting()

    def _send_waiting(self) -> None:
        if not self._queue:
            return
        members = self._pool.open
        for job, member in self._queue.assign(members, self._placement.batches, time.monotonic()):
            self._send(job, member)

    def _send(self, job: Job, member: Member) -> None:
        flight = _Flight(job, member, time.monotonic(), alone=not member.work)
        for other in member.work:
            other.alone = False
        member.work.append(flight)
        job.flights += 1
        self._flights[member.actor.encode.remote(job.batch)] = flight

    def _meet(self, member: Member, ref: Any) -> None:
        """An actor has come up, or has not."""
        try:
            hello: Hello = ray.get(ref)
        except RayTaskError as error:
            self._refuse(member, f"a worker could not start: {cause_of(error)!r}")
            return
        except RayError as error:
            fault = diagnose(error)
            _log.warning("a worker did not come up: %s", fault.text)
            self._pool.drop(member, fault.reason)
            return
        codec, known = hello.codec, self._identity
        if isinstance(codec, str):
            self._refuse(member, codec)
        elif known is not None and codec.weights_sha256 != known.weights_sha256:
            self._refuse(
                member,
                f"model {self._config.model!r} is not the same on every node ({codec.weights_sha256[:12]} and "
                f"{known.weights_sha256[:12]}): install one version everywhere",
            )
        else:
            self._identity = known or codec
            self._pool.admit(member, hello.node)

    def _refuse(self, member: Member, why: str) -> None:
        """A worker that cannot work ends a job that has not begun; to one that has, it is a node to do without."""
        if self._identity is None:
            raise ConfigError(why)
        _log.error("a worker is refused: %s", why)
        self._pool.drop(member, "refused")

    def _land(self, ref: Any) -> None:
        """A flight has ended, well or not."""
        flight = self._flights.pop(ref)
        job, member = flight.job, flight.member
        member.work.remove(flight)
        member.idle_since = time.monotonic()
        job.flights -= 1
        job.leave(member)
        self._stale -= job.done_at is not None
        try:
            answer: Answer = ray.get(ref)
        except RayTaskError as error:
            cause = cause_of(error)
            self._finish(flight, _failed(job.batch, type(cause).__name__, str(cause) or repr(cause)))
            return
        except RayError as error:
            self._suffer(flight, diagnose(error))
            return
        member.usage = answer.usage
        merge(answer.counts)
        self._gpus.update({(gpu.host, gpu.index): (time.monotonic(), gpu) for gpu in answer.gpus})
        if isinstance(answer.outcome, BatchResult):
            self._pool.backoff.succeeded()
            self._finish(flight, answer.outcome)
            return
        back = answer.outcome
        if back.ending and not member.leaving:
            member.leaving = back.reason
        self._suffer(flight, Fault(back.reason, Actor.FINE, back.suspect, "DeviceLost", back.text))

    def _finish(self, flight: _Flight, result: BatchResult) -> None:
        job, now = flight.job, time.monotonic()
        if job.done_at is None:
            job.done_at = now
            self._stale += job.flights
            self._lateness.ended(now - flight.since, job.pixels)
            self._results.append(result)

    def _suffer(self, flight: _Flight, fault: Fault) -> None:
        """A flight has failed for no reason of the application, or at least for none that is known."""
        job, member = flight.job, flight.member
        if member.killed:
            fault = Fault("hung", Actor.GONE, False, "WorkerHung", "its worker hung and was ended")
        count("batch_faults", reason=fault.reason)
        _log.warning("a batch came back: %s (%s)", fault.reason, fault.text)
        if fault.actor is Actor.GONE:
            self._pool.drop(member, fault.reason)
        elif fault.actor is Actor.UNSURE and member.up:
            self._pool.doubt(member, member.actor.hello.remote())
        if fault.suspect:
            job.suspect = True
            job.deaths += flight.alone
        if job.done_at is not None or job.flights:
            return
        if job.deaths >= _LIVES:
            count("batches_given_up", reason=fault.reason)
            text = f"its worker died {job.deaths} times while it coded nothing else; last: {fault.text}"
            self._finish(flight, _failed(job.batch, fault.error_class, text))
            return
        job.tries += 1
        # A lost actor's successor is waited for anyway; where the actor is still there, so is what ails it.
        pause = min(self._pace.longest_pause, self._pace.first_pause * 2.0 ** min(job.tries, 30))
        stays = member in self._pool.members and not member.leaving
        self._queue.add(job, time.monotonic() + pause if stays else None)

    def _watch(self) -> None:
        """Copy late batches to idle workers, and end workers that hang."""
        now = time.monotonic()
        idle = [member for member in self._pool.open if not member.work and not member.reserved]
        for flight in list(self._flights.values()):
            job, took = flight.job, now - flight.since
            if job.done_at is not None:
                # Somebody else has long done it.
                if now - job.done_at > max(self._pace.linger, 4 * (job.done_at - flight.since)):
                    self._end_hung(flight.member)
            elif took > self._lateness.hopeless(job.pixels):
                job.suspect = True
                job.deaths += flight.alone
                self._end_hung(flight.member)
            elif idle and not job.copied and took > self._lateness.late(job.pixels):
                job.copied = True
                count("batch_copies")
                self._send(job, idle.pop())

    def _end_hung(self, member: Member) -> None:
        member.killed = True
        self._pool.drop(member, "hung")


def _failed(batch: GopBatch, error_class: str, text: str) -> BatchResult:
    return BatchResult(
        batch, tuple(GopFailure(task, error_class, text, batch.attempt) for task in batch.tasks)
    )
