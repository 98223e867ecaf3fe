"""Places in a video as people write them: ``12:34``, ``1:02:03.5``, ``90``, or a frame's number, ``#120``.

Knows no video: what a place means in one is `access`'s affair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from s2vc_ray.errors import ConfigError

_TIME = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_FRAME = re.compile(r"#(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class FrameNumber:
    """A frame by its number in the source, counted from 0."""

    number: int

    def __str__(self) -> str:
        return f"#{self.number}"


Moment: TypeAlias = Fraction | FrameNumber
"""Seconds since the first picture, or a frame."""


def parse_time(text: str) -> Fraction:
    """Seconds from ``[[h:]m:]s``, the seconds with a decimal fraction if need be; exact.

    Raises:
        ConfigError: not such a time.
    """
    found = _TIME.fullmatch(text.strip())
    seconds = Fraction(found[3]) if found and len(text) <= 40 else None
    if not found or seconds is None or (found[2] is not None and seconds >= 60):
        raise ConfigError(f"{text!r} is no time: write it as 1:02:03.5, 12:34 or 754.2")
    return int(found[1] or 0) * 3600 + int(found[2] or 0) * 60 + seconds


def parse_moment(text: str) -> Moment:
    """A time as `parse_time` reads it, or a frame as ``#120``.

    Raises:
        ConfigError: neither.
    """
    found = _FRAME.fullmatch(text.strip())
    return FrameNumber(int(found[1])) if found else parse_time(text)


def clock(seconds: Fraction) -> str:
    """``seconds`` as ``h:mm:ss.fff``, rounded to the millisecond."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
