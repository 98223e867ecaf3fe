"""A Ray cluster of several raylets on this machine, each with a GPU that only it believes in.

The driver's node, the head, has no resources and is never hurt; every other node has an address of its own
on the loopback network, so that a driver joins the head's and outlives theirs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

_ENCODER = "Encoder"
"""Ray titles an actor's process with the name of its class, a task's with that of its function."""
_RAYS_OWN = ("IDLE", "DashboardAgent", "RuntimeEnvAgent")
_STORE_BYTES = 80 << 20
_STARTS = 4
"""Ray waits 30 seconds for a raylet, which is not enough on a machine with ten times more to do than cores."""
_FASTER = {
    # A dead raylet refuses connections at once: five refusals are five seconds, a slow answer is no refusal.
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
    "health_check_timeout_ms": 10_000,
    # Each node stands for a machine of its own, where workers have nobody to be polite to.
    "worker_niceness": 0,
}


class SimulatedCluster:
    """A head and ``workers`` nodes of one CPU and one GPU each. Environment variables reach the actors."""

    def __init__(self, scratch: Path, environment: dict[str, str], workers: int = 3) -> None:
        # Ray writes the address of the newest cluster under its temporary folder, for any `ray.init()` to find.
        os.environ.update({"RAY_TMPDIR": str(scratch), "RAY_USAGE_STATS_ENABLED": "0", **environment})
        from ray.cluster_utils import Cluster

        self._numbers = itertools.count(2)
        self._cluster = Cluster()
        self._add(
            num_cpus=0,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _system_config=_FASTER,
        )
        self._nodes: list[Any] = []
        for _ in range(workers):
            self.join()

    @property
    def address(self) -> str:
        """What ``--ray-address`` takes."""
        return str(self._cluster.address)

    @property
    def nodes(self) -> tuple[Any, ...]:
        """The nodes that actors may be on."""
        return tuple(self._nodes)

    def join(self) -> Any:
        """Add a node."""
        address = f"127.0.0.{next(self._numbers)}"
        node = self._add(num_cpus=1, num_gpus=1, node_ip_address=address, object_store_memory=_STORE_BYTES)
        self._nodes.append(node)
        return node

    def _add(self, **options: Any) -> Any:
        for _ in range(_STARTS - 1):
            try:
                return self._cluster.add_node(**options)
            except Exception as error:  # Ray raises nothing more special
                print(f"a node did not come up: {error}", file=sys.stderr)
        return self._cluster.add_node(**options)

    def crash(self, node: Any) -> None:
        """Kill everything on ``node`` at once, as when its power fails."""
        raylet = _raylet(node)
        victims = [raylet, *raylet.children(recursive=True)] if raylet else []
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._forget(node)

    def drain(self, node: Any) -> None:
        """SIGTERM to the raylet, which then ends by itself."""
        raylet = _raylet(node)
        if raylet:
            raylet.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                raylet.wait(10)
        self._forget(node)

    def encoders(self) -> list[psutil.Process]:
        """Processes of encoder actors on any node."""
        return [process for title, process in self._workers() if title.startswith(_ENCODER)]

    def tasks(self) -> list[psutil.Process]:
        """Processes of any node that run something else of the job's, such as a commit."""
        return [process for title, process in self._workers() if not title.startswith((_ENCODER, *_RAYS_OWN))]

    def _workers(self) -> list[tuple[str, psutil.Process]]:
        return [found for node in self._nodes for found in _workers_on(node)]

    def close(self) -> None:
        """End all of it."""
        for process in self.encoders():
            _continue(process)
        for node in list(self._nodes):
            self.crash(node)
        self._cluster.shutdown()

    def _forget(self, node: Any) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
            self._cluster.remove_node(node, allow_graceful=False)


def stop(process: psutil.Process) -> None:
    """SIGSTOP."""
    process.send_signal(signal.SIGSTOP)


def _continue(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)


resume = _continue


def _raylet(node: Any) -> psutil.Process | None:
    started = node.all_processes.get("raylet") or []
    with contextlib.suppress(psutil.NoSuchProcess):
        if started:
            return psutil.Process(started[0].process.pid)
    return None


def _workers_on(node: Any) -> Iterator[tuple[str, psutil.Process]]:
    """Titles, as Ray sets them, and processes of a node's workers."""
    raylet = _raylet(node)
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in raylet.children(recursive=True) if raylet else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline()).strip()
                if title.startswith("ray::"):
                    yield title.removeprefix("ray::"), process
