"""One chaos run: start the job, break what the schedule says when it says so, and check what is left."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from s2vc_ray.sources import Source
from s2vc_ray.staging import STAGING
from tests.chaos.check import Truth
from tests.chaos.cluster import SimulatedCluster, resume, stop
from tests.chaos.driver import FINISHED, Driver
from tests.chaos.footage import GOP, Clip
from tests.chaos.schedule import Fault
from tests.chaos.store import RestartableStore

_TICK_SECONDS = 0.2
_RESTARTS = 6
"""How often a driver that ended by itself, unfinished, is started again."""
JOB = ["--gop", str(GOP), "--metrics", "none", "--threads", "1", "--allow-larger"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to the cluster, ``at`` seconds after the first driver was started."""

    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.at:.0f}s {self.what}"


@dataclass(slots=True)
class Outcome:
    """One run.

    Attributes:
        events, missed: faults that were injected, and those that the job was too quick for.
        drivers: how many were started; ``gave_up`` holds the last words of those that ended by themselves, unfinished.
        retries: of requests and batches, counted by the drivers that lived to say so.
        seconds: until the last driver had ended.
        left_over: what ``s2vc gc`` removed afterwards; see `collect_garbage`.
        report: what `tests.chaos.check` found.
    """

    seed: int
    events: list[Event] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    drivers: int = 0
    gave_up: list[str] = field(default_factory=list)
    retries: int = 0
    seconds: float = 0.0
    left_over: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong."""
        return not self.violations


class ChaosRun:
    """A job under fire.

    Args:
        outcome: written to as things happen.
        faults: what to break.
        truth: where the job reads and writes.
        cluster, store: what can be broken.
        logs: folder for the drivers' output.
        limit: seconds after which the run is given up.
    """

    def __init__(
        self,
        outcome: Outcome,
        faults: Sequence[Fault],
        truth: Truth,
        cluster: SimulatedCluster,
        store: RestartableStore,
        logs: Path,
        limit: float,
    ) -> None:
        self._outcome = outcome
        self._faults = list(faults)
        self._due: dict[Fault, float] = {}
        self._truth = truth
        self._cluster = cluster
        self._store = store
        self._logs = logs
        self._limit = limit
        self._drivers: list[Driver] = []
        self._mend: list[tuple[float, Callable[[], object]]] = []
        self._progress = Progress(truth, store)
        self._begun = time.monotonic()

    def run(self) -> None:
        """Until every driver has finished, or time is up."""
        self._start_driver()
        try:
            while not self._ended():
                self._mend_due()
                self._break_due()
                time.sleep(_TICK_SECONDS)
                if self._now() > self._limit:
                    self._outcome.violations.append(f"the job did not end within {self._limit:.0f} s")
                    break
        finally:
            self._outcome.seconds = self._now()
            self._outcome.missed = [str(fault) for fault in self._faults]
            for driver in self._drivers:
                driver.crash()
            for _, repair in self._mend:
                repair()

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _ended(self) -> bool:
        for driver in [driver for driver in self._drivers if driver.code is not None]:
            self._drivers.remove(driver)
            self._outcome.retries += driver.retries()
            if driver.code not in FINISHED:
                self._gave_up(driver)
        return not self._drivers and not self._restarting

    def _gave_up(self, driver: Driver) -> None:
        self._note(f"driver ended with {driver.code}")
        self._outcome.gave_up.append(driver.last_words())
        if len(self._outcome.gave_up) > _RESTARTS:
            self._outcome.violations.append(f"drivers gave up {_RESTARTS} times: {driver.last_words()}")
        else:
            self._later(2.0, self._start_driver)

    @property
    def _restarting(self) -> bool:
        return any(repair == self._start_driver for _, repair in self._mend)

    def _start_driver(self) -> None:
        self._outcome.drivers += 1
        arguments = [self._truth.sources, self._truth.destination, "--ray-address", self._cluster.address]
        log = self._logs / f"driver-{self._outcome.drivers}.log"
        self._drivers.append(Driver([*arguments, *JOB, "--workers", "2"], log))

    def _mend_due(self) -> None:
        for entry in [entry for entry in self._mend if entry[0] <= self._now()]:
            self._mend.remove(entry)
            entry[1]()

    def _later(self, seconds: float, repair: Callable[[], object]) -> None:
        self._mend.append((self._now() + seconds, repair))

    def _break_due(self) -> None:
        progress = self._progress.share()
        for fault in list(self._faults):
            if progress >= fault.progress:
                due = self._due.setdefault(fault, self._now() + fault.delay)
                if self._now() >= due and (done := self._break(fault)):
                    self._faults.remove(fault)
                    self._note(f"{done} at {progress:.0%}")

    def _note(self, what: str) -> None:
        self._outcome.events.append(Event(self._now(), what))

    def _break(self, fault: Fault) -> str | None:
        """Do it and say so; None when there is nothing to be hit yet."""
        hit: Callable[[Fault], bool] = getattr(self, f"_break_{fault.kind}")
        return str(fault) if hit(fault) else None

    def _break_actor(self, fault: Fault) -> bool:
        victim = _choose(self._cluster.encoders(), fault)
        return _kill(victim)

    def _break_task(self, fault: Fault) -> bool:
        victim = _choose(self._cluster.tasks(), fault)
        return _kill(victim)

    def _break_slow(self, fault: Fault) -> bool:
        victim = _choose(self._cluster.encoders(), fault)
        if victim:
            stop(victim)
            self._later(fault.down, lambda: resume(victim))
        return victim is not None

    def _break_node(self, fault: Fault) -> bool:
        return self._remove(fault, self._cluster.crash)

    def _break_drain(self, fault: Fault) -> bool:
        return self._remove(fault, self._cluster.drain)

    def _remove(self, fault: Fault, end: Callable[[Any], None]) -> bool:
        node = _choose(self._cluster.nodes, fault)
        if node:
            end(node)
            self._later(fault.down, self._cluster.join)
        return node is not None

    def _break_join(self, fault: Fault) -> bool:
        node = self._cluster.join()
        self._later(fault.down, lambda: self._cluster.crash(node))
        return True

    def _break_driver(self, fault: Fault) -> bool:
        driver = _choose(self._drivers, fault)
        if driver:
            self._drivers.remove(driver)
            driver.crash()
            self._later(fault.down, self._start_driver)
        return driver is not None

    def _break_twin(self, _: Fault) -> bool:
        self._start_driver()
        return True

    def _break_store(self, fault: Fault) -> bool:
        if not self._store.up:
            return False
        self._store.crash()
        self._later(fault.down, self._store.restart)
        return True


class Progress:
    """How much of a job is done, as its destination shows it; the last figure while the store is down."""

    def __init__(self, truth: Truth, store: RestartableStore) -> None:
        quick = Config(
            s3={"addressing_style": "path"},
            connect_timeout=1,
            read_timeout=5,
            retries={"total_max_attempts": 1},
        )
        server = store.server
        self._client = boto3.session.Session().client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name="us-east-1",
            config=quick,
        )
        self._bucket, _, self._prefix = truth.destination.removeprefix("s3://").partition("/")
        compressed = [clip for clip in truth.clips if clip.status != "failed"]
        self._gops = {clip.name: clip.gops for clip in compressed}
        self._names = {_video_id(truth, clip): clip.name for clip in compressed}
        self._share = 0.0

    def share(self) -> float:
        """GOPs of compressible videos that are staged or in an archive, over all of them."""
        with contextlib.suppress(ClientError, BotoCoreError):
            keys = [key.removeprefix(f"{self._prefix}/") for key in self._keys()]
            done = dict.fromkeys(self._gops, 0)
            for key in keys:
                name = self._names.get(key.removeprefix(f"{STAGING}/").partition("/")[0])
                if key.startswith(STAGING) and name:
                    done[name] += 1
            done |= {name: gops for name, gops in self._gops.items() if f"{name}.s2vc" in keys}
            self._share = sum(done.values()) / sum(self._gops.values())
        return self._share

    def _keys(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]


def inspect(truth: Truth, scratch: Path, seconds: float = 300.0) -> dict[str, Any]:
    """Have a fresh process look at the destination; what `tests.chaos.check` printed.

    Raises:
        RuntimeError: the check itself broke.
    """
    place = scratch / "truth.json"
    place.write_text(truth.to_json())
    command = [sys.executable, "-m", "tests.chaos.check", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise RuntimeError(f"the check broke: {done.stderr[-2000:]}") from None
    return report


def collect_garbage(truth: Truth) -> int:
    """Run ``s2vc gc``, as an operator would after the job.

    Returns:
        Objects and uploads removed that a finished job should not have left: all but what failed videos have staged.

    Raises:
        RuntimeError: it broke.
    """
    command = [sys.executable, "-m", "s2vc_ray.cli", "gc", truth.destination, "--older-than", "0s", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"s2vc gc broke: {done.stderr[-2000:]}")
    failed = [f"{STAGING}/{_video_id(truth, clip)}" for clip in truth.clips if clip.status == "failed"]
    removed = json.loads(done.stdout)["removed"]
    return sum(each["objects"] for each in removed if not each["name"].startswith(tuple(failed)))


def _video_id(truth: Truth, clip: Clip) -> str:
    return Source(f"{truth.sources.rstrip('/')}/{clip.name}", clip.name).video_id


def _kill(victim: psutil.Process | None) -> bool:
    if victim is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()
    return True


def _choose(candidates: Sequence[Any], fault: Fault) -> Any | None:
    """The one that ``fault`` picks; None when there is none."""
    return candidates[int(fault.pick * len(candidates))] if candidates else None
