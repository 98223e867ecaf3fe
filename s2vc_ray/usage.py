"""How a worker spends its time: is the codec busy, and if not, what does it wait for? Pure clockwork.

A worker has lanes: how many batches may be in the codec at once (one on a GPU, one for each core on a CPU).
It is busy while a lane encodes, or decodes again to verify and measure; the rest of ``lanes × time`` is idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of one worker, or of several added up.

    Attributes:
        lane_seconds: lanes × time since the codec was loaded.
        busy_seconds: of these, those in which a lane was occupied.
        encode_seconds: encoding, per batch: two at once count twice, as in all that follow.
        measure_seconds: decoding payloads again and measuring them.
        source_seconds: opening, reading and decoding sources.
        stage_seconds: writing staged GOPs, and looking for those staged already.
        wait_seconds: batches that were read and waited for a lane.
        fallback_seconds: coding with the fallback codec; on a GPU in no lane.
    """

    lane_seconds: float = 0.0
    busy_seconds: float = 0.0
    encode_seconds: float = 0.0
    measure_seconds: float = 0.0
    source_seconds: float = 0.0
    stage_seconds: float = 0.0
    wait_seconds: float = 0.0
    fallback_seconds: float = 0.0

    @property
    def busy(self) -> float:
        """Share of its time in which the codec was busy, 0..1."""
        return self.busy_seconds / self.lane_seconds if self.lane_seconds else 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Meter:
    """Measures one worker. Threads share it; time spent outside its blocks is nobody's.

    Args:
        lanes: batches that may be in the codec at once.
        clock: monotonic seconds.
    """

    def __init__(self, lanes: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._lanes = lanes
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._at = 0.0
        self._inside = 0
        self._busy = 0.0
        self._spent: dict[str, float] = {}

    def begin(self) -> None:
        """The worker is ready to code; later calls change nothing."""
        with self._lock:
            if self._began is None:
                self._began = self._at = self._clock()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Count the block as ``source``, ``stage``, ``wait`` or ``fallback``, in no lane."""
        begun = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._spent[what] = self._spent.get(what, 0.0) + self._clock() - begun

    @contextmanager
    def coding(self, what: str) -> Iterator[None]:
        """Count the block as ``encode``, ``measure`` or ``fallback``, and a lane as occupied."""
        self._step(1)
        try:
            with self.doing(what):
                yield
        finally:
            self._step(-1)

    def usage(self) -> Usage:
        """Everything so far, blocks that are still open included in ``busy_seconds``."""
        self._step(0)
        with self._lock:
            whole = self._lanes * (self._at - self._began) if self._began is not None else 0.0
            kinds = ("encode", "measure", "source", "stage", "wait", "fallback")
            return Usage(whole, self._busy, *(self._spent.get(kind, 0.0) for kind in kinds))

    def _step(self, change: int) -> None:
        with self._lock:
            now = self._clock()
            if self._began is not None:
                # More than the lanes: on a GPU one batch is measured beside the one that is encoded.
                self._busy += min(self._inside, self._lanes) * (now - self._at)
                self._at = now
            self._inside += change
