"""All cases, in the order of the table. A module of cases has its own ``CASES`` and one line here."""

from __future__ import annotations

from tests.matrix import containers, passthrough, pictures, times
from tests.matrix.case import Case

CASES: tuple[Case, ...] = (*times.CASES, *pictures.CASES, *containers.CASES, *passthrough.CASES)
