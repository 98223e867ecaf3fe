"""Running GOP batches somewhere: the `Executor` seam, its in-process form, and dispatch for all forms.

`Dispatch` owns the bounded window, retries and quarantine, so an executor only has to run one batch and
report. To add one, implement these; `LocalExecutor` is the worked example::

    executor.start()                      # -> the codec every worker will use
    executor.submit(batch)                # at most `window` batches at once
    executor.next_result(timeout)         # -> BatchResult of any submitted batch, or None: ask again
    executor.pool                         # who works, for whoever watches
    executor.close()

Failures of the application travel as values (`GopFailure`); an exception out of `next_result` means that the
infrastructure is gone. Knows nothing of Ray, torch or archives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from s2vc_ray.pool import WorkerPool
from s2vc_ray.staging import StagedGop, staging_key
from s2vc_ray.usage import Usage
from s2vc_ray.values import GopSpec


@dataclass(frozen=True, slots=True)
class CodecIdentity:
    """Which codec a worker has loaded, and where it runs."""

    model_id: str
    weights_sha256: str
    preset: str
    device: str
    torch: str


@dataclass(frozen=True, slots=True)
class GopTask:
    """One GOP to code; ``staging`` is the key prefix under which its payload is staged.

    ``max_bpp`` is the most payload bits per true pixel where its video has a budget; see `s2vc_ray.size_budget`.
    ``version`` is the source's size and tag when it was planned: frames of another are never staged. None: any.
    ``name`` is the source's, which policies go by.
    """

    spec: GopSpec
    staging: str
    max_bpp: float | None = None
    version: tuple[int, str] | None = None
    name: str = ""

    @property
    def key(self) -> str:
        """Key of the staged payload; no two tasks share one."""
        return staging_key(self.staging, self.spec.index)


@dataclass(frozen=True, slots=True)
class GopBatch:
    """GOPs of one frame size, of one video or several, to code side by side.

    ``attempt`` counts from 1. A batch is small: it holds references to frames, never frames.
    """

    tasks: tuple[GopTask, ...]
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class GopFailure:
    """One GOP that could not be coded, and why."""

    task: GopTask
    error_class: str
    error: str
    attempts: int


GopOutcome = StagedGop | GopFailure


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One outcome for each GOP of ``batch``, in its order."""

    batch: GopBatch
    outcomes: tuple[GopOutcome, ...]


class GopWorker(Protocol):
    """What an executor runs: `s2vc_ray.worker.Worker`, or a fake in tests."""

    def identity(self) -> CodecIdentity:
        """Load the codec if need be and say which it is."""
        ...

    def encode(self, batch: GopBatch) -> BatchResult:
        """Code and stage a batch. Raises nothing that a GOP can cause."""
        ...

    def usage(self) -> Usage:
        """How its time was spent so far."""
        ...


class Executor(Protocol):
    """Where batches run."""

    @property
    def window(self) -> int:
        """How many batches may be under way at once; may grow as workers come up."""
        ...

    @property
    def pool(self) -> WorkerPool:
        """The workers it holds, and how they have spent their time."""
        ...

    def start(self) -> CodecIdentity:
        """Bring up at least one worker.

        Raises:
            ConfigError: no worker can run: no such model, device or cluster.
        """
        ...

    def submit(self, batch: GopBatch) -> None:
        """Hand over a batch without waiting for it."""
        ...

    def next_result(self, timeout: float | None = None) -> BatchResult | None:
        """Wait for any submitted batch, ``timeout`` seconds at most; None: not yet, or the window has changed."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


class LocalExecutor:
    """Runs batches one after the other in this process: the debugger's friend."""

    window = 1

    def __init__(self, make_worker: Callable[[], GopWorker]) -> None:
        self._make_worker = make_worker
        self._worker: GopWorker | None = None
        self._submitted: deque[GopBatch] = deque()

    @property
    def pool(self) -> WorkerPool:
        """The one worker."""
        return WorkerPool(1, 1, usage=self._worker.usage()) if self._worker else WorkerPool(0, 0)

    def start(self) -> CodecIdentity:
        """Load the codec here."""
        self._worker = self._make_worker()
        return self._worker.identity()

    def submit(self, batch: GopBatch) -> None:
        """Queue ``batch`` for the next `next_result`."""
        self._submitted.append(batch)

    def next_result(self, timeout: float | None = None) -> BatchResult:
        """Code the oldest submitted batch now, however long it takes."""
        if self._worker is None:
            raise RuntimeError("start() comes first")
        return self._worker.encode(self._submitted.popleft())

    def close(self) -> None:
        """Drop the worker and its codec."""
        self._worker = None


class Dispatch:
    """Keeps an executor's window full, tries failures again and gives up on poison.

    Args:
        executor: started.
        attempts: how often a GOP is tried in all. It is tried again alone, so that a poisonous one cannot take its
            neighbours down twice.
        on_failure: told of every failed try, with whether it was the last.
    """

    def __init__(
        self, executor: Executor, attempts: int, on_failure: Callable[[GopFailure, bool], None]
    ) -> None:
        self._executor = executor
        self._attempts = attempts
        self._on_failure = on_failure
        self._again: deque[GopBatch] = deque()
        self.under_way = 0

    @property
    def window(self) -> int:
        """How many batches the executor takes at once."""
        return self._executor.window

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waiting to be tried again."""
        return not self.under_way and not self._again

    def fill(self, take: Callable[[], GopBatch | None]) -> None:
        """Submit what is to be tried again, then what ``take`` gives, while the window has room."""
        while self.under_way < self._executor.window:
            batch = self._again.popleft() if self._again else take()
            if batch is None:
                return
            self._executor.submit(batch)
            self.under_way += 1

    def collect(self, timeout: float | None = None) -> list[GopOutcome]:
        """Final outcomes of the next batch to end, if one does within ``timeout`` seconds."""
        result = self._executor.next_result(timeout)
        if result is None:
            return []
        self.under_way -= 1
        done: list[GopOutcome] = []
        for outcome in result.outcomes:
            if isinstance(outcome, GopFailure):
                final = result.batch.attempt >= self._attempts
                self._on_failure(outcome, final)
                if not final:
                    self._again.append(GopBatch((outcome.task,), result.batch.attempt + 1))
                    continue
            done.append(outcome)
        return done
