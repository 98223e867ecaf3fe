"""Many chaos runs, one line each: a job on a simulated cluster whose parts are killed while it works.

The runs themselves live in ``tests/chaos``, which is part of a checkout and not of the installed package.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from s2vc_ray.errors import ConfigError

if TYPE_CHECKING:
    from tests.chaos.run import Outcome

_SUMS = ("lost", "duplicated", "described_again", "failed_before", "attempts")


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """``runs`` seeds from ``seed`` on, each given up after ``limit`` seconds; ``out`` keeps logs and results."""

    runs: int = 20
    seed: int = 1
    limit: float = 420.0
    out: Path | None = None


def run_chaos(options: ChaosOptions, report: Callable[[Outcome], None]) -> list[Outcome]:
    """All runs, each told to ``report`` as it ends.

    Raises:
        ConfigError: this is no checkout, or the packages that tests need are missing.
    """
    try:
        from tests.chaos.schedule import draw
        from tests.chaos.stage import staged
    except ImportError as error:
        raise ConfigError(
            f"chaos runs from a checkout with the dev and demo extras installed ({error})"
        ) from error
    folder = Path(tempfile.mkdtemp(prefix="s2vc-chaos-"))
    outcomes = []
    try:
        with staged(folder) as stage:
            print(f"undisturbed, in one process: {stage.seconds:.0f} s", file=sys.stderr, flush=True)
            for seed in range(options.seed, options.seed + options.runs):
                outcome = stage.run(seed, draw(seed), options.limit)
                outcomes.append(outcome)
                report(outcome)
                if options.out:
                    _keep(outcome, folder / f"run-{seed}", options.out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def line(outcome: Outcome) -> str:
    """One run as one line."""
    events = ", ".join(map(str, outcome.events))
    missed = f"; never due: {', '.join(outcome.missed)}" if outcome.missed else ""
    verdict = "ok" if outcome.clean else f"VIOLATED: {'; '.join(outcome.violations)}"
    return (
        f"seed {outcome.seed}: {events}{missed} | {outcome.drivers} drivers, {len(outcome.gave_up)} gave up, "
        f"{outcome.retries} retries, {outcome.left_over} left over | {outcome.seconds:.0f} s | {verdict}"
    )


def totals(outcomes: list[Outcome]) -> dict[str, int | float]:
    """Sums over runs."""
    sums = {name: sum(outcome.report.get(name, 0) for outcome in outcomes) for name in _SUMS}
    return {
        "runs": len(outcomes),
        "clean": sum(outcome.clean for outcome in outcomes),
        "faults": sum(len(outcome.events) for outcome in outcomes),
        "drivers": sum(outcome.drivers for outcome in outcomes),
        "gave_up": sum(len(outcome.gave_up) for outcome in outcomes),
        "gops": sum(outcome.report.get("gops", 0) for outcome in outcomes),
        "retries": sum(outcome.retries for outcome in outcomes),
        **sums,
        "left_over": sum(outcome.left_over for outcome in outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
    }


def print_chaos(options: ChaosOptions, console: Console, *, as_json: bool) -> bool:
    """Run, print, and say whether every run was clean."""

    def report(outcome: Outcome) -> None:
        if as_json:
            print(line(outcome), file=sys.stderr, flush=True)
        else:
            console.print(line(outcome), markup=False, highlight=False, soft_wrap=True)

    outcomes = run_chaos(options, report)
    sums = totals(outcomes)
    if as_json:
        print(json.dumps({"runs": [asdict(outcome) for outcome in outcomes], "totals": sums}, indent=2))
    else:
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sums.items())
        console.print(f"total: {text}", markup=False, highlight=False, soft_wrap=True)
    return all(outcome.clean for outcome in outcomes)


def _keep(outcome: Outcome, logs: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "runs.jsonl").open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")
    shutil.copytree(logs, out / logs.name, dirs_exist_ok=True)
