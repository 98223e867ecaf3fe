"""When frames are shown: variable rates, edit lists, late and negative first times, huge offsets."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from tests.matrix.case import Case, Run
from tests.matrix.facts import shown
from tests.media import make_clip

_VFR = [0, 1001, 1500, 4004, 5005, 9009, 9010, 12012, 13013, 30030]


def _variable(folder: Path) -> Path:
    return make_clip(folder / "vfr.mp4", pts=_VFR, time_base=Fraction(1, 30000))


def _exact(source: Path, run: Run) -> str:
    times = shown(source)
    assert [pts * run.reader.header.time_base for pts in run.pts] == times
    assert shown(run.output(".mp4")) == times
    return f"{len(times)} times exact in archive and .mp4"


CASES = (Case("variable frame rate, mp4, 1/30000 s", "every time stamp", _variable, _exact),)
