"""The search for a level: what it promises on any curve, and how soon it is over on smooth ones."""

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest

from s2vc_ray.quality_search import Levels, chosen, next_level, next_part, search

Q = Levels(best=0, safe=63, start=40, slope=0.05)
CRF = Levels(best=63, safe=10, start=35, slope=0.05)


def _line(levels: Levels, first: float, slope: float = 0.05) -> dict[int, float]:
    """Margins of a line that becomes 0 ``first`` steps from ``best``."""
    steps = range(levels.last + 1)
    return {levels.level(at): slope * (at - first) for at in steps}


@pytest.mark.parametrize("levels", [Q, CRF])
@pytest.mark.parametrize("slope", [0.02, 0.05, 0.2])
def test_every_crossing_of_a_line_is_found_exactly(levels: Levels, slope: float) -> None:
    probes = []
    for first in range(levels.last + 1):
        curve = _line(levels, first - 0.5, slope)
        margins = search(levels, curve.__getitem__)
        assert chosen(levels, margins) == levels.level(first)
        probes.append(len(margins))
    assert statistics.mean(probes) <= 4
    assert max(probes) <= 5


def _with_parts(levels: Levels, margin: Callable[[float], float], parts: int = 4) -> dict[float, float]:
    """The search of whole levels, then that of their parts."""
    margins = search(levels, margin)
    while (level := next_part(levels, margins, parts)) is not None:
        assert level not in margins
        margins[level] = margin(level)
    return margins


@pytest.mark.parametrize("levels", [Q, CRF])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_level_are_found_exactly_in_few_probes_more(levels: Levels, parts: int) -> None:
    for tenth in range(3, 10 * levels.last - 1):
        first = tenth / 10 + 0.05
        margins = _with_parts(levels, lambda level, first=first: 0.05 * (levels.steps(level) - first), parts)
        found = chosen(levels, margins)
        assert found is not None
        assert levels.steps(found) == math.ceil(first * parts) / parts
        assert sum(level != int(level) for level in margins) == (parts - 1).bit_length()


def test_what_holds_by_little_or_at_the_end_or_nowhere_has_no_parts_searched() -> None:
    near = replace(Q, enough=0.04)
    assert all(level == int(level) for level in _with_parts(near, lambda q: 0.05 * (q - 20.9)))
    far = _with_parts(near, lambda q: 0.05 * (q - 20.1))
    assert chosen(near, far) == 20.5
    assert next_part(Q, search(Q, lambda q: 1 + q), 4) is None
    assert next_part(Q, search(Q, lambda q: q - 99.0), 4) is None


def test_a_bent_curve_is_found_exactly_too() -> None:
    levels, probes = Levels(best=0, safe=63, start=40, slope=1.0), []
    for crossing in range(64):
        curve = {q: math.log(1 + q) ** 3 - math.log(1 + crossing) ** 3 for q in range(64)}
        margins = search(levels, curve.__getitem__)
        assert chosen(levels, margins) == crossing
        probes.append(len(margins))
    assert statistics.mean(probes) <= 4
    assert max(probes) <= 8


def test_what_holds_everywhere_takes_the_best_level_and_what_holds_nowhere_none() -> None:
    everywhere = search(Q, lambda q: 1 + q / 100)
    assert chosen(Q, everywhere) == 0
    nowhere = search(Q, lambda q: q / 100 - 9)
    assert chosen(Q, nowhere) is None
    assert 63 in nowhere
    assert max(len(everywhere), len(nowhere)) <= 3


def test_on_any_curve_the_answer_held_and_the_level_before_it_was_seen_to_miss() -> None:
    dice = random.Random(7)
    for _ in range(2000):
        curve = [dice.gauss(dice.uniform(-2, 2) + q / 20 - 1.5, dice.choice([0, 0.1, 2])) for q in range(64)]
        margins = search(Q, curve.__getitem__)
        found = chosen(Q, margins)
        assert len(margins) <= 16
        if found is None:
            assert margins[63] < 0
            assert max(margins.values()) < 0
        else:
            assert margins[found] >= 0
            assert found == 0 or margins[found - 1] < 0


def test_a_curve_that_falls_again_is_found_where_it_holds() -> None:
    for peak in range(10, 55):
        hill = {q: 0.2 - 0.025 * abs(q - peak) for q in range(64)}
        margins = search(Q, hill.__getitem__)
        found = chosen(Q, margins)
        assert found is not None
        assert margins[found] == 0 or margins[found - 1] < 0 < margins[found]
        assert len(margins) <= 12


def test_a_curve_that_wavers_where_it_is_flat_is_found_where_it_holds() -> None:
    wavers, dice = replace(Q, slope=0.02, enough=0.03), random.Random(3)
    found = []
    for _ in range(300):
        curve = [min(q / 50 - 0.8, 0) + dice.gauss(-0.01, 0.01) for q in range(63)] + [-0.02]
        margins = search(wavers, curve.__getitem__)
        assert len(margins) <= 16
        found.append(chosen(wavers, margins) is not None)
    assert statistics.mean(found) > 0.6


def test_a_curve_that_falls_and_never_holds_is_soon_given_up() -> None:
    margins = search(Q, lambda q: -1 - q / 100)
    assert chosen(Q, margins) is None
    assert len(margins) <= 8


def test_curves_that_jump_to_infinity_are_halved() -> None:
    for crossing in range(64):
        curve = [math.inf if q >= crossing else -math.inf for q in range(64)]
        margins = search(Q, curve.__getitem__)
        assert chosen(Q, margins) == crossing
        assert len(margins) <= 8


def test_margins_alone_decide_what_comes_next() -> None:
    curve = _line(Q, 17.5)
    margins: dict[int, float] = {}
    order = []
    while (level := next_level(Q, margins)) is not None:
        # As if a search had been interrupted, and its measurements been read back in another order.
        assert next_level(Q, dict(sorted(margins.items()))) == level
        margins[level] = curve[level]
        order.append(level)
    assert order[0] == Q.start
    assert next_level(Q, {17: -1.0, 18: 1.0}) is None


def test_levels_known_beforehand_spare_probes() -> None:
    curve = _line(Q, 50.5)
    known = {level: curve[level] for level in (48, 53)}
    assert next_level(Q, known) == 51


def test_what_holds_by_little_is_near_enough() -> None:
    roughly = replace(Q, enough=0.12)
    for first in range(64):
        curve = _line(Q, first - 0.5)
        margins = search(roughly, curve.__getitem__)
        found = chosen(roughly, margins)
        assert found is not None
        assert 0 <= curve[found] <= 0.12 or found == 0
        assert len(margins) <= len(search(Q, curve.__getitem__))
    assert search(replace(Q, enough=9.0), lambda q: 1.0) == {40: 1.0}


def test_a_range_of_one_level_is_probed_once() -> None:
    only = Levels(best=5, safe=5, start=30, slope=1.0)
    assert search(only, lambda level: 1.0) == {5: 1.0}
    assert search(only, lambda level: -1.0) == {5: -1.0}


def test_refuses_what_is_no_number_and_levels_out_of_range() -> None:
    with pytest.raises(ValueError, match="not a number"):
        search(Q, lambda q: math.nan)
    with pytest.raises(ValueError, match="not all within"):
        next_level(Q, {64: 1.0})
    with pytest.raises(ValueError, match="above 0"):
        Levels(0, 63, 30, slope=0.0)
    with pytest.raises(ValueError, match="enough"):
        Levels(0, 63, 30, slope=1.0, enough=-1.0)
