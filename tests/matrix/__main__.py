"""``python -m tests.matrix``: run every case and write `docs/media-matrix.md`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.matrix.case import run_case
from tests.matrix.cases import CASES
from tests.matrix.table import DOCUMENT, document


def main() -> None:
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(CASES):
            made, ran = Path(scratch, f"{number}-made"), Path(scratch, f"{number}-ran")
            made.mkdir()
            ran.mkdir()
            results.append((case, run_case(case, case.make(made), ran)))
    DOCUMENT.write_text(document(results))
    print(f"{len(results)} cases in {DOCUMENT.name}")


if __name__ == "__main__":
    main()
