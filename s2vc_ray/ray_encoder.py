"""The actor: a `Worker` that says, with every answer, how it is.

It ends itself when it can code no more: after a CUDA error that its process does not survive, and when it is told
to stop (SIGTERM: a spot machine's notice, a pod that is evicted). Batches under way are handed back at once, for
another worker to do; what they have staged by then stays staged.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import FrameType

import ray

from s2vc_ray.config import JobConfig
from s2vc_ray.counters import Increments, Sample
from s2vc_ray.device_faults import DeviceLost
from s2vc_ray.errors import ConfigError, StoreUnavailable
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch
from s2vc_ray.pool import GpuReading, read_gpus
from s2vc_ray.ray_placement import Placement
from s2vc_ray.usage import Usage
from s2vc_ray.worker import CodecLoader, Worker

_LOOK_SECONDS = 0.25
"""How soon a notice is noticed."""
_READ_SECONDS = 10.0
"""Between readings of a machine's GPUs."""
_GRACE_SECONDS = 2.0
"""From a notice to the process's end, for answers to get away."""


@dataclass(frozen=True, slots=True)
class Hello:
    """An actor that came up, or the reason why its codec cannot be used there."""

    codec: CodecIdentity | str
    node: str


@dataclass(frozen=True, slots=True)
class Handback:
    """A batch that was not done, for no reason of the application.

    Attributes:
        reason: ``preempted``, ``device_lost`` or ``store_unavailable``.
        text: the particulars.
        ending: the actor ends itself.
        suspect: the batch may be the reason.
    """

    reason: str
    text: str
    ending: bool
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a batch, and how the actor is.

    Attributes:
        usage: how it has spent its time so far.
        counts: what it counted since its last answer.
        gpus: its machine's GPUs, now and then; else empty.
    """

    outcome: BatchResult | Handback
    usage: Usage
    counts: tuple[Sample, ...]
    gpus: tuple[GpuReading, ...] = ()


class Encoder:
    """See the module. Ray calls its methods from several threads.

    Args:
        destination, config, load_codec: see `Worker`.
        placement: how much of it runs at once.
    """

    def __init__(
        self, destination: str, config: JobConfig, placement: Placement, load_codec: CodecLoader
    ) -> None:
        self._worker = Worker(
            destination,
            config,
            threads=placement.threads,
            lanes=placement.lanes,
            overlap=placement.gpus > 0,
            load_codec=load_codec,
        )
        self._threads = ThreadPoolExecutor(placement.batches, "batch")
        self._ending: Handback | None = None
        self._gpus = placement.gpus > 0
        self._read_at = float("-inf")
        self._reading = threading.Lock()
        self._increments = Increments()
        # Ray constructs actors on the main thread, the only one that may do this.
        signal.signal(signal.SIGTERM, self._notice)

    def hello(self) -> Hello:
        """Load the codec."""
        node = ray.get_runtime_context().get_node_id()
        try:
            return Hello(self._worker.identity(), node)
        except ConfigError as error:
            return Hello(str(error), node)

    def encode(self, batch: GopBatch) -> Answer:
        """Code and stage ``batch``, or hand it back."""
        if self._ending is None:
            work = self._threads.submit(self._work, batch)
            while self._ending is None and not work.done():
                wait([work], timeout=_LOOK_SECONDS)
            outcome = _result(work) or self._ending
        else:
            outcome = self._ending
        assert outcome is not None
        return Answer(outcome, self._worker.usage(), self._increments.take(), self._readings())

    def _work(self, batch: GopBatch) -> BatchResult | Handback:
        try:
            return self._worker.encode(batch)
        except StoreUnavailable as error:
            return Handback("store_unavailable", str(error), ending=False)
        except DeviceLost as error:
            # Whatever else runs here fails of the same context, and is as suspect.
            self._end(Handback("device_lost", str(error), ending=True, suspect=True))
            raise

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._end(Handback("preempted", "the worker was told to stop (SIGTERM)", ending=True))

    def _end(self, reason: Handback) -> None:
        if self._ending is None:
            self._ending = reason
            # Whoever gave the notice, or Ray, may be waiting for the process to end.
            timer = threading.Timer(_GRACE_SECONDS, os._exit, (1,))
            timer.daemon = True
            timer.start()

    def _readings(self) -> tuple[GpuReading, ...]:
        with self._reading:
            now = time.monotonic()
            if not self._gpus or now - self._read_at < _READ_SECONDS:
                return ()
            self._read_at = now
        return read_gpus()


def _result(work: Future[BatchResult | Handback]) -> BatchResult | Handback | None:
    """None when it is not done, or ended with its process's device."""
    if not work.done() or isinstance(work.exception(), DeviceLost):
        return None
    return work.result()
