"""Places in a video as people write them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from s2vc_ray.errors import ConfigError
from s2vc_ray.moments import FrameNumber, clock, parse_moment, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", Fraction(0)),
        ("90", Fraction(90)),
        ("754.2", Fraction(7542, 10)),
        (".5", Fraction(1, 2)),
        ("12:34", Fraction(754)),
        ("12:34.5", Fraction(1509, 2)),
        ("1:02:03.040", Fraction(372304, 100)),
        ("100:00:00", Fraction(360000)),
        (" 7 ", Fraction(7)),
    ],
)
def test_times_are_exact(text: str, seconds: Fraction) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-3", "1:60", "1:99:00", "1:2:3:4", "12:", ":30", "1e3", "1,5", "#5", "١٢", "9" * 41, "1/2"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="12:34"):
        parse_time(text)


def test_frames_have_numbers() -> None:
    assert parse_moment("#120") == FrameNumber(120)
    assert parse_moment("2:00") == Fraction(120)
    with pytest.raises(ConfigError):
        parse_moment("#-1")


def test_clock() -> None:
    assert clock(Fraction(7542, 10)) == "0:12:34.200"
    assert clock(Fraction(36000)) == "10:00:00.000"
    assert clock(Fraction(59_999_6, 10_000)) == "0:01:00.000"
