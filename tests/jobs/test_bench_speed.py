"""Speed is measured in processes of their own."""

from __future__ import annotations

import pytest
from rich.console import Console

from jobs.bench_speed import SpeedOptions
from jobs.bench_speed_report import print_speed
from tests.fakes import load_fake


def test_speed_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = SpeedOptions(model="fake", device="cpu", gop=2, rounds=2, threads=1)
    print_speed(chosen, load_fake, [("synthetic", "CIF")], Console(width=200))
    text = capsys.readouterr().out
    assert "352x288" in text
    assert "2 rounds" in text
