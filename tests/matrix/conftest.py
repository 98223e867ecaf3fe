"""The sources of the cases, each made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.matrix.case import Case, NotInstalled


@pytest.fixture(scope="session")
def source_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """Gives a case's source, or skips the test where it is not to be had."""
    made: dict[str, Path] = {}

    def make(case: Case) -> Path:
        if case.name not in made:
            try:
                made[case.name] = case.make(tmp_path_factory.mktemp("source"))
            except NotInstalled as missing:
                pytest.skip(str(missing))
        return made[case.name]

    return make
