"""Frames named by count: each has a name of its own, and counting begins where it is sure."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import pytest

import s2vc_ray.ticks
from s2vc_ray.ticks import from_tick, ticked_packets


def packet(dts: int | None = None) -> av.Packet:
    made = av.Packet(b"picture")
    made.dts, made.is_keyframe = dts, True
    return made


@pytest.mark.parametrize(
    ("dts", "ticks"),
    [
        ([None, None, None], [0, 1, 2]),
        ([5, 6, 7], [5, 6, 7]),
        ([-48, 291, 582, 582, 2038], [-48, 291, 582, 583, 2038]),
        ([10, 3, 4, None, 12], [10, 11, 12, 13, 14]),
    ],
)
def test_ticks_ascend_whatever_times_do(
    monkeypatch: pytest.MonkeyPatch, dts: list[int | None], ticks: list[int]
) -> None:
    monkeypatch.setattr(s2vc_ray.ticks, "packets_of", lambda *_: (packet(one) for one in dts))
    stream: Any = SimpleNamespace(average_rate=Fraction(25), time_base=Fraction(1, 25))
    container: Any = None
    assert [tick for tick, _ in ticked_packets(container, stream)] == ticks


def test_counting_needs_a_landmark_but_at_the_very_beginning() -> None:
    for whole, wanted in ((True, None), (False, 5)):
        found = from_tick(iter([(5, packet())]), 5, whole=whole)
        assert found is not None
        assert found[1] == wanted


def test_nothing_is_found_where_the_tick_is_not() -> None:
    assert from_tick(iter([(5, packet()), (7, packet())]), 6, whole=True) is None
    assert from_tick(iter([(5, packet())]), 6, whole=True) is None
    assert from_tick(iter([]), 6, whole=True) is None
