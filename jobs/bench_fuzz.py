"""Damaged and forged archives and damaged source videos by the thousand, and what their readers did.

The cases and the processes that run them live in ``tests/fuzz``, which is part of a checkout and not of the installed
package.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from s2vc_ray.errors import ConfigError

if TYPE_CHECKING:
    from tests.fuzz.run import Found, Plan

_TOLD = 20
"""Violations that are printed."""


@dataclass(frozen=True, slots=True)
class FuzzOptions:
    """How many cases of each kind; of every ``deep``-th archive symbols are decoded too. ``payloads`` are AV1's."""

    archives: int = 20_000
    videos: int = 300
    seed: int = 1
    deep: int = 20
    workers: int = 2
    payloads: int = 0


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """What was found of one kind of case, after so many seconds."""

    kind: str
    seconds: float
    found: Found


def run_fuzz(options: FuzzOptions) -> list[FuzzResult]:
    """Run all cases.

    Raises:
        ConfigError: this is no checkout, or the packages that tests need are missing.
    """
    try:
        from tests.fuzz.originals import lay_out
        from tests.fuzz.run import Plan, run
    except ImportError as error:
        raise ConfigError(f"fuzzing runs from a checkout with the dev extra installed ({error})") from error
    folder = Path(tempfile.mkdtemp(prefix="s2vc-fuzz-"))
    results = []
    try:
        archives, sources, payloads = lay_out(folder)
        for kind, place, count in (
            ("archives", archives, options.archives),
            ("sources", sources, options.videos),
            ("payloads", payloads, options.payloads),
        ):
            if count:
                begun = time.monotonic()
                plan = Plan(kind, place, count, options.seed, options.deep, options.workers)
                found = run(plan, _progress(plan))
                results.append(FuzzResult(kind, round(time.monotonic() - begun, 1), found))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return results


def print_fuzz(options: FuzzOptions, console: Console, *, as_json: bool) -> bool:
    """Run, print, and say whether nothing happened that must not."""
    results = run_fuzz(options)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        for result in results:
            _print(result, options, console)
    return not any(result.found.violations for result in results)


def _print(result: FuzzResult, options: FuzzOptions, console: Console) -> None:
    found = result.found
    table = Table(title=f"{found.cases} {result.kind}, seed {options.seed}, {result.seconds:.0f} s")
    table.add_column("read by")
    table.add_column("ended in")
    for step, outcomes in found.steps.items():
        table.add_row(step, _counts(outcomes))
    console.print(table)
    lines = [
        f"done to them: {_counts(found.how)}",
        f"slowest: {found.slowest:.1f} s of CPU; violations: {len(found.violations)}",
    ]
    for line in lines + found.violations[:_TOLD]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda name: -counts[name]))


def _progress(plan: Plan) -> Callable[[Found], None]:
    step = max(1, plan.count // 10)

    def tell(found: Found) -> None:
        if found.cases % step == 0:
            bad = len(found.violations)
            print(f"{found.cases} of {plan.count} {plan.kind}, {bad} violations", file=sys.stderr, flush=True)

    return tell
