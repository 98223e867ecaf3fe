"""Which GOPs the fallback codec takes: those below their floor, or also those that it makes smaller; never worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.fallback_search import fall_back
from s2vc_ray.lanes import CodedGop
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import seek
from s2vc_ray.targets import Floor, Goal

FLOOR = Floor("lpips_alex", 0.15)
Curve = Callable[[int], tuple[int, float]]
"""A level, 0..63 from smallest to best, to the payload's size in bytes and its worst LPIPS."""


def curve(size: int, worst: float, best: float) -> Curve:
    """LPIPS falls from ``worst`` to ``best``; sizes grow from ``size`` by 2 % a level."""
    return lambda level: (int(size * 1.02**level), worst + (best - worst) * level / 63)


def coded(fallback: bool, level: int, found: Curve) -> CodedGop:
    size, value = found(level)
    gop = (
        Av1Gop(64, 48, 63 - level, 0, b"\0", (bytes(size),))
        if fallback
        else EncodedGop(64, 48, 1, level, bytes(size), b"", b"\0", 0)
    )
    return CodedGop(gop, 1.0, 0.25, (Metric("lpips_alex", value, value, 1),))


def run(
    policy: str, ours: Sequence[Curve], theirs: Sequence[Curve], goal: Goal | None = None
) -> tuple[list[CodedGop], list[list[int]]]:
    """What is stored of each GOP, and which CRFs each was coded at."""
    goals = [goal or Goal(FLOOR, None)] * len(ours)
    asked: list[list[int]] = [[] for _ in ours]

    def code(wishes: Sequence[tuple[int, int]]) -> list[CodedGop]:
        for number, crf in wishes:
            asked[number].append(crf)
        return [coded(True, 63 - crf, theirs[number]) for number, crf in wishes]

    found = seek(goals, lambda wishes: [coded(False, q, ours[number]) for number, q in wishes])
    return fall_back(policy, found, goals, code), asked


HOLDS = curve(100, 0.4, 0.02)
MISSES = curve(100, 0.6, 0.2)
CLASSICAL = curve(300, 0.5, 0.0)
SMALLER = curve(20, 0.5, 0.0)


def test_only_gops_below_their_floor_fall_back() -> None:
    stored, asked = run("av1", [HOLDS, MISSES, HOLDS, MISSES], [SMALLER] * 4)
    assert [one.codec for one in stored] == ["s2vc", "av1", "s2vc", "av1"]
    assert asked[0] == asked[2] == []
    assert all(one.target_met and one.metrics[0].worst <= 0.15 for one in stored)


def test_the_largest_crf_that_holds_is_taken() -> None:
    (one,), (asked,) = run("av1", [MISSES], [CLASSICAL])
    assert one.encoded.q == max(crf for crf in range(64) if CLASSICAL(63 - crf)[1] <= 0.15)
    assert one.probes == len(asked) + len(seek_levels(MISSES))
    assert len(asked) <= 6


def seek_levels(found: Curve) -> list[int]:
    levels: list[int] = []
    seek([Goal(FLOOR, None)], lambda wishes: [levels.append(q) or coded(False, q, found) for _, q in wishes])
    return levels


def test_smaller_compares_bytes_where_both_hold() -> None:
    stored, asked = run("smaller", [HOLDS, HOLDS, MISSES], [SMALLER, CLASSICAL, CLASSICAL])
    assert [one.codec for one in stored] == ["av1", "s2vc", "av1"]
    assert all(asked)
    assert len(stored[0].payload) < len(run("none", [HOLDS], [SMALLER])[0][0].payload)


def test_what_the_fallback_misses_too_stays_s2vcs_best() -> None:
    never = curve(20, 0.9, 0.3)
    (one,), (asked,) = run("smaller", [MISSES], [never])
    assert (one.codec, one.encoded.q, one.target_met) == ("s2vc", 63, False)
    assert asked[-1] == 0


def test_bytes_that_are_not_allowed_are_a_miss() -> None:
    """With a most of bits, S2VC holds the floor in too many; the fallback must hold it in few enough."""
    tight = Goal(FLOOR, max_bpp=8 * 150 / (64 * 48))
    assert run("none", [HOLDS], [SMALLER], tight)[0][0].target_met is False
    assert run("av1", [HOLDS], [SMALLER], tight)[0][0].codec == "av1"
    assert run("av1", [HOLDS], [CLASSICAL], tight)[0][0].codec == "s2vc"


@pytest.mark.parametrize(
    ("policy", "goal"), [("none", None), ("av1", Goal(None, 1.0)), ("smaller", Goal(None, 1.0))]
)
def test_nothing_falls_back_without_a_floor_or_a_policy(policy: str, goal: Goal | None) -> None:
    stored, asked = run(policy, [MISSES], [SMALLER], goal)
    assert stored[0].codec == "s2vc"
    assert asked == [[]]


def test_neighbours_make_no_difference() -> None:
    mine = run("smaller", [MISSES, HOLDS, HOLDS], [CLASSICAL, SMALLER, CLASSICAL])[0]
    alone = [
        run("smaller", [own], [other])[0][0]
        for own, other in ((MISSES, CLASSICAL), (HOLDS, SMALLER), (HOLDS, CLASSICAL))
    ]
    assert [(one.codec, one.encoded.q, one.payload) for one in mine] == [
        (one.codec, one.encoded.q, one.payload) for one in alone
    ]


def test_seconds_are_of_both_searches() -> None:
    (without,), _ = run("none", [MISSES], [CLASSICAL])
    (one,), asked = run("av1", [MISSES], [CLASSICAL])
    assert one.encode_seconds >= without.encode_seconds
    assert one.probes == without.probes + len(asked[0])
