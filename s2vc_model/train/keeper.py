"""When a run's checkpoint is written: every so often, when it is asked to end, and last of all within its budget.

Knows clocks and signals; what is written, and where, the caller says.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from torch import Tensor

SLOWEST_DISK = 20e6
"""Bytes a second that a write is taken to need before one has been seen."""
MARGIN = 2.0
"""How much slower than the slowest write so far the last one may be."""


class Keeper:
    """Writes a run's checkpoint.

    Args:
        write: stores averaged tensors after so many steps; ``complete`` says that the run came to its own end.
            It must replace the file before it whole or not at all.
        every_s: seconds between writes while the run goes on.
        size: about how many bytes a checkpoint has.
    """

    def __init__(
        self, write: Callable[[dict[str, Tensor], int, bool], None], every_s: float, size: int
    ) -> None:
        self.write, self.every_s = write, every_s
        self.reserve_s = MARGIN * size / SLOWEST_DISK
        self._slowest = 0.0
        self._written = 0.0

    def due(self, elapsed: float) -> bool:
        """Whether the last write lies long enough back, ``elapsed`` seconds into the run."""
        return elapsed - self._written >= self.every_s

    def keep(self, tensors: dict[str, Tensor], steps: int, elapsed: float, *, complete: bool) -> None:
        """Write now, and learn from it how much time to leave for the last write."""
        began = time.monotonic()
        self.write(tensors, steps, complete)
        took = time.monotonic() - began
        self._slowest = max(self._slowest, took)
        self.reserve_s = MARGIN * self._slowest
        self._written = elapsed + took


class Ending:
    """Whether somebody asked the run to end early."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for a clean end inside; a second one of a kind ends the process at once."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def ask(number: int, frame: FrameType | None) -> None:
            self.signal = signal.Signals(number)
            signal.signal(number, before[self.signal])

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
