"""What became of one case."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from s2vc_model.errors import ModelError
from s2vc_ray.errors import S2vcError

_Result = TypeVar("_Result")
_TREES = (S2vcError, ModelError)


@dataclass
class Case:
    """One damaged thing and what its readers did.

    Attributes:
        number: the case's number; with the run's seed it makes the same case again.
        how: what was done to it.
        original: what it was before.
        steps: what each way of reading ended in: "ok", or the class of the project's own error.
        violations: what must not be.
        seconds: CPU time of the worker's process.
    """

    number: int
    how: str
    original: str
    steps: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)

    def step(self, name: str, read: Callable[[], _Result]) -> _Result | None:
        """Run one way of reading. Errors of the project's own trees are an outcome, any other is a violation."""
        try:
            result = read()
        except _TREES as error:
            self.steps[name] = type(error).__name__
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.steps[name] = "escaped"
            place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
            self.violations.append(f"{name}: {type(error).__name__}: {str(error)[:200]} ({place})")
        else:
            self.steps.setdefault(name, "ok")
            return result
        return None
