"""A seed becomes faults: what breaks, at which progress of the job, and for how long. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = {
    "actor": "kill -9 of an encoder actor's process",
    "task": "kill -9 of a process that plans or commits a video",
    "node": "kill -9 of a raylet with all its processes; another node joins later",
    "drain": "SIGTERM to a raylet, as a spot instance's notice; another node joins later",
    "join": "a node more, which leaves by kill -9 later",
    "driver": "kill -9 of a driver; the same command is started again",
    "twin": "a second driver runs the same command at the same time",
    "store": "kill -9 of the S3 server; started again on the same data",
    "slow": "SIGSTOP of an encoder actor; SIGCONT later",
}
REQUIRED = ("actor", "node", "driver", "store")
"""Every run has one of these at least."""

_LATEST = 0.7
"""No fault is due later than at this share of the GOPs, so that all of them hit a job under way."""
_DOWN = {
    "actor": 0.0,
    "task": 0.0,
    "node": 4.0,
    "drain": 4.0,
    "join": 15.0,
    "driver": 1.5,
    "twin": 0.0,
    "store": 6.0,
    "slow": 12.0,
}
"""Mean seconds until what broke is mended."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks.

    Attributes:
        kind: one of `KINDS`.
        progress: share of all GOPs staged or published, 0..1, at which it is due.
        delay: seconds after that; at progress 0 this falls into the start of the workers.
        down: seconds until it is mended, where mending is the harness's part.
        pick: which of the candidates is hit, as a fraction of their number.
    """

    kind: str
    progress: float
    delay: float
    down: float
    pick: float

    def __str__(self) -> str:
        return self.kind if not self.down else f"{self.kind} for {self.down:.1f} s"


def draw(seed: int, *, extra: int = 2, required: tuple[str, ...] = REQUIRED) -> tuple[Fault, ...]:
    """The faults of the run with this ``seed``: each of ``required`` and ``extra`` others, by progress."""
    rng = random.Random(seed)
    kinds = [*required, *rng.choices(list(KINDS), k=extra)]
    rng.shuffle(kinds)
    return tuple(sorted((_fault(kind, rng) for kind in kinds), key=lambda fault: fault.progress))


def _fault(kind: str, rng: random.Random) -> Fault:
    # Below 0 stands for the start, which so gets its share of faults.
    progress = max(0.0, rng.uniform(-0.1, _LATEST))
    delay = rng.uniform(0.0, 2.0 if progress else 10.0)
    return Fault(kind, progress, delay, _DOWN[kind] * rng.uniform(0.5, 1.5), rng.random())
