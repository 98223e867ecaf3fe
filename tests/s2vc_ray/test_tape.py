"""A tape gives what a new reading gives from a keyframe on, and says when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

import av
import pytest

import s2vc_ray.tape
from s2vc_ray.tape import Labelled, Tape


def packets(count: int, every: int, bytes_each: int = 10) -> Iterator[Labelled]:
    """Labelled 0, 1, 2, ..., with keyframes so far apart."""
    for label in range(count):
        packet = av.Packet(bytes(bytes_each))
        packet.is_keyframe = label % every == 0
        yield label, packet


def played(tape: Tape, count: int) -> list[int]:
    return [label for label, _ in islice(tape.play(), count)]


def test_what_is_at_hand_comes_again_and_then_what_follows() -> None:
    tape = Tape(packets(100, 10), ExitStack(), 25)
    assert played(tape, 32) == list(range(32))
    assert played(tape, 20) == list(range(20, 40)), "from the last keyframe at or before the floor"
    assert not tape.whole
    assert [tape.holds(label) for label in (10, 19, 20, 30)] == [False, False, True, True]
    tape.keep_from(39)
    assert played(tape, 99) == list(range(30, 100))
    tape.keep_from(39)
    assert played(tape, 99) == list(range(30, 100))


def test_it_is_whole_until_something_is_gone() -> None:
    tape = Tape(packets(100, 10), ExitStack(), 5)
    assert played(tape, 50) == list(range(50))
    assert tape.whole
    assert tape.holds(0)
    tape.keep_from(9)
    assert tape.whole
    tape.keep_from(10)
    assert not tape.whole


def test_memory_is_bounded_and_what_is_left_begins_with_a_keyframe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s2vc_ray.tape, "_MOST_BYTES", 20 * (1000 + 1024))
    tape = Tape(packets(200, 50, 1000), ExitStack(), 0)
    assert played(tape, 60) == list(range(60))
    assert [tape.holds(label) for label in (20, 41, 42, 50)] == [False, False, False, True]
    assert played(tape, 3) == [50, 51, 52]
    assert played(tape, 30) == list(range(50, 80))
    assert played(tape, 2) == [100, 101], "nothing is at hand between the limit and the next keyframe"
    assert not tape.holds(75)


def test_times_that_are_missing_or_fall_back_are_never_missed() -> None:
    source = list(packets(6, 1))
    labels = [0, 40, 20, s2vc_ray.tape.NO_LABEL, 30, 50]
    tape = Tape(((label, packet) for label, (_, packet) in zip(labels, source, strict=True)), ExitStack(), 30)
    assert played(tape, 6) == labels
    assert not tape.holds(40), "it is gone, though it is behind the floor"
    assert tape.holds(41)
    assert played(tape, 9) == [30, 50]


def test_it_closes_what_it_reads_from() -> None:
    closed = []
    with ExitStack() as resources:
        resources.callback(lambda: closed.append(True))
        tape = Tape(packets(3, 1), resources.pop_all(), 0)
    assert not closed
    tape.close()
    assert closed
