"""Planning and committing as Ray tasks, spread over the nodes there are. See `s2vc_ray.tasks`.

They ask for no CPU of Ray's count: actors may hold all of them for good, and these tasks mostly wait for storage.
What bounds them is `RayTasks.width`. Each runs in a process that is not the driver's, because both hand a stranger's
bytes to FFmpeg: what crashes that costs its own video, not the job. A task that was lost with its node runs again
elsewhere, without limit; one whose process died runs `_LIVES` times in all. Both kinds of task are idempotent.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from s2vc_ray.counters import Increments, Sample, count, merge
from s2vc_ray.errors import TaskDied
from s2vc_ray.ray_faults import diagnose

_PER_NODE = 4
_LIVES = 3
"""How often a task's process dies before it is the task's fault: one death may be a machine's that goes down."""
_LONGEST_PAUSE = 30.0

_log = logging.getLogger(__name__)
_increments = Increments()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, tuple[Sample, ...]]:
    """What ``function`` returns, and what its process has counted since it was last heard of."""
    return function(*arguments), _increments.take()


_task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy="SPREAD")(_call)


@dataclass(slots=True)
class _Work:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any]
    pause: float
    deaths: int = 0


class RayTasks:
    """Tasks on the cluster that this process has joined, or on its own.

    Args:
        pause: seconds before a lost task runs again; doubled each time up to half a minute, and shortened by
            chance so that many do not come back at once.
    """

    def __init__(self, pause: float = 0.5) -> None:
        self._pause = pause
        self._closed = False

    @property
    def width(self) -> int:
        """Four for each node alive."""
        alive: int = sum(node["Alive"] for node in ray.nodes())
        return _PER_NODE * max(1, alive)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function`` in another process, on some node. `TaskDied` when it ends that process again and again."""
        work = _Work(function, arguments, Future(), self._pause)
        self._start(work)
        return work.future

    def close(self) -> None:
        """Starts nothing again; what runs ends by itself or with the job."""
        self._closed = True

    def _start(self, work: _Work) -> None:
        if self._closed:
            work.future.cancel()
            return
        try:
            answer = _task.options(name=work.function.__name__).remote(work.function, work.arguments)
        except Exception as error:  # the future is where the caller looks
            work.future.set_exception(error)
        else:
            answer.future().add_done_callback(lambda future: self._ended(work, future))

    def _ended(self, work: _Work, answer: Future[Any]) -> None:
        error = answer.exception()
        if error is None:
            result, counts = answer.result()
            merge(counts)
            work.future.set_result(result)
        elif isinstance(error, RayTaskError) or not isinstance(error, RayError):
            work.future.set_exception(error)
        else:
            self._lost(work, error)

    def _lost(self, work: _Work, error: RayError) -> None:
        name, fault = work.function.__name__, diagnose(error)
        count("task_faults", reason=fault.reason)
        work.deaths += isinstance(error, WorkerCrashedError | OutOfMemoryError)
        if work.deaths >= _LIVES:
            text = f"the process that ran {name} died {work.deaths} times: {fault.text}"
            work.future.set_exception(TaskDied(text))
            return
        _log.warning("%s was lost (%s) and runs again: %s", name, fault.reason, fault.text)
        again = threading.Timer(work.pause * random.uniform(0.5, 1), self._start, (work,))  # noqa: S311
        again.daemon = True
        again.start()
        work.pause = min(2 * work.pause, _LONGEST_PAUSE)
