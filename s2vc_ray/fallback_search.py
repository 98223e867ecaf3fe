"""Which GOPs are stored with the fallback codec instead, once S2VC's own search is over.

Those whose floor S2VC does not hold; where asked for, also those that the fallback codec holds at their floor in fewer
bytes. It is searched by the same rounds and the same goals, its level being 63 less the CRF: 0 is the smallest, 63 the
best. It is taken only where it holds the floor; else S2VC's best attempt stays. Knows no codec: `code` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from s2vc_ray.av1_gop import MAX_CRF
from s2vc_ray.target_search import Wish, seek
from s2vc_ray.targets import Goal

if TYPE_CHECKING:
    from s2vc_ray.lanes import CodedGop


def fall_back(
    policy: str,
    found: Sequence[CodedGop],
    goals: Sequence[Goal],
    code: Callable[[Sequence[Wish]], Sequence[CodedGop]],
) -> list[CodedGop]:
    """``found`` with those replaced that the fallback codec is to hold.

    Seconds and probes are of both searches, whichever codec is taken.

    Args:
        policy: one of `s2vc_ray.policy.FALLBACKS`. Without a floor there is nothing to fall back from.
        found: each GOP as S2VC coded it for its goal.
        code: codes and measures GOPs with the fallback codec: their numbers, and the CRF for each.
    """
    tried = [
        number
        for number, (one, goal) in enumerate(zip(found, goals, strict=True))
        if policy != "none" and goal.floor is not None and (policy == "smaller" or not one.target_met)
    ]
    others = seek(
        [replace(goals[number], top=MAX_CRF, parts=1) for number in tried],
        lambda wishes: code([(tried[at], MAX_CRF - level) for at, level in wishes]),
    )
    result = list(found)
    for number, other in zip(tried, others, strict=True):
        result[number] = _better(found[number], other)
    return result


def _better(ours: CodedGop, other: CodedGop) -> CodedGop:
    kept = ours.target_met and len(ours.payload) <= len(other.payload)
    taken = other if other.target_met and not kept else ours
    return replace(
        taken,
        encode_seconds=ours.encode_seconds + other.encode_seconds,
        probes=ours.probes + other.probes,
    )
