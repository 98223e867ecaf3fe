"""The tables of an MP4 or MOV tell of every case what its packets tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import probe as probing
from s2vc_ray.errors import SourceError
from s2vc_ray.probe import probe
from s2vc_ray.sample_tables import table_timeline
from s2vc_ray.timeline import Timeline
from s2vc_ray.values import VideoInfo
from tests.matrix.case import Case
from tests.matrix.cases import CASES


def told(source: Path, *, tables: bool) -> VideoInfo | str:
    try:
        return probe(source, tables=tables)
    except SourceError as error:
        return str(error)


UNTOLD = frozenset(
    {
        "mp4 edit list that hides the last 14 of 24 frames",
        "mp4 edit list that shows the end before the beginning",
        "no keyframe but the first (intra refresh)",
        "fragmented mp4",
        "mp4 whose table of keyframes is off by one",
        "truncated mp4, moov first",
    }
)
"""What only the packets tell of."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tables_tell_what_packets_tell(
    case: Case, source_of: Callable[[Case], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, answers = source_of(case), []

    def asked(*arguments: Any) -> Timeline | None:
        answers.append(table_timeline(*arguments))
        return answers[-1]

    monkeypatch.setattr(probing, "table_timeline", asked)
    by_tables = told(source, tables=True)
    assert by_tables == told(source, tables=False)
    if answers:
        assert (answers[0] is None) == (case.name in UNTOLD)
    elif source.suffix in (".mp4", ".mov"):
        assert isinstance(by_tables, str), "never asked, though the source was not refused"
