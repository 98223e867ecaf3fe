"""The cases and their results as `docs/media-matrix.md`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.matrix.case import Case

DOCUMENT = Path(__file__).parents[2] / "docs" / "media-matrix.md"

_HEAD = """\
# The media matrix

Each line is a source that `tests/matrix` makes, compresses, decompresses and checks; `python -m tests.matrix` writes
this page from what the checks return, and the tests fail where it says anything else. The codec under the checks is
the small fake one of the tests: everything here is about what surrounds the pictures, and about which pictures there
are. Another test decodes every source that is not refused by GOPs and straight through, and compares the digests of
all frames; a third compares GOPs that are read alone with what a worker reads, which holds sources open, in five
orders.

| case | what must survive | result |
|---|---|---|
"""


def line(case: Case, result: str) -> str:
    """The case's line in the table."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in (case.name, case.survives, result)) + " |"


def document(results: Iterable[tuple[Case, str]]) -> str:
    """The whole page."""
    return _HEAD + "".join(f"{line(case, result)}\n" for case, result in results)
