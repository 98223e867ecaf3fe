"""Which level of a codec to take: what to probe next, given what was probed. Pure, and no codec in it.

A codec has integer levels (S2VC's q, a classical codec's CRF), and may have parts of them (quarters of a q), which are
searched last. At each, what was asked for holds by a *margin* that is
measured: at or above 0 it holds. Towards one end, `Levels.best`, the result is what one would like to have (the
smallest file, or the highest quality); towards the other, `Levels.safe`, the margin grows, nearly always. Wanted is the
level nearest to `best` that holds. Margins may be of any unit in which they are about linear in the level.

Nothing is remembered but the margins, so several searches go side by side in rounds, and a level that was probed for
another reason may be put among them::

    margins = {}
    while (level := next_level(levels, margins)) is not None:
        margins[level] = probe(level)
    found = chosen(levels, margins)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_GUESSES = 6
"""Probes after which a curve is taken for too bent to guess along: from then on what is left is halved."""
_CLIMBS = 8
"""Probes after which a curve that misses at ``safe``, by little or less so elsewhere, is given up."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a search, both ends included, and what its first guesses lean on.

    Attributes:
        best: the level that one would have if it held. ``safe``: the other end; may be below ``best``.
        start: probed first, clipped into the range.
        slope: by how much the margin usually grows with one level towards ``safe``; above 0.
        enough: a level that holds by no more than this is near enough to what was asked for to end the search; one that
            misses by no more may have a neighbour that holds.

    Raises:
        ValueError: the slope is not a finite number above 0, or ``enough`` is below 0.
    """

    best: int
    safe: int
    start: int
    slope: float
    enough: float = 0.0

    def __post_init__(self) -> None:
        if not self.enough >= 0:
            raise ValueError(f"enough is {self.enough}: give 0 or more")
        if not (math.isfinite(self.slope) and self.slope > 0):
            raise ValueError(f"slope is {self.slope}: give a finite number above 0")

    def steps(self, level: float) -> float:
        """How far ``level`` is from ``best``: 0 there, growing towards ``safe``."""
        return level - self.best if self.safe >= self.best else self.best - level

    def level(self, steps: int) -> int:
        """The level that is so far from ``best``."""
        return self.best + steps if self.safe >= self.best else self.best - steps

    @property
    def last(self) -> int:
        """Steps from ``best`` to ``safe``."""
        return abs(self.safe - self.best)


def next_level(levels: Levels, margins: Mapping[float, float]) -> int | None:
    """The level to probe after those in ``margins``; None when the search is over.

    It is over when a level held by no more than ``enough``, or when one held and the next towards ``best`` was probed
    and did not (or there is none): so what `chosen` returns cannot be improved by one level, or not by enough, whatever
    the curve looks like elsewhere. Where ``safe`` itself does not hold, it is over when that is the best of what was
    probed and misses by more than ``enough``; otherwise the curve is no rising one, or wavers where it is flat, and is
    probed a few times more around its best. Takes about 4 probes
    of 64 levels on a smooth curve, never more than 16.

    Raises:
        ValueError: a margin is NaN, or of a level that is not in the range.
    """
    known = {int(at): margin for at, margin in _by_steps(levels, margins).items()}
    if not known:
        return levels.level(min(max(int(levels.steps(levels.start)), 0), levels.last))
    hold = min((at for at, margin in known.items() if margin >= 0), default=levels.last + 1)
    miss = max((at for at, margin in known.items() if margin < 0 and at < hold), default=-1)
    if miss == levels.last:
        return _climb(levels, known)
    if hold - miss == 1 or known.get(hold, math.inf) <= levels.enough:
        return None
    guess = _crossing(known, miss, hold, levels.slope) if len(known) < _GUESSES else math.nan
    at = math.ceil(guess) if math.isfinite(guess) else (miss + hold) // 2
    return levels.level(min(max(at, miss + 1), hold - 1))


def next_part(levels: Levels, margins: Mapping[float, float], parts: int) -> float | None:
    """The part of a level to probe once the search of whole ones is over; None when that is over too.

    Halves what lies between the level that holds and its neighbour towards ``best`` that was probed and does not, down
    to a ``parts``-th of a level, a power of two, or until one holds by no more than ``enough``.
    """
    known = _by_steps(levels, margins)
    hold = min((at for at, margin in known.items() if margin >= 0), default=None)
    if hold is None or known[hold] <= levels.enough:
        return None
    miss = max((at for at in known if at < hold), default=None)
    if miss is None or not 1 / parts < hold - miss <= 1:
        return None
    at = (miss + hold) / 2
    return levels.best + at if levels.safe >= levels.best else levels.best - at


def chosen(levels: Levels, margins: Mapping[float, float]) -> float | None:
    """Of the levels that were probed and held, the one nearest to ``best``; None when none held."""
    held = [level for level, margin in margins.items() if margin >= 0]
    _by_steps(levels, margins)
    return min(held, key=levels.steps, default=None)


def search(levels: Levels, probe: Callable[[int], float]) -> dict[float, float]:
    """Probe until the search is over: the margins of all levels that were probed, in that order."""
    margins: dict[float, float] = {}
    while (level := next_level(levels, margins)) is not None:
        margins[level] = probe(level)
    return margins


def _climb(levels: Levels, known: Mapping[int, float]) -> int | None:
    """The middle of the gap with the best ends, among levels that all missed; None when that is not worth it."""
    peak = max(known, key=lambda at: (known[at], at))
    if len(known) >= _CLIMBS or (peak == levels.last and known[peak] < -levels.enough):
        return None
    probed = sorted(known)
    gaps = [gap for gap in itertools.pairwise([-1, *probed]) if gap[1] - gap[0] > 1]
    if not gaps:
        return None
    low, high = max(gaps, key=lambda gap: known.get(gap[0], known[probed[0]]) + known[gap[1]])
    return levels.level((low + high) // 2)


def _by_steps(levels: Levels, margins: Mapping[float, float]) -> dict[float, float]:
    known = {levels.steps(level): margin for level, margin in margins.items()}
    if any(math.isnan(margin) for margin in known.values()):
        raise ValueError("a margin is not a number: a level that cannot be measured has no place in a search")
    if known and not 0 <= min(known) <= max(known) <= levels.last:
        raise ValueError(f"levels {sorted(margins)} are not all within {levels.best}..{levels.safe}")
    return known


def _crossing(known: Mapping[int, float], miss: int, hold: int, slope: float) -> float:
    """Where the margin should become 0: between the ends if both were probed, else beyond the one that was."""
    if math.inf in (abs(known.get(miss, 0.0)), abs(known.get(hold, 0.0))):
        return math.nan
    if miss in known and hold in known:
        return miss + (hold - miss) * known[miss] / (known[miss] - known[hold])
    at, end = (miss, hold - 1) if miss in known else (hold, miss + 1)
    others = sorted((other for other in known if other != at), key=lambda other: abs(other - at))
    if others:
        slope = (known[others[0]] - known[at]) / (others[0] - at)
        if slope <= 0:
            # It does not rise here: see what there is at the end.
            return end
    return at - known[at] / slope
