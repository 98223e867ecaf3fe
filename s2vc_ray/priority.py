"""The scheduling policy of this process, kept while an encoder is opened.

Run as root, SVT-AV1 makes the thread that opens it, and so its own threads and every child process started later,
real-time ones of the highest priority (SCHED_FIFO 99). Whatever computes in them then starves the whole machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Give threads of this process that became real-time ones inside the block their caller's former policy back.

    A caller that is a real-time thread itself, and systems other than Linux, are left as they are.
    """
    if not os.path.isdir("/proc/self/task"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if not _real_time(policy):
            for thread in map(int, os.listdir("/proc/self/task")):
                # A thread may have ended meanwhile.
                with suppress(ProcessLookupError):
                    if _real_time(os.sched_getscheduler(thread)):
                        os.sched_setscheduler(thread, policy, parameters)


def _real_time(policy: int) -> bool:
    return policy in (os.SCHED_FIFO, os.SCHED_RR)
