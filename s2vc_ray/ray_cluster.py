"""The Ray cluster as a job sees it: joining it, what its nodes have, and which of them are about to go."""

from __future__ import annotations

import logging
import os
import time

import ray
from ray._private.state import state as global_state
from ray.exceptions import RayError

from s2vc_ray.errors import ConfigError, S2vcError
from s2vc_ray.ray_placement import Room

_OBJECT_STORE_BYTES = 128 << 20


def connect(address: str | None) -> bool:
    """Join the cluster at ``address``, or the one this process was submitted to, or start one here (True).

    Raises:
        ConfigError: there is no cluster at the address.
    """
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


class Cluster:
    """What the cluster was at the last look.

    Attributes:
        nodes: what each node has that is alive.
        draining: ids of nodes that will be gone soon, because a spot machine was given notice or the autoscaler
            wants it back.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._looked = float("-inf")
        self.nodes: list[Room] = []
        self.draining: frozenset[str] = frozenset()
        self.look()

    def __str__(self) -> str:
        cpus, gpus = sum(n.cpus for n in self.nodes), sum(n.gpus for n in self.nodes)
        return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(self.nodes)} nodes"

    def look(self) -> bool:
        """Look again if the last time was ``every`` seconds ago.

        Raises:
            S2vcError: the cluster cannot be reached.
        """
        now = time.monotonic()
        if now - self._looked < self._every:
            return False
        self._looked = now
        try:
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            # Not public, but what Ray's own libraries ask; ray.nodes() does not tell.
            draining = global_state.get_draining_nodes()
        except (RayError, ConnectionError, RuntimeError) as error:
            raise S2vcError(
                f"the Ray cluster cannot be reached any more ({error}); run the job again to resume"
            ) from error
        self.nodes = [Room(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive]
        self.draining = frozenset(draining)
        return True
