"""Rounds of probes: each GOP goes its own way, whatever its neighbours in the batch do."""

from __future__ import annotations

from collections.abc import Sequence

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.lanes import CodedGop
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import Wish, seek
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


def test_without_a_goal_nothing_is_coded() -> None:
    bench = Bench()
    assert seek([], bench) == []
    assert bench.rounds == []
