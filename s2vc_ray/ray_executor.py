"""Encoder actors on Ray: this machine's cores or GPUs, or a cluster's. The one module that imports Ray.

Each actor loads the codec once. On GPUs it pins one and works on two batches, so that one decodes its source
while the other codes; on CPUs it works on one batch a core, each on a core of its own, which beats all cores
on one batch by half. Ray restarts what dies, without limit: nodes come and go. A `_Ledger` counts how often
each batch was begun, so that a GOP which kills its process is given up like any other, and two batches of a
process that died never run side by side again. A batch that lingers on a lost or slow worker is copied to an
idle one: staging is idempotent.
"""

from __future__ import annotations

import logging
import os
import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError, S2vcError
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch, GopFailure
from s2vc_ray.worker import CodecLoader, Worker, load_s2vc

_LIVES = 2
"""How often a batch is begun before it is a failure; each retry of a failed GOP has as many."""
_CPU_CORES = 2
"""Cores of a worker without a GPU: they share one copy of the model and of everything imported."""
_POLL_SECONDS = 5.0
_LINGER_SECONDS = 120.0
_START_SECONDS = 600.0
_OBJECT_STORE_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Placement:
    """How many actors, and what each one claims."""

    workers: int
    gpus: float
    cpus: int

    @property
    def batches(self) -> int:
        """Batches an actor works on at once.

        Two keep a GPU busy while the next source is decoded. Each core of a CPU has a batch of its own.
        """
        return 2 if self.gpus else self.cpus

    @property
    def coding(self) -> int:
        """Batches of an actor that may be in the codec at once."""
        return 1 if self.gpus else self.cpus

    @property
    def threads(self) -> int:
        """Threads of one batch: to decode its source, and for what of torch runs on a CPU."""
        return self.cpus if self.gpus else 1


