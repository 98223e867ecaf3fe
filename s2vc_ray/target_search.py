"""Every GOP's own quality index: rounds of coding side by side, until each goal is met or known to be out of reach.

In each round every GOP that is still searching names the q that it wants next, and all of them go through the codec as
one batch. A GOP's own measurements alone decide, so its result does not depend on its neighbours in the batch. Where
there are several ways to code a GOP, each is searched, and the one that holds a floor in the fewest bits is taken.
Knows no codec: `code` is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from s2vc_ray.targets import Goal, Probe

if TYPE_CHECKING:
    from s2vc_ray.lanes import CodedGop

Wish = tuple[int, float]
"""A GOP's number in the batch, and the q to code it at."""
Code = Callable[[Sequence[Wish]], Sequence["CodedGop"]]
"""Codes, and where floors ask for it measures, GOPs at their q."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to code GOPs, such as enlarged, and the least q that there is then."""

    code: Code
    lowest: int = 0


def seek_best(goals: Sequence[Goal], ways: Sequence[Way]) -> list[CodedGop]:
    """Like :func:`seek`, each GOP the first of these ways, or another that holds its floor in fewer bits.

    Another is searched from the q that was found, and no further than it takes to know that it needs more. Seconds and
    probes are of all ways. Goals without a floor know the first way only.
    """
    first, *others = ways
    found = seek([replace(goal, lowest=first.lowest) for goal in goals], first.code)
    for way in others:
        rivals = {n: _rival(goal, found[n], way) for n, goal in enumerate(goals) if goal.floor}
        numbers = list(rivals)

        def code(
            wishes: Sequence[Wish], way: Way = way, numbers: Sequence[int] = numbers
        ) -> Sequence[CodedGop]:
            return way.code([(numbers[at], q) for at, q in wishes])

        for number, other in zip(numbers, seek(list(rivals.values()), code), strict=True):
            found[number] = _better(found[number], other)
    return found


def _rival(goal: Goal, found: CodedGop, way: Way) -> Goal:
    """The same goal for fewer bits than what was found to meet it, or for as many as are allowed where nothing was."""
    most = math.nextafter(found.bpp, 0.0) if found.target_met else goal.max_bpp
    return replace(goal, max_bpp=most, lowest=way.lowest, start=found.encoded.q, settles=False)


def _better(one: CodedGop, other: CodedGop) -> CodedGop:
    taken, left = (other, one) if other.target_met else (one, other)
    return replace(
        taken,
        encode_seconds=taken.encode_seconds + left.encode_seconds + left.decode_seconds,
        probes=taken.probes + left.probes,
    )


def seek(goals: Sequence[Goal], code: Code) -> list[CodedGop]:
    """For each goal the GOP as it was coded at the q taken, with `CodedGop.target_met`, `CodedGop.target_value` and
    `CodedGop.probes`.

    ``encode_seconds`` are then of the whole search, measuring included, but for decoding the one that was taken.
    """
    tried: list[dict[float, CodedGop]] = [{} for _ in goals]
    while wishes := [
        (number, q)
        for number, goal in enumerate(goals)
        if (q := goal.next_q(_probes(goal, tried[number]))) is not None
    ]:
        for (number, q), coded in zip(wishes, code(wishes), strict=True):
            tried[number][q] = coded
    return [_taken(*one) for one in zip(goals, tried, strict=True)]


def _probes(goal: Goal, tried: Mapping[float, CodedGop]) -> dict[float, Probe]:
    return {q: Probe(coded.bpp, _value(goal, coded)) for q, coded in tried.items()}


def _value(goal: Goal, coded: CodedGop) -> float | None:
    """What the goal's floor is about; None where this GOP has no such value."""
    if goal.floor is None:
        return None
    found = [metric for metric in coded.metrics if metric.name == goal.floor.metric]
    return (found[0].worst if goal.floor.statistic == "worst" else found[0].mean) if found else None


def _taken(goal: Goal, tried: Mapping[float, CodedGop]) -> CodedGop:
    q, met = goal.choice(_probes(goal, tried))
    taken = tried[q]
    others = sum(one.encode_seconds + one.decode_seconds for one in tried.values() if one is not taken)
    return replace(
        taken,
        encode_seconds=taken.encode_seconds + others,
        target_value=goal.value,
        target_met=met,
        probes=len(tried),
    )
