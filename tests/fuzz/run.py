"""Many cases in worker processes. One that crashes or hangs is told with the number of its case, and replaced."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LIMIT = 10.0
"""CPU seconds that one case may take."""
_WALL = 12
"""Wall-clock seconds for one of them: a machine may be busy, and a case may wait for something."""
_START = 180.0
_ROOT = Path(__file__).parents[2]


@dataclass
class Found:
    """What a run has found.

    Attributes:
        cases: how many were run.
        how: what was done to how many of them.
        steps: ways of reading -> what they ended in -> how often.
        violations: what must not be, each with the number that makes it again.
        slowest: CPU seconds of the slowest case.
    """

    cases: int = 0
    how: dict[str, int] = field(default_factory=dict)
    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, line: str) -> None:
        """Count one case."""
        case = json.loads(line)
        self.cases += 1
        self.how[case["how"]] = self.how.get(case["how"], 0) + 1
        for step, outcome in case["steps"].items():
            outcomes = self.steps.setdefault(step, {})
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        self.violations += [
            f"case {case['number']} ({case['original']}, {case['how']}): {one}" for one in case["violations"]
        ]
        self.slowest = max(self.slowest, case["seconds"])


@dataclass(frozen=True, slots=True)
class Plan:
    """``count`` cases of ``kind`` ("archives", "sources" or "payloads") from the originals in ``folder``.

    ``deep`` is as for `tests.fuzz.worker`; ``workers`` run side by side.
    """

    kind: str
    folder: Path
    count: int
    seed: int = 1
    deep: int = 20
    workers: int = 2


def run(plan: Plan, progress: Callable[[Found], None] = lambda found: None) -> Found:
    """Run all cases."""
    found, lock = Found(), threading.Lock()

    def lane(first: int) -> None:
        while first < plan.count:
            first = _one_worker(plan, first, found, lock, progress)

    with ThreadPoolExecutor(plan.workers) as lanes:
        list(lanes.map(lane, range(plan.workers)))
    return found


def _one_worker(
    plan: Plan, first: int, found: Found, lock: threading.Lock, progress: Callable[[Found], None]
) -> int:
    """Run cases from ``first`` on in one process, until all are done or it ends; the number to go on from."""
    numbers = map(str, (plan.seed, first, plan.workers, plan.count, plan.deep))
    command = [sys.executable, "-m", "tests.fuzz.worker", plan.kind, str(plan.folder), *numbers]
    # A worker that is killed clears nothing up.
    scratch = tempfile.mkdtemp(prefix="s2vc-fuzz-worker-")
    worker = subprocess.Popen(
        command,
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": scratch},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    errors: list[str] = []
    assert worker.stdout is not None
    assert worker.stderr is not None
    readers = [
        threading.Thread(target=_pump, args=(worker.stdout, lines.put)),
        threading.Thread(target=_pump, args=(worker.stderr, lambda line: _keep(errors, line))),
    ]
    for reader in readers:
        reader.start()
    try:
        if _next_line(worker, lines, _START, _START) != "ready":
            raise RuntimeError(f"a fuzz worker did not start: {''.join(errors)}")
        for number in range(first, plan.count, plan.workers):
            begun = time.monotonic()
            line = _next_line(worker, lines, LIMIT, LIMIT * _WALL)
            seconds = time.monotonic() - begun
            with lock:
                if not line.startswith("{"):
                    how = "hung" if line == "slow" else _death(worker, errors)
                    found.cases += 1
                    found.violations.append(
                        f"case {number}: {how} after {seconds:.1f} s: {''.join(errors)[-500:]}"
                    )
                    return number + plan.workers
                found.add(line)
                progress(found)
        return plan.count
    finally:
        worker.kill()
        worker.wait()
        for reader in readers:
            reader.join()
        shutil.rmtree(scratch, ignore_errors=True)


def _pump(stream: object, put: Callable[[str], None]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        put(line.rstrip("\n"))
    put("")


def _keep(errors: list[str], line: str) -> None:
    errors.append(f"{line}\n")
    del errors[:-20]


def _next_line(worker: subprocess.Popen[str], lines: queue.Queue[str], cpu: float, wall: float) -> str:
    """The worker's next line; empty when it has ended, "slow" when it took longer than it may."""
    begun, spent = time.monotonic(), _cpu_seconds(worker)
    while True:
        try:
            return lines.get(timeout=0.5)
        except queue.Empty:
            if _cpu_seconds(worker) - spent > cpu or time.monotonic() - begun > wall:
                return "slow"


def _cpu_seconds(worker: subprocess.Popen[str]) -> float:
    try:
        times = psutil.Process(worker.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _death(worker: subprocess.Popen[str], errors: list[str]) -> str:
    code = worker.wait()
    if code > 0 and any("Traceback" in line for line in errors):
        raise RuntimeError(f"the harness itself failed: {''.join(errors)}")
    return (
        f"killed its process by {signal.Signals(-code).name}" if code < 0 else f"ended its process ({code})"
    )
