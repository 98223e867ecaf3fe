"""Rounds of probes: each GOP goes its own way, whatever its neighbours in the batch do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.lanes import CodedGop
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import Way, Wish, seek, seek_best
from s2vc_ray.targets import Floor, Goal


class Bench:
    """Codes GOP n at q to 100 (n + 1) + 40 q bytes at 30 + n + q / 10 dB, and writes down who was coded together."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.rounds: list[list[Wish]] = []
        self._seconds = seconds

    def __call__(self, wishes: Sequence[Wish]) -> list[CodedGop]:
        self.rounds.append(list(wishes))
        return [self.coded(number, q) for number, q in wishes]

    def coded(self, number: int, q: int) -> CodedGop:
        inter = bytes(100 * (number + 1) + 40 * q)
        encoded = EncodedGop(64, 48, 4, q, b"", inter, bytes(4), 0)
        value = 30 + number + q / 10
        metric = Metric("psnr", value + 1, value, 4)
        return CodedGop(encoded, self._seconds, self._seconds / 10, (metric,))


def test_gops_search_side_by_side_and_leave_when_they_have_found_theirs() -> None:
    bench = Bench()
    goals = [Goal(Floor("psnr", 33.0), None)] * 3
    found = seek(goals, bench)
    assert [one.encoded.q for one in found] == [30, 20, 10]
    assert [one.target_met for one in found] == [True] * 3
    assert [len({number for number, _ in wishes}) for wishes in bench.rounds] == [
        len(wishes) for wishes in bench.rounds
    ]
    assert len(bench.rounds) == max(one.probes for one in found)
    assert sum(one.probes for one in found) == sum(len(wishes) for wishes in bench.rounds)


def test_a_gop_finds_the_same_alone() -> None:
    goals = [Goal(Floor("psnr", 33.0), None), Goal(None, 0.8), Goal(Floor("psnr", 50.0), None)]
    together = seek(goals, Bench())
    for number, goal in enumerate(goals):
        bench = Bench()
        (alone,) = seek([goal], lambda wishes, n=number, b=bench: [b.coded(n, q) for _, q in wishes])  # type: ignore[misc]
        assert (alone.encoded, alone.target_met, alone.probes) == (
            together[number].encoded,
            together[number].target_met,
            together[number].probes,
        )
    assert [one.target_met for one in together] == [True, True, False]


def test_the_mean_is_held_where_the_mean_is_asked_for() -> None:
    worst, mean = (
        seek([Goal(Floor("psnr", 33.0, statistic), None)], Bench())[0] for statistic in ("worst", "mean")
    )
    assert (worst.encoded.q, mean.encoded.q) == (30, 20)


def test_all_probes_count_as_encoding_but_for_the_last_decode() -> None:
    (one,) = seek([Goal(Floor("psnr", 33.0), None)], Bench(seconds=20))
    assert one.probes >= 2
    assert one.decode_seconds == 2
    assert one.encode_seconds == one.probes * 22 - 2


class Larger(Bench):
    """Another way: so many times the bytes, and so many decibels more."""

    def __init__(self, times: float, gain: float) -> None:
        super().__init__()
        self._times, self._gain = times, gain

    def coded(self, number: int, q: int) -> CodedGop:
        plain = super().coded(number, q)
        encoded = replace(plain.encoded, inter=bytes(int(len(plain.encoded.inter) * self._times)), scale=1)
        (metric,) = plain.metrics
        return replace(plain, encoded=encoded, metrics=(replace(metric, worst=metric.worst + self._gain),))


@pytest.mark.parametrize(
    ("times", "gain", "taken"), [(1.1, 2.0, 1), (1.1, 0.1, 0), (0.9, 0.0, 1), (0.5, -1.0, 1)]
)
def test_the_way_of_fewer_bits_is_taken_whichever_comes_first(times: float, gain: float, taken: int) -> None:
    goals = [Goal(Floor("psnr", 33.0), None, parts=4), Goal(Floor("psnr", 34.5), None)]
    for order in (1, -1):
        benches = [Bench(), Larger(times, gain)][::order]
        found = seek_best(goals, [Way(bench) for bench in benches])
        alone = [seek(goals, bench) for bench in (Bench(), Larger(times, gain))]
        for number, one in enumerate(found):
            assert one.target_met
            assert one.encoded.scale == taken
            assert one.bpp < 1.05 * min(alone[0][number].bpp, alone[1][number].bpp)
            assert one.probes == sum(n == number for b in benches for wishes in b.rounds for n, _ in wishes)


def test_a_way_that_needs_more_bits_costs_a_probe() -> None:
    plain, larger = Bench(), Larger(2.0, 0.0)
    (one,) = seek_best([Goal(Floor("psnr", 33.0), None)], [Way(plain), Way(larger)])
    assert one.encoded.scale == 0
    assert sum(map(len, larger.rounds)) == 1


def test_a_floor_that_one_way_does_not_reach_another_may() -> None:
    goals = [
        Goal(Floor("psnr", 38.0), None),
        Goal(Floor("psnr", 38.0), 0.001),
        Goal(Floor("psnr", 50.0), None),
    ]
    found = seek_best(goals, [Way(Bench()), Way(Larger(1.5, 5.0))])
    assert [one.target_met for one in found] == [True, False, False]
    assert [one.encoded.scale for one in found] == [1, 0, 0]


def test_a_way_is_not_asked_for_less_than_it_has() -> None:
    larger = Larger(0.1, 20.0)
    found = seek_best([Goal(Floor("psnr", 33.0), None)], [Way(Bench()), Way(larger, 11)])
    assert [one.encoded.q for one in found] == [11]
    assert min(q for wishes in larger.rounds for _, q in wishes) == 11


def test_budgets_know_one_way() -> None:
    larger = Larger(0.1, 20.0)
    (one,) = seek_best([Goal(None, 0.8)], [Way(Bench()), Way(larger)])
    assert one.encoded.scale == 0
    assert larger.rounds == []


def test_without_a_goal_nothing_is_coded() -> None:
    bench = Bench()
    assert seek([], bench) == []
    assert bench.rounds == []
