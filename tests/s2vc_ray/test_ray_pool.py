"""When workers are started, given back and replaced."""

from __future__ import annotations

from typing import Any

import pytest

from s2vc_ray.ray_pool import Backoff, Member, Pace, Pool
from s2vc_ray.usage import Usage

PACE = Pace(idle=60, first_pause=1, longest_pause=8, start=900)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Cloud:
    """Starts workers by number; ``arrive`` lets those that wait come up."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.started = 0
        self.stopped: list[int] = []
        self.pool = Pool(self._start, self.stopped.append, PACE, self.clock)

    def _start(self) -> tuple[Any, Any]:
        self.started += 1
        return self.started, f"hello {self.started}"

    def arrive(self, number: int = 10**6) -> None:
        for member in self.pool.coming[:number]:
            self.pool.admit(member, "node")

    def tend(self, busy: bool | None, low: int = 1, high: int = 100, *, after: float = 0) -> tuple[int, int]:
        """Workers that are up and coming afterwards."""
        self.clock.now += after
        self.pool.tend(busy=busy, low=low, high=high)
        return len(self.pool.open), len(self.pool.coming)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def up(cloud: Cloud, number: int) -> list[Member]:
    cloud.pool.add(number)
    cloud.arrive()
    return cloud.pool.members


def test_a_full_pool_grows_by_its_own_size_up_to_its_most(cloud: Cloud) -> None:
    up(cloud, 1)
    sizes = []
    for _ in range(6):
        sizes.append(cloud.tend(busy=True, high=60))
        cloud.arrive()
    assert sizes == [(1, 4), (5, 5), (10, 10), (20, 20), (40, 20), (60, 0)]


def test_what_waits_for_room_is_not_asked_for_again(cloud: Cloud) -> None:
    up(cloud, 2)
    assert cloud.tend(busy=True) == (2, 4)
    assert cloud.tend(busy=True, after=30) == (2, 4)


def test_a_pause_in_the_work_gives_nothing_back(cloud: Cloud) -> None:
    up(cloud, 4)
    assert cloud.tend(busy=True) == (4, 4)
    assert cloud.tend(busy=False, after=1) == (4, 4)
    assert cloud.tend(busy=True, after=50) == (4, 4)
    assert cloud.tend(busy=False, after=50) == (4, 4)
    assert cloud.tend(busy=False, after=50) == (4, 4)


def test_without_work_the_superfluous_go_and_the_busy_stay(cloud: Cloud) -> None:
    members = list(up(cloud, 4))
    members[0].work.append("a batch")
    cloud.tend(busy=True)
    cloud.tend(busy=False)
    assert cloud.tend(busy=False, low=2, after=61) == (2, 0)
    assert members[0] in cloud.pool.members


def test_nothing_is_given_back_before_the_job_begins(cloud: Cloud) -> None:
    cloud.pool.add(8)
    assert cloud.tend(busy=None, after=500) == (0, 8)


def test_a_cluster_that_shrinks_is_not_asked_for_what_it_had(cloud: Cloud) -> None:
    up(cloud, 3)
    assert cloud.tend(busy=True, high=6) == (3, 3)
    assert cloud.tend(busy=True, high=4) == (3, 1)


def test_the_lost_are_replaced_ever_later_without_end_until_a_batch_is_done(cloud: Cloud) -> None:
    up(cloud, 1)
    pauses = []
    for _ in range(8):
        cloud.pool.drop(cloud.pool.members[0], "node_lost")
        assert cloud.tend(busy=True, low=1, high=1) == (0, 0)
        pauses.append(cloud.pool.backoff.until - cloud.clock.now)
        cloud.clock.now = cloud.pool.backoff.until
        assert cloud.tend(busy=True, low=1, high=1) == (0, 1)
        cloud.arrive()
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, [1, 2, 4, 8, 8, 8, 8, 8]))
    cloud.pool.backoff.succeeded()
    cloud.pool.drop(cloud.pool.members[0], "node_lost")
    assert cloud.pool.backoff.until - cloud.clock.now <= 1


def test_many_losses_at_once_are_one(cloud: Cloud) -> None:
    backoff = Backoff(PACE, cloud.clock)
    for _ in range(50):
        backoff.failed()
    assert backoff.until - cloud.clock.now <= 1


def test_a_leaving_worker_gets_no_work_and_goes_when_it_has_none(cloud: Cloud) -> None:
    first, _ = up(cloud, 2)
    first.work.append("a batch")
    first.leaving = "draining"
    assert cloud.tend(busy=True, low=2, high=2) == (1, 1)
    assert first in cloud.pool.members
    first.work.clear()
    cloud.tend(busy=True, low=2, high=2)
    assert first not in cloud.pool.members
    assert first.actor in cloud.stopped


def test_one_that_does_not_come_up_is_asked_for_anew(cloud: Cloud) -> None:
    cloud.pool.add(1)
    cloud.tend(busy=None, after=901)
    assert cloud.stopped == [1]
    assert cloud.tend(busy=None, after=2) == (0, 1)


def test_time_is_counted_whether_workers_answer_or_not(cloud: Cloud) -> None:
    first, second = up(cloud, 2)
    cloud.pool.lanes = 2
    first.usage = Usage(busy_seconds=30.0)
    cloud.clock.now += 20
    cloud.pool.doubt(first, "hello?")
    cloud.clock.now += 100
    assert cloud.pool.usage().lane_seconds == 2 * (20 + 120)
    cloud.pool.admit(first, "node")
    cloud.clock.now += 10
    cloud.pool.drop(second, "node_lost")
    cloud.clock.now += 5
    usage = cloud.pool.usage()
    assert (usage.lane_seconds, usage.busy_seconds) == (2 * (35 + 130), 30.0)
