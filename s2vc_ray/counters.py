"""What this process has counted: a name, a few labels, a number that only grows.

Whoever meets something worth counting calls `count`; whoever shows it (Prometheus, the final summary) calls
`snapshot`. Names and labels follow Prometheus' rules, so a sample exports as it is. Counts are of one
process: a driver adds up what its workers send with `merge`. Knows nobody who counts or shows.

    count("s3_retries", reason="SlowDown")
    [Sample(name="s3_retries", labels=(("reason", "SlowDown"),), value=1)] == snapshot()
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_Key = tuple[str, tuple[tuple[str, str], ...]]

_lock = threading.Lock()
_counts: Counter[_Key] = Counter()


@dataclass(frozen=True, slots=True)
class Sample:
    """One counter as it stands: its name, its labels in order of their names, and its value, at least 1."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: int


def count(name: str, amount: int = 1, /, **labels: str) -> None:
    """Add ``amount`` to the counter of that name and those labels.

    Raises:
        ValueError: ``name`` is not lower-case letters, digits and underscores, or ``amount`` is negative.
    """
    if not _NAME.fullmatch(name) or amount < 0:
        raise ValueError(f"cannot count {amount} of {name!r}")
    if amount:
        with _lock:
            _counts[name, tuple(sorted(labels.items()))] += amount


def snapshot() -> list[Sample]:
    """Everything counted so far in this process, in order of name and labels."""
    with _lock:
        held = sorted(_counts.items())
    return [Sample(name, labels, value) for (name, labels), value in held]


def total(name: str) -> int:
    """The sum of all counters of that name, whatever their labels."""
    with _lock:
        return sum(value for (held, _), value in _counts.items() if held == name)


class Increments:
    """What this process has counted since it was last asked: for another process to `merge`. Thread-safe."""

    def __init__(self) -> None:
        self._taking = threading.Lock()
        self._taken: dict[_Key, int] = {}

    def take(self) -> tuple[Sample, ...]:
        """Each counter that grew, with the amount by which it did."""
        with self._taking:
            fresh = []
            for sample in snapshot():
                key = (sample.name, sample.labels)
                more = sample.value - self._taken.get(key, 0)
                if more:
                    fresh.append(Sample(sample.name, sample.labels, more))
                self._taken[key] = sample.value
            return tuple(fresh)


def merge(samples: Iterable[Sample]) -> None:
    """Add what another process counted; give it each process's snapshot once."""
    for sample in samples:
        count(sample.name, sample.value, **dict(sample.labels))
