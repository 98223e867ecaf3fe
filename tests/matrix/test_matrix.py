"""Every case holds, and `docs/media-matrix.md` says what the cases give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.matrix.case import Case, run_case
from tests.matrix.cases import CASES
from tests.matrix.table import DOCUMENT, document, line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, source_of: Callable[[Case], Path], tmp_path: Path) -> None:
    result = run_case(case, source_of(case), tmp_path)
    assert line(case, result) in DOCUMENT.read_text().splitlines(), f"run python -m tests.matrix: {result}"


def test_the_page_holds_these_cases_and_no_others() -> None:
    page = DOCUMENT.read_text()
    results = [row.rpartition(" | ")[2].removesuffix(" |") for row in page.splitlines() if row[:2] == "| "][
        1:
    ]
    assert len(results) == len(CASES)
    assert page == document(zip(CASES, results, strict=True))


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
