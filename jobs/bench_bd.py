"""Bjøntegaard delta rate between two rate-quality curves, with what limits it said out loud.

The calculation itself is the ``bjontegaard`` package's (Akima interpolation of log rate over quality); this
module prepares the curves for it and refuses to make a number up where they do not overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_POINTS = 2
Point = tuple[float, float]
"""(bits per pixel, score)."""


@dataclass(frozen=True, slots=True)
class BdRate:
    """How much more rate a codec spends than an anchor for the same quality.

    Attributes:
        percent: mean rate difference over the shared quality range; negative is better. None: see ``note``.
        overlap: the shared quality range over the range that both curves span together, 0..1.
        dropped: points left out because a cheaper point of the same codec is at least as good.
        note: why there is no number, or empty.
    """

    percent: float | None
    overlap: float
    dropped: int
    note: str = ""

    def __str__(self) -> str:
        if self.percent is None:
            return self.note
        return f"{self.percent:+.1f} % ({self.overlap:.0%} overlap)"


def bd_rate(anchor: Sequence[Point], test: Sequence[Point], higher_is_better: bool) -> BdRate:
    """BD-rate of ``test`` against ``anchor``."""
    sign = 1.0 if higher_is_better else -1.0
    front_a, front_t = (frontier([(rate, sign * score) for rate, score in c]) for c in (anchor, test))
    dropped = len(anchor) + len(test) - len(front_a) - len(front_t)
    if min(len(front_a), len(front_t)) < MIN_POINTS:
        return BdRate(None, 0.0, dropped, "too few points")
    low, high = max(front_a[0][1], front_t[0][1]), min(front_a[-1][1], front_t[-1][1])
    if low >= high:
        return BdRate(None, 0.0, dropped, _no_overlap(front_a, front_t, sign))
    span = max(front_a[-1][1], front_t[-1][1]) - min(front_a[0][1], front_t[0][1])
    return BdRate(_percent(front_a, front_t), (high - low) / span, dropped)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Points (rate, quality) that no cheaper or equally cheap one matches, by ascending rate and quality."""
    front: list[Point] = []
    for rate, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or quality > front[-1][1]:
            front.append((rate, quality))
    return front


def _percent(anchor: Sequence[Point], test: Sequence[Point]) -> float:
    # Imported here: it brings matplotlib along, an extra that only benchmarks need.
    import bjontegaard

    (rate_a, quality_a), (rate_t, quality_t) = zip(*anchor, strict=True), zip(*test, strict=True)
    return float(
        bjontegaard.bd_rate(
            rate_a, quality_a, rate_t, quality_t, "akima", require_matching_points=False, min_overlap=0
        )
    )


def _no_overlap(anchor: Sequence[Point], test: Sequence[Point], sign: float) -> str:
    def span(front: Sequence[Point]) -> str:
        return f"{sign * front[0][1]:.4g}..{sign * front[-1][1]:.4g}"

    return f"no overlap ({span(test)} against {span(anchor)})"
