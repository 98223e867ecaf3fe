"""Giving memory back to the system between calls.

glibc keeps what large activations have freed for the next ones. Between an encode, a decode and a measurement, whose
buffers have other sizes, that adds up to hundreds of megabytes at 720p that nobody uses.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Callable


def _trimmer() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(ctypes.util.find_library("c")), "malloc_trim", None)
    return trim if callable(trim) else None


_trim = _trimmer()


def give_back() -> None:
    """Return free heap pages to the system, where the C library can; tens of milliseconds at most."""
    if _trim is not None:
        _trim(0)
