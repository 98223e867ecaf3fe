"""BD-rates: their sign, their overlap, and no number without one."""

from __future__ import annotations

import pytest

from jobs.bench_bd import bd_rate, frontier


def test_bd_rate_of_half_the_rate_is_minus_fifty_percent() -> None:
    anchor = [(0.01, 30.0), (0.02, 33.0), (0.04, 36.0), (0.08, 38.0)]
    half = [(rate / 2, quality) for rate, quality in anchor]
    found = bd_rate(anchor, half, higher_is_better=True)
    assert found.percent == pytest.approx(-50)
    assert (found.overlap, found.dropped, found.note) == (1.0, 0, "")
    assert str(found) == "-50.0 % (100% overlap)"


def test_bd_rate_knows_that_distances_are_better_when_low() -> None:
    anchor = [(0.01, 0.4), (0.02, 0.3), (0.04, 0.2), (0.08, 0.1)]
    double = [(2 * rate, score) for rate, score in anchor]
    assert bd_rate(anchor, double, higher_is_better=False).percent == pytest.approx(100)


def test_bd_rate_states_partial_overlap() -> None:
    anchor = [(0.01, 30.0), (0.02, 32.0), (0.04, 34.0)]
    test = [(0.01, 32.0), (0.02, 34.0), (0.04, 36.0)]
    found = bd_rate(anchor, test, higher_is_better=True)
    assert found.overlap == pytest.approx(2 / 6)
    assert found.percent == pytest.approx(-50, abs=1)


def test_no_overlap_is_said_and_gives_no_number() -> None:
    anchor = [(0.01, 0.1), (0.02, 0.05)]
    test = [(0.01, 0.4), (0.02, 0.3)]
    found = bd_rate(anchor, test, higher_is_better=False)
    assert found.percent is None
    assert str(found) == "no overlap (0.4..0.3 against 0.1..0.05)"
    assert str(bd_rate(anchor[:1], test, higher_is_better=False)) == "too few points"


def test_frontier_drops_points_that_cost_more_for_less() -> None:
    points = [(0.04, 36.0), (0.01, 30.0), (0.02, 29.0), (0.03, 30.0), (0.04, 35.0)]
    assert frontier(points) == [(0.01, 30.0), (0.04, 36.0)]
    found = bd_rate(points, [(0.01, 30.0), (0.04, 36.0)], higher_is_better=True)
    assert found.percent == pytest.approx(0)
    assert found.dropped == 3
