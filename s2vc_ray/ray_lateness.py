"""When a batch is late, from how long batches take: time to help, and time to give up. Pure; imports no Ray."""

from __future__ import annotations

import statistics
from collections import deque

from s2vc_ray.ray_pool import Pace

_LATEST = 99


class Lateness:
    """Knows the pace of a job's latest batches, by their pixels."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._rates: deque[float] = deque(maxlen=_LATEST)

    def ended(self, seconds: float, pixels: int) -> None:
        """A batch took so long."""
        self._rates.append(seconds / max(1, pixels))

    def late(self, pixels: int) -> float:
        """Seconds after which a batch is given to somebody else as well."""
        return max(self._pace.linger, 4 * (self._usual(pixels) or 0.0))

    def hopeless(self, pixels: int) -> float:
        """Seconds after which its worker hangs. Before any batch has ended nobody knows what is usual."""
        usual = self._usual(pixels)
        return 24 * self._pace.hopeless if usual is None else max(self._pace.hopeless, 40 * usual)

    def _usual(self, pixels: int) -> float | None:
        return statistics.median(self._rates) * pixels if self._rates else None
