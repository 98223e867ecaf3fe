"""How a worker's time is counted."""

from __future__ import annotations

import pytest

from s2vc_ray.usage import Meter, Usage


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_busy_while_a_lane_is_occupied() -> None:
    clock = Clock()
    meter = Meter(1, clock)
    clock.now = 5
    meter.begin()
    meter.begin()
    with meter.doing("source"):
        clock.now = 7
    with meter.coding("encode"):
        clock.now = 13
    with meter.coding("measure"):
        clock.now = 14
    clock.now = 15
    assert meter.usage() == Usage(10, 7, encode_seconds=6, measure_seconds=1, source_seconds=2)
    assert meter.usage().busy == pytest.approx(0.7)


def test_measuring_beside_the_coding_does_not_count_twice() -> None:
    clock = Clock()
    meter = Meter(1, clock)
    meter.begin()
    with meter.coding("encode"):
        clock.now = 2
        with meter.coding("measure"):
            clock.now = 6
        clock.now = 8
    assert (meter.usage().busy_seconds, meter.usage().busy) == (8, 1.0)


def test_what_is_coded_in_no_lane_makes_none_busy() -> None:
    clock = Clock()
    meter = Meter(1, clock)
    meter.begin()
    with meter.doing("fallback"):
        clock.now = 4
    with meter.coding("fallback"):
        clock.now = 7
    assert meter.usage() == Usage(7, 3, fallback_seconds=7)


def test_each_lane_counts() -> None:
    clock = Clock()
    meter = Meter(2, clock)
    meter.begin()
    with meter.coding("encode"), meter.coding("encode"):
        clock.now = 3
    clock.now = 4
    assert (meter.usage().lane_seconds, meter.usage().busy_seconds) == (8, 6)


def test_open_blocks_count_and_failures_close_them() -> None:
    clock = Clock()
    meter = Meter(1, clock)
    meter.begin()

    def fail() -> None:
        with meter.coding("encode"):
            clock.now += 2
            assert meter.usage().busy_seconds == clock.now
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    clock.now = 4
    assert meter.usage().busy_seconds == 2


def test_usages_add_up() -> None:
    both = Usage(10, 5, 4, 3, 2, 1, 6, 7) + Usage(10, 10)
    assert both == Usage(20, 15, 4, 3, 2, 1, 6, 7)
    assert both.busy == 0.75
    assert Usage().busy == 0.0
