"""Where planning and committing run: the `TaskPool` seam. Both read whole sources, and neither needs the codec.

With Ray they are tasks in processes of their own, spread over the nodes, because no single machine could read the
sources of many GPUs, and because FFmpeg may crash on what it reads. With the local executor they are threads of the
driver. `concurrent.futures.Future` is what both give back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

THREADS = 16


class TaskPool(Protocol):
    """Runs functions somewhere."""

    @property
    def width(self) -> int:
        """How many run at once; may grow."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function``; what it raises is raised by the future's ``result``.

        So is `TaskDied`, when it ended its process every time it was tried.
        """
        ...

    def close(self) -> None:
        """Finish what runs and drop what waits."""
        ...


class ThreadTasks:
    """Threads of this process."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, "s2vc-task")
        self.width = threads

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function`` in a thread."""
        return self._pool.submit(function, *arguments)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown(cancel_futures=True)
