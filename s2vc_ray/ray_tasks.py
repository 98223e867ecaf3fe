"""Planning and committing as Ray tasks, spread over a cluster's nodes. See `s2vc_ray.tasks`.

They ask for no CPU of Ray's count: actors may hold all of them for good, and these tasks mostly wait for storage.
What bounds them is `width`. A task whose node is lost runs again elsewhere: both kinds are idempotent.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any

import ray

_PER_NODE = 4


@cache
def _task(function: Callable[..., Any]) -> Any:
    """Ray sends a function's code once for each time it is made remote."""
    return ray.remote(num_cpus=0, max_retries=-1, scheduling_strategy="SPREAD")(function)


class RayTasks:
    """Tasks on the cluster that this process has joined."""

    @property
    def width(self) -> int:
        """Four for each node alive."""
        alive: int = sum(node["Alive"] for node in ray.nodes())
        return _PER_NODE * max(1, alive)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function`` on some node."""
        future: Future[Any] = _task(function).remote(*arguments).future()
        return future

    def close(self) -> None:
        """Nothing: tasks end by themselves or with the job."""
