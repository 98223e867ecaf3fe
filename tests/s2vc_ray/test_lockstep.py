"""Batches are cut in half until they fit, and no further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from s2vc_ray.lockstep import Lockstep
from tests.fakes import OutOfMemoryError

KEY = ("encode", 32, 32)


class Device:
    """Has room for so many items at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(len(items))
        if len(items) > self.room:
            raise OutOfMemoryError("CUDA out of memory")
        return [10 * item for item in items]


def test_halves_until_it_fits_and_remembers() -> None:
    lockstep, device = Lockstep(), Device(2)
    assert not lockstep.tight
    assert lockstep.run(KEY, range(9), device) == [10 * at for at in range(9)]
    assert device.calls == [9, 4, 2, 2, 2, 2, 1]
    device.calls.clear()
    lockstep.run(KEY, range(3), device)
    assert device.calls == [2, 1]
    assert lockstep.tight


def test_other_frame_sizes_are_not_held_back() -> None:
    lockstep, device = Lockstep(), Device(1)
    lockstep.run(KEY, range(2), device)
    device.room = 2
    lockstep.run(("encode", 16, 16), range(2), device)
    assert device.calls == [2, 1, 1, 2]


def test_a_single_item_is_tried_once_more_alone() -> None:
    device = Device(0)

    @contextmanager
    def alone() -> Iterator[None]:
        device.room = 1
        yield

    assert Lockstep().run(KEY, [1], device, alone=alone()) == [10]
    assert device.calls == [1, 1]


def test_what_does_not_fit_alone_is_an_error() -> None:
    device = Device(0)
    with pytest.raises(OutOfMemoryError):
        Lockstep().run(KEY, [1, 2], device)
    assert device.calls == [2, 1, 1]


def test_other_errors_pass() -> None:
    def refuse(items: Sequence[int]) -> list[int]:
        raise ValueError("no")

    lockstep = Lockstep()
    with pytest.raises(ValueError, match="no"):
        lockstep.run(KEY, [1, 2], refuse)
    assert not lockstep.tight


def test_takes_no_more_than_is_reckoned_to_fit() -> None:
    lockstep, device = Lockstep(), Device(9)
    assert lockstep.run(KEY, range(8), device, most=3) == [10 * at for at in range(8)]
    assert device.calls == [3, 3, 2]
    assert not lockstep.tight


def test_what_was_learnt_counts_where_less_fits_than_was_reckoned() -> None:
    lockstep, device = Lockstep(), Device(2)
    lockstep.run(KEY, range(8), device, most=4)
    assert device.calls == [4, 2, 2, 2, 2]
