"""Which batch goes to which worker, and when. Pure; imports no Ray.

A batch goes to the worker with the least to do. A suspect, which was under way in a process that died, is given a
worker of its own: the one with the least to do gets nothing more until it is free, and nothing else until the
suspect has left it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from s2vc_ray.executor import GopBatch
from s2vc_ray.ray_pool import Member


@dataclass(slots=True, eq=False)
class Job:
    """One submitted batch, until its result is there.

    Attributes:
        suspect: it was under way in a process that died. ``deaths``: processes in which it died alone.
        tries: how often it was sent again.
        flights: on how many workers it is now: with a copy, two.
        place: the worker that is kept for it.
        done_at: when its result came, by the clock of whoever asks.
    """

    batch: GopBatch
    suspect: bool = False
    deaths: int = 0
    tries: int = 0
    flights: int = 0
    copied: bool = False
    place: Member | None = None
    done_at: float | None = None

    @property
    def pixels(self) -> int:
        """What it costs, roughly."""
        return sum(t.spec.frames * t.spec.width * t.spec.height for t in self.batch.tasks)

    def leave(self, member: Member) -> None:
        """It is on ``member`` no more."""
        if self.place is member:
            self.place.reserved = False
            self.place = None


class JobQueue:
    """Jobs that wait for a worker."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._tie = count()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._suspects) + len(self._later)

    @property
    def next_due(self) -> float | None:
        """When the first of the jobs that are to wait may go."""
        return self._later[0][0] if self._later else None

    def add(self, job: Job, due: float | None = None) -> None:
        """Wait for a worker, but not before ``due``."""
        if due is not None:
            heapq.heappush(self._later, (due, next(self._tie), job))
        elif job.suspect:
            self._suspects.append(job)
        else:
            self._waiting.append(job)

    def assign(self, members: Sequence[Member], slots: int, now: float) -> Iterator[tuple[Job, Member]]:
        """Jobs and the workers they go to; the caller adds each to its worker's ``work`` before the next.

        Args:
            members: workers that may be given work.
            slots: jobs that a worker takes at once.
        """
        while self._later and self._later[0][0] <= now:
            self.add(heapq.heappop(self._later)[2])
        # Suspects never get more than half of the workers, but one at least.
        spare = max(1, len(members) // 2) - sum(member.reserved for member in members)
        for job in list(self._suspects):
            if job.place is None or not job.place.open:
                free = [member for member in members if not member.reserved]
                if spare <= 0 or not free:
                    continue
                job.place = min(free, key=_load)
                job.place.reserved = True
                spare -= 1
            if not job.place.work:
                self._suspects.remove(job)
                yield job, job.place
        while self._waiting:
            free = [m for m in members if m.open and not m.reserved and len(m.work) < slots]
            if not free:
                return
            yield self._waiting.popleft(), min(free, key=_load)


def _load(member: Member) -> int:
    return len(member.work)
