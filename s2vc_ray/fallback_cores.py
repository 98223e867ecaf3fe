"""The CPU cores beside a GPU on which GOPs are coded with the fallback codec while the GPU codes others.

Owns how many are coded at once: as many as there are cores, and as their memory allows. Knows neither goals nor lanes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.fallback import encode_av1

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frames = npt.NDArray[np.uint8]

_MEMORY = 8 << 30
"""Bytes that encoders may take together: eight at 1080p, two at 2160p; one is always allowed."""
_FIXED, _PER_PIXEL = 64 << 20, 450
"""Bytes that one encoder takes of itself, and for each pixel of a picture; measured with GOPs of 32 to 192 frames."""


class FallbackCores:
    """Codes GOPs side by side. Safe to call from several threads, who share the cores.

    Args:
        cores: encoders at once, each with one thread that computes.
        memory: bytes that they may take together.
    """

    def __init__(self, cores: int, memory: int = _MEMORY) -> None:
        self._pool = ThreadPoolExecutor(cores, "fallback")
        self._memory = memory
        self._taken = 0
        self._next = threading.Lock()
        self._given_back = threading.Condition()

    def code(self, wishes: Sequence[tuple[Frames, int]]) -> list[tuple[Av1Gop, float]]:
        """GOPs, (T, H, W, 3) uint8 RGB, at their CRF: what became of each, and the seconds that it took.

        Raises:
            ModelError: one could not be coded; the others' results are lost.
        """
        return list(self._pool.map(lambda wish: self._one(*wish), wishes))

    def _one(self, frames: Frames, crf: int) -> tuple[Av1Gop, float]:
        with self._room(_FIXED + _PER_PIXEL * frames.shape[1] * frames.shape[2]):
            return timed_av1(frames, crf)

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        # Whoever waits is passed by nobody, so large pictures get their turn among small ones.
        with self._next, self._given_back:
            self._given_back.wait_for(lambda: not self._taken or self._taken + size <= self._memory)
            self._taken += size
        try:
            yield
        finally:
            with self._given_back:
                self._taken -= size
                self._given_back.notify_all()


def timed_av1(frames: Frames, crf: int) -> tuple[Av1Gop, float]:
    """See `encode_av1`; with the seconds that it took."""
    begun = time.perf_counter()
    return encode_av1(frames, crf), time.perf_counter() - begun
