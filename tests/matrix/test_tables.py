"""The tables of an MP4 or MOV tell of every case what its packets tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from s2vc_ray.errors import SourceError
from s2vc_ray.probe import probe
from s2vc_ray.values import VideoInfo
from tests.matrix.case import Case
from tests.matrix.cases import CASES


def told(source: Path, *, tables: bool) -> VideoInfo | str:
    try:
        return probe(source, tables=tables)
    except SourceError as error:
        return str(error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tables_tell_what_packets_tell(case: Case, source_of: Callable[[Case], Path]) -> None:
    source = source_of(case)
    assert told(source, tables=True) == told(source, tables=False)
