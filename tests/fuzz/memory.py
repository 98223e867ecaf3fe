"""How much memory a step took: of Python by its own books, of the process by the kernel's."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Bytes above what was held before; ``bytes`` is known once the block has ended."""

    bytes: int = 0


@contextmanager
def python_peak() -> Iterator[Peak]:
    """Most that Python's own allocators held at once within the block, numpy's arrays included."""
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@contextmanager
def resident_peak() -> Iterator[Peak]:
    """Most memory that was resident within the block, whoever took it. Linux only: 0 elsewhere."""
    peak = Peak()
    before = _kernel("VmRSS")
    if before:
        _RESET.write_text("5")
    try:
        yield peak
    finally:
        peak.bytes = max(0, _kernel("VmHWM") - before)


def forbid_more_than(extra: int) -> None:
    """Let every allocation fail that takes this process more than ``extra`` bytes beyond its present address space."""
    size = _kernel("VmSize")
    if size:
        resource.setrlimit(resource.RLIMIT_AS, (size + extra, size + extra))


def _kernel(name: str) -> int:
    if not _STATUS.exists():
        return 0
    line = next(one for one in _STATUS.read_text().splitlines() if one.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])
