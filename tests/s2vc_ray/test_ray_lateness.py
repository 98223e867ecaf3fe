"""When a batch is late."""

from __future__ import annotations

from s2vc_ray.ray_lateness import Lateness
from s2vc_ray.ray_pool import Pace

PACE = Pace(linger=100, hopeless=1000)


def test_before_anything_is_known_there_is_help_but_patience() -> None:
    lateness = Lateness(PACE)
    assert (lateness.late(10**9), lateness.hopeless(10**9)) == (100, 24_000)


def test_a_large_batch_may_take_longer() -> None:
    lateness = Lateness(PACE)
    for seconds in (9.0, 10.0, 500.0):
        lateness.ended(seconds, 100)
    assert (lateness.late(100), lateness.hopeless(100)) == (100, 1000)
    assert (lateness.late(10_000), lateness.hopeless(10_000)) == (4_000, 40_000)


def test_only_the_latest_count() -> None:
    lateness = Lateness(PACE)
    for seconds in [1000.0] * 200 + [10.0] * 99:
        lateness.ended(seconds, 100)
    assert lateness.late(10_000) == 4_000
