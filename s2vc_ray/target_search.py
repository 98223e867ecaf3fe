"""Every GOP's own quality index: rounds of coding side by side, until each goal is met or known to be out of reach.

In each round every GOP that is still searching names the q that it wants next, and all of them go through the codec as
one batch. A GOP's own measurements alone decide, so its result does not depend on its neighbours in the batch. Knows no
codec: `code` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from s2vc_ray.targets import Goal, Probe

if TYPE_CHECKING:
    from s2vc_ray.lanes import CodedGop

Wish = tuple[int, float]
"""A GOP's number in the batch, and the q to code it at."""


def seek(goals: Sequence[Goal], code: Callable[[Sequence[Wish]], Sequence[CodedGop]]) -> list[CodedGop]:
    """For each goal the GOP as it was coded at the q taken, with `CodedGop.target_met`, `CodedGop.target_value` and
    `CodedGop.probes`.

    ``encode_seconds`` are then of the whole search, measuring included, but for decoding the one that was taken.

    Args:
        code: codes, and where floors ask for it measures, GOPs at their q.
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
