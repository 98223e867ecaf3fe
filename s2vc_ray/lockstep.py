"""How many GOPs go through the codec together, learnt from what its memory bears.

When memory runs out, the batch is cut in half, and what fitted is remembered for its frame size. Only when a
single GOP does not fit, with nothing else on the device, does the error reach the caller.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from s2vc_ray.counters import count
from s2vc_ray.device_faults import free_memory, is_out_of_memory

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Key = tuple[str, int, int]

_log = logging.getLogger(__name__)


class Lockstep:
    """The largest batches that have fitted, by what is done and the frame size. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fits: dict[_Key, int] = {}

    @property
    def tight(self) -> bool:
        """Whether memory has ever run out here."""
        return bool(self._fits)

    def run(
        self,
        key: _Key,
        items: Sequence[_In],
        function: Callable[[Sequence[_In]], list[_Out]],
        alone: AbstractContextManager[object] | None = None,
        most: int | None = None,
    ) -> list[_Out]:
        """``function`` of ``items``, in as many parts as memory needs; one result for each item, in order.

        Args:
            key: what is done, frame height and width.
            most: as many as memory should bear, as reckoned beforehand; None: all.
            alone: entered before a single item is tried once more: nobody else uses the device inside.

        Raises:
            Exception: what ``function`` raises, memory errors only for a single item.
        """
        done: list[_Out] = []
        most = min(most or len(items), len(items))
        while len(done) < len(items):
            part = items[len(done) : len(done) + min(most, self._fits.get(key, most))]
            found = _attempt(function, part)
            if found is None:
                self._shrink(key, len(part) // 2 or 1)
                free_memory()
                if len(part) == 1:
                    with alone or nullcontext():
                        found = function(part)
            done += found or []
        return done

    def _shrink(self, key: _Key, size: int) -> None:
        count("memory_shortages", stage=key[0])
        with self._lock:
            size = self._fits[key] = min(size, self._fits.get(key, size))
        _log.warning(
            "out of memory: %s of %dx%d frames now takes %d GOPs at once", key[0], key[2], key[1], size
        )


def _attempt(function: Callable[[Sequence[_In]], list[_Out]], part: Sequence[_In]) -> list[_Out] | None:
    """None when memory did not suffice. The error and what its frames hold are gone on return."""
    try:
        return function(part)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