def place(config: JobConfig, *, gpus: float, cpus: float) -> Placement:
    """Actors for a cluster with so many GPUs and CPU cores.

    Raises:
        ConfigError: CUDA was asked for and the cluster has no GPU (give ``workers`` for one that scales up).
    """
    if config.device == "cuda" and not gpus and not config.workers:
        raise ConfigError(
            "device 'cuda': the Ray cluster has no GPU; use device 'cpu', or --workers to wait for GPUs"
        )
    if config.device == "cuda" or (config.device == "auto" and gpus):
        threads = config.threads or max(1, min(8, int(cpus // max(gpus, 1))))
        return Placement(config.workers or max(1, int(gpus)), 1, threads)
    share = max(1, int(cpus) // max(config.workers, 1))
    threads = min(config.threads, max(1, int(cpus))) or min(_CPU_CORES, share)
    return Placement(config.workers or max(1, int(cpus // threads)), 0, threads)


class _Ledger:
    """How often each batch was begun. Lives apart from the workers, so it survives them."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begun(self, key: str) -> int:
        return self._begun[key]

    def begin(self, key: str) -> int:
        self._begun[key] += 1
        return self._begun[key]


class _Encoder:
    """The actor: a `Worker` that notes what it begins."""

    def __init__(
        self,
        destination: str,
        config: JobConfig,
        placement: Placement,
        load_codec: CodecLoader,
        ledger: str,
    ) -> None:
        self._worker = Worker(
            destination, config, threads=placement.threads, coding=placement.coding, load_codec=load_codec
        )
        self._batches = placement.batches
        # By name: a handle among an actor's constructor arguments could be gone when Ray restarts the actor.
        self._ledger: Any = ray.get_actor(ledger)
        self._slots = threading.Semaphore(self._batches)
        self._draining = threading.Lock()

    def identity(self) -> CodecIdentity | str:
        try:
            return self._worker.identity()
        except ConfigError as error:
            return str(error)

    def encode(self, batch: GopBatch) -> BatchResult:
        key = _key(batch)
        suspect = ray.get(self._ledger.begun.remote(key)) > 0
        with self._slot(alone=suspect):
            begun = ray.get(self._ledger.begin.remote(key))
            if begun > _LIVES:
                text = f"its worker died {begun - 1} times while coding it; see the Ray logs for the cause"
                return BatchResult(
                    batch, tuple(GopFailure(task, "WorkerDied", text, batch.attempt) for task in batch.tasks)
                )
            return self._worker.encode(batch)

    @contextmanager
    def _slot(self, *, alone: bool) -> Iterator[None]:
        wanted = self._batches if alone else 1
        with self._draining:
            for _ in range(wanted):
                self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release(wanted)


@dataclass(slots=True)
class _Flight:
    """One submission of a batch to one actor. ``stale`` when another copy of the batch came back first."""

    batch: GopBatch
    actor: Any
    since: float
    copied: bool = False
    stale: bool = False


class RayExecutor:
    """Runs batches on Ray actors. See `s2vc_ray.executor.Executor` for the methods.

    Args:
        destination: where workers stage; must mean the same place on every node.
        config: the job.
        load_codec: how workers get their codec; pickled to them.
    """

    def __init__(self, destination: str, config: JobConfig, load_codec: CodecLoader = load_s2vc) -> None:
        self._destination = destination
        self._config = config
        self._load_codec = load_codec
        self._owns_ray = False
        self._batches = 1
        self._ledger: Any = None
        self._actors: list[Any] = []
        self._ready: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._flights: dict[Any, _Flight] = {}
        self._seconds: list[float] = []
        self._identity: CodecIdentity | None = None

    @property
    def window(self) -> int:
        """`Placement.batches` for each actor that is up, less those that only repeat finished ones."""
        stale = sum(flight.stale for flight in self._flights.values())
        return max(1, self._batches * len(self._ready) - stale)

    @property
    def actors(self) -> tuple[Any, ...]:
        """The actor handles, for tests and debugging."""
        return tuple(self._actors)

    def start(self) -> CodecIdentity:
        """Join or start Ray, create the actors and wait for the first to load its codec."""
        self._owns_ray = _connect(self._config.ray_address)
        resources: dict[str, float] = ray.cluster_resources()
        gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 1.0)
        placement = place(self._config, gpus=gpus, cpus=cpus)
        self._batches = placement.batches
        name = f"s2vc-ledger-{secrets.token_hex(8)}"
        ledger = ray.remote(_Ledger).options(name=name, num_cpus=0, max_restarts=-1, max_task_retries=-1)
        self._ledger = ledger.remote()
        encoder = ray.remote(_Encoder).options(
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=placement.batches,
            runtime_env={
                "env_vars": {
                    "OMP_NUM_THREADS": str(placement.threads),
                    "OMP_WAIT_POLICY": "passive",
                    # Each thread's own heap would keep what it once needed.
                    "MALLOC_ARENA_MAX": "2",
                    "RAY_USAGE_STATS_ENABLED": "0",
                }
            },
        )
        for _ in range(placement.workers):
            actor: Any = encoder.remote(self._destination, self._config, placement, self._load_codec, name)
            self._actors.append(actor)
            self._starting[actor.identity.remote()] = actor
        ready, _ = ray.wait(list(self._starting), timeout=_START_SECONDS)
        if not ready:
            raise ConfigError(
                f"no worker came up in {_START_SECONDS:.0f} s: each needs {placement.cpus} CPUs and "
                f"{placement.gpus:g} GPUs; the cluster has {cpus:g} and {gpus:g}, perhaps all in use"
            )
        return self._admit(ready[0])

    def submit(self, batch: GopBatch) -> None:
        """Give ``batch`` to the actor with the least to do."""
        self._send(batch, min(self._ready, key=self._load))

    def next_result(self, timeout: float | None = None) -> BatchResult | None:
        """A finished batch; None when the window may have grown instead, or ``timeout`` seconds have passed."""
        while True:
            ready, _ = ray.wait([*self._flights, *self._starting], timeout=timeout or _POLL_SECONDS)
            if timeout is not None and not ready:
                self._copy_lingering()
                return None
            for ref in ready:
                if ref in self._starting:
                    self._admit(ref)
                    return None
                result = self._land(ref)
                if result is not None:
                    return result
            self._copy_lingering()

    def close(self) -> None:
        """Kill the actors, and Ray itself where `start` started it."""
        for actor in [*self._actors, *filter(None, [self._ledger])]:
            ray.kill(actor)
        self._actors, self._ready, self._starting, self._flights = [], [], {}, {}
        if self._owns_ray:
            ray.shutdown()

    def _admit(self, ref: Any) -> CodecIdentity:
        actor = self._starting.pop(ref)
        try:
            identity: CodecIdentity | str = ray.get(ref)
        except RayError as error:
            raise ConfigError(f"a worker could not start: {error}") from error
        if isinstance(identity, str):
            raise ConfigError(identity)
        if self._identity is not None and identity.weights_sha256 != self._identity.weights_sha256:
            raise ConfigError(
                f"model {self._config.model!r} is not the same on every node ({identity.weights_sha256[:12]} "
                f"and {self._identity.weights_sha256[:12]}): install one version everywhere"
            )
        self._identity = self._identity or identity
        self._ready.append(actor)
        return self._identity

    def _load(self, actor: Any) -> int:
        return sum(flight.actor is actor for flight in self._flights.values())

    def _send(self, batch: GopBatch, actor: Any) -> None:
        self._flights[actor.encode.remote(batch)] = _Flight(batch, actor, time.monotonic())

    def _land(self, ref: Any) -> BatchResult | None:
        flight = self._flights.pop(ref)
        try:
            result: BatchResult = ray.get(ref)
        except RayActorError as error:
            self._retire(flight.actor, error)
            if not flight.stale:
                self.submit(flight.batch)
            return None
        except RayError as error:
            result = BatchResult(
                flight.batch,
                tuple(
                    GopFailure(task, type(error).__name__, str(error), flight.batch.attempt)
                    for task in flight.batch.tasks
                ),
            )
        if flight.stale:
            return None
        self._seconds.append(time.monotonic() - flight.since)
        for other in self._flights.values():
            other.stale = other.stale or other.batch is flight.batch
        return result

    def _retire(self, actor: Any, error: RayActorError) -> None:
        self._ready = [other for other in self._ready if other is not actor]
        if not self._ready:
            raise S2vcError(
                f"every Ray worker is gone for good; run the job again to resume ({error})"
            ) from error

    def _copy_lingering(self) -> None:
        usual = statistics.median(self._seconds[-99:]) if self._seconds else 0.0
        limit = max(_LINGER_SECONDS, 4 * usual)
        idle = [actor for actor in self._ready if not self._load(actor)]
        now = time.monotonic()
        for flight in list(self._flights.values()):
            if idle and not flight.copied and not flight.stale and now - flight.since > limit:
                flight.copied = True
                self._send(flight.batch, idle.pop())


def _key(batch: GopBatch) -> str:
    return f"{batch.attempt} {' '.join(task.key for task in batch.tasks)}"


def _connect(address: str | None) -> bool:
    """Join the cluster at ``address``, or the one this process was submitted to, or start one here (True)."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(address=address, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster at {address!r}: {error}") from error
        return False
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE_BYTES,
    )
    return True
