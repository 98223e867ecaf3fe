"""What each actor claims and how many there may be, from what a cluster's nodes have. Pure; imports no Ray.

**On GPUs** an actor claims a GPU, or ``1/actors_per_gpu`` of one: Ray never splits a claim of at most one over
several GPUs, so no actor spans them. Of CPU cores it claims its share of the poorest GPU node's, at most eight:
one core feeds the GPU (launching kernels, entropy coding), the others decode the sources of the batches to come.
Eight cores decode some 800 frames of 1080p H.264 a second, which is more than a GPU codes. With fewer cores than
actors the claims are fractions, so that every GPU gets its actor.

**On CPUs** an actor claims two cores, or ``threads``, and codes one batch on each. It reads one more meanwhile, which
keeps the cores coding 98 % of the time instead of 93 (QCIF, local disk; the less the larger the pictures).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError
from s2vc_ray.targets import Floor

_CPU_CORES = 2
"""Cores of a worker without a GPU: they share one copy of the model and of everything imported."""
_GPU_CORES = 8
"""Most cores beside a GPU."""
_UNSEEN_CORES = 2
"""Cores claimed beside a GPU of a node that is yet to join: what even small GPU machines have to spare."""


@dataclass(frozen=True, slots=True)
class Room:
    """What one node has, used or not."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """One job's actors.

    Attributes:
        gpus, cpus: what each claims.
        lanes: batches of an actor that may be in the codec at once.
        batches: batches it holds at once: one for each lane and one whose source is read or which is staged; on a
            GPU where payloads are measured one more, which is measured beside the coding, and where GOPs may fall
            back as many more as it takes to give each of ``threads`` one of theirs.
        threads: threads that decode one batch's source, and for what of torch runs on a CPU; on a GPU also GOPs that
            are coded with the fallback codec at once.
        first: how many are started at once; low, high: how many there are kept and may be. No ``high``: as many
            as the cluster has room for, now or later.
        spread: put them on as many nodes as possible, not as few.
    """

    gpus: float
    cpus: float
    lanes: int
    batches: int
    threads: int
    first: int
    low: int
    high: int | None = None
    spread: bool = True

    def capacity(self, nodes: Sequence[Room]) -> int:
        """How many of these actors the nodes could hold if nothing else ran there."""
        return sum(self._fit(node) for node in nodes)

    def _fit(self, node: Room) -> int:
        by_cpu = math.floor(node.cpus / self.cpus + 1e-6)
        if not self.gpus:
            return by_cpu
        return min(by_cpu, math.floor(node.gpus) * round(1 / self.gpus))


def place(config: JobConfig, nodes: Sequence[Room]) -> Placement:
    """Actors for a cluster of such nodes.

    Raises:
        ConfigError: CUDA was asked for and the cluster has no GPU (give ``workers`` for one that scales up).
    """
    gpus = sum(node.gpus for node in nodes)
    if config.device == "cuda" and not gpus and not config.workers and not config.workers_max:
        raise ConfigError(
            "device 'cuda': the Ray cluster has no GPU; use device 'cpu', or --workers to wait for GPUs"
        )
    on_gpu = config.device == "cuda" or (config.device == "auto" and gpus > 0)
    claims = _on_gpu(config, nodes) if on_gpu else _on_cpu(config, nodes)
    placement = Placement(*claims, first=1, low=1, spread=config.placement == "spread")
    room = max(1, placement.capacity(nodes))
    low, high = config.workers, config.workers_max
    if not low and not high:
        return replace(placement, first=room)
    low = max(1, low)
    return replace(placement, first=low, low=low, high=high or low)


def _on_gpu(config: JobConfig, nodes: Sequence[Room]) -> tuple[float, float, int, int, int]:
    share = config.actors_per_gpu
    cores = [node.cpus / (node.gpus * share) for node in nodes if node.gpus]
    cpus = config.threads or _claim(min(cores, default=float(_UNSEEN_CORES)))
    threads = max(1, int(cpus) - 1)
    batches = 3 if config.metrics.enabled else 2
    if _may_fall_back(config):
        batches += math.ceil(threads / config.batch_on("cuda"))
    return 1 / share, cpus, 1, batches, threads


def _may_fall_back(config: JobConfig) -> bool:
    wanted = config.policy is not None and any(rule.codec for rule in config.policy.rules)
    return wanted or (isinstance(config.target, Floor) and config.fallback != "none")


def _claim(share: float) -> float:
    """Whole cores where there are any."""
    return (
        float(min(_GPU_CORES, math.floor(share))) if share >= 1 else max(0.01, math.floor(100 * share) / 100)
    )


def _on_cpu(config: JobConfig, nodes: Sequence[Room]) -> tuple[float, float, int, int, int]:
    largest = max(1, int(max((node.cpus for node in nodes), default=1)))
    share = max(1, int(sum(node.cpus for node in nodes)) // max(config.workers, 1))
    lanes = min(config.threads or min(_CPU_CORES, share), largest)
    return 0.0, float(lanes), lanes, lanes + 1, 1
