"""No encoder changes how this process is scheduled."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jobs.bench_anchors import ANCHORS, FfmpegAnchor
from s2vc_ray.fallback import encode_av1
from s2vc_ray.fallback_cores import FallbackCores
from s2vc_ray.priority import ordinary_priority
from tests.media import make_clip, pictures

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getscheduler") or os.geteuid() != 0, reason="only root's priorities are raised"
)


def _real_time_threads() -> int:
    policies = [os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")]
    return sum(policy in (os.SCHED_FIFO, os.SCHED_RR) for policy in policies)


def _in_a_thread(work: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
            assert _real_time_threads() == 0
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def test_a_gop_in_av1_leaves_priorities_alone() -> None:
    frames = pictures(3, 64, 48)
    encode_av1(frames, 40)
    assert _real_time_threads() == 0
    _in_a_thread(lambda: encode_av1(frames, 40))


def test_gops_in_av1_side_by_side_leave_priorities_alone() -> None:
    frames = pictures(3, 64, 48)
    cores = FallbackCores(2)
    for _ in range(5):
        cores.code([(frames, 40)] * 4)
        assert _real_time_threads() == 0


def test_a_file_in_av1_leaves_priorities_alone(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", codec="libsvtav1", frames=3)
    assert _real_time_threads() == 0


def test_an_anchor_in_av1_leaves_priorities_alone() -> None:
    (anchor,) = (
        one for one in ANCHORS.values() if isinstance(one, FfmpegAnchor) and one.encoder == "libsvtav1"
    )
    anchor.code(np.ascontiguousarray(pictures(3, 64, 48)), Fraction(25), 40, None)
    assert _real_time_threads() == 0


def test_what_became_real_time_inside_is_put_back() -> None:
    with ordinary_priority():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_real_time_caller_stays_one() -> None:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        with ordinary_priority():
            pass
        assert os.sched_getscheduler(0) == os.SCHED_RR
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
