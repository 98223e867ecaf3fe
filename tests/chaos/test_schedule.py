"""Schedules are a pure function of their seed."""

from __future__ import annotations

from tests.chaos.schedule import KINDS, REQUIRED, draw


def test_a_seed_always_gives_the_same_faults() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_every_run_has_the_required_faults_and_all_kinds_turn_up() -> None:
    runs = [draw(seed) for seed in range(1, 21)]
    for faults in runs:
        assert set(REQUIRED) <= {fault.kind for fault in faults}
        assert [fault.progress for fault in faults] == sorted(fault.progress for fault in faults)
    assert {fault.kind for faults in runs for fault in faults} == set(KINDS)
