"""Checkpoints are written on time, and the time that the last one takes is left for it."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch import Tensor

from s2vc_model.train.keeper import MARGIN, SLOWEST_DISK, Ending, Keeper


def test_writes_are_due_by_the_clock() -> None:
    written: list[tuple[int, bool]] = []

    def write(tensors: dict[str, Tensor], steps: int, complete: bool) -> None:
        written.append((steps, complete))

    keeper = Keeper(write, 10, 0)
    assert not keeper.due(9.9)
    assert keeper.due(10)
    keeper.keep({}, 7, 12, complete=False)
    assert not keeper.due(21.9)
    assert keeper.due(22.1)
    keeper.keep({}, 8, 23, complete=True)
    assert written == [(7, False), (8, True)]


def test_the_time_left_for_the_last_write_follows_the_slowest() -> None:
    pauses = iter((0.05, 0.2, 0.01))

    def write(tensors: dict[str, Tensor], steps: int, complete: bool) -> None:
        time.sleep(next(pauses))

    keeper = Keeper(write, 10, int(3 * SLOWEST_DISK))
    assert keeper.reserve_s == pytest.approx(3 * MARGIN)
    seen = []
    for _ in range(3):
        keeper.keep({"x": torch.zeros(1)}, 0, 0, complete=False)
        seen.append(keeper.reserve_s)
    assert 0.05 * MARGIN <= seen[0] < 0.2 * MARGIN <= seen[1] == seen[2]


def test_the_first_signal_asks_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ending = Ending()
    with ending.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.signal is signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is not None
