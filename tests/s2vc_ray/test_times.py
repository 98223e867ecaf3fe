"""``Times`` behaves as the tuple of the same numbers, in a fifth of the memory, and shares what it is cut from."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2vc_ray.times import Times

INT64 = st.integers(-(2**63), 2**63 - 1)
BOUND = st.none() | st.integers(-9, 9)


@given(st.lists(INT64, max_size=8), BOUND, BOUND, st.sampled_from([None, 1, 2, -1]), st.integers(-9, 9))
def test_is_a_tuple_to_whoever_reads_it(
    values: list[int], start: int | None, stop: int | None, step: int | None, index: int
) -> None:
    times, same = Times(values), tuple(values)
    assert times == same
    assert same == times
    assert hash(times) == hash(same)
    assert list(times) == values
    assert len(times) == len(values)
    assert bool(times) == bool(values)
    part = times[start:stop:step]
    assert isinstance(part, Times)
    assert part == same[start:stop:step]
    assert part[1:3] == same[start:stop:step][1:3]
    assert pickle.loads(pickle.dumps(part)) == part
    assert Times.from_bytes(np.array(values, np.int64).tobytes()) == times
    assert list(pairwise(part)) == list(pairwise(same[start:stop:step]))
    if -len(values) <= index < len(values):
        assert times[index] == same[index]
    else:
        with pytest.raises(IndexError):
            times[index]


def test_differs_from_what_is_not_the_same() -> None:
    times = Times([1, 2, 3])
    assert times != (1, 2)
    assert times != (1, 2, 4)
    assert times != Times([1, 2, 4])
    assert times[:2] != times[1:]
    assert times != "123"
    with pytest.raises(OverflowError):
        Times([2**63])


def test_a_stretch_is_pickled_alone() -> None:
    times = Times(range(100_000))
    assert len(pickle.dumps(times[500:532])) < 400
    assert bisect_right(times, 777) == 778
    assert repr(times[3:]) == "Times(3, 4, 5, 6, … 99997 in all)"
