"""Running GOP batches somewhere: the `Executor` seam, its in-process form, and scheduling for all forms.

`execute` owns the bounded window, retries and quarantine, so an executor only has to run one batch and
report. To add one, implement four methods; `LocalExecutor` is the worked example::

    executor.start()                      # -> the codec every worker will use
    executor.submit(batch)                # at most `window` batches at once
    executor.next_result()                # -> BatchResult of any submitted batch, or None: ask again
    executor.close()

Failures of the application travel as values (`GopFailure`); an exception out of `next_result` means that the
infrastructure is gone. Knows nothing of Ray, torch or archives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from s2vc_ray.staging import StagedGop, staging_key
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
    """One GOP to code; ``staging`` is the key prefix under which its payload is staged."""

    spec: GopSpec
    staging: str

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


class Executor(Protocol):
    """Where batches run."""

    @property
    def window(self) -> int:
        """How many batches may be under way at once; may grow as workers come up."""
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

    def next_result(self) -> BatchResult | None:
        """Wait for any submitted batch; None when only the window has changed."""
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

    def start(self) -> CodecIdentity:
        """Load the codec here."""
        self._worker = self._make_worker()
        return self._worker.identity()

    def submit(self, batch: GopBatch) -> None:
        """Queue ``batch`` for the next `next_result`."""
        self._submitted.append(batch)

    def next_result(self) -> BatchResult:
        """Code the oldest submitted batch now."""
        if self._worker is None:
            raise RuntimeError("start() comes first")
        return self._worker.encode(self._submitted.popleft())

    def close(self) -> None:
        """Drop the worker and its codec."""
        self._worker = None


def execute(executor: Executor, batches: Iterable[GopBatch], *, attempts: int) -> Iterator[GopOutcome]:
    """Run ``batches`` through a started executor, yielding each GOP's one final outcome as it comes.

    ``batches`` is read only as fast as the window empties. A failed GOP is tried again alone, so that a
    poisonous one cannot take its neighbours down twice, and is given up after ``attempts`` tries in all.
    """
    fresh = iter(batches)
    again: deque[GopBatch] = deque()
    under_way = 0
    while True:
        while (
            under_way < executor.window
            and (batch := again.popleft() if again else next(fresh, None)) is not None
        ):
            executor.submit(batch)
            under_way += 1
        if not under_way:
            return
        result = executor.next_result()
        if result is None:
            continue
        under_way -= 1
        for outcome in result.outcomes:
            if isinstance(outcome, GopFailure) and result.batch.attempt < attempts:
                again.append(GopBatch((outcome.task,), result.batch.attempt + 1))
            else:
                yield outcome
