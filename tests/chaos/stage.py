"""What all runs of a campaign share: the S3 server, the sources on it, and what an undisturbed run makes of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2vc_ray.storage import open_storage
from tests.chaos.check import Truth, digests_of
from tests.chaos.cluster import SimulatedCluster
from tests.chaos.driver import FINISHED, Driver
from tests.chaos.footage import make_footage
from tests.chaos.run import JOB, ChaosRun, Outcome, collect_garbage, inspect
from tests.chaos.schedule import Fault
from tests.chaos.store import RestartableStore, restartable_store

_UNDISTURBED_SECONDS = 600.0
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True, slots=True)
class Stage:
    """Sources are uploaded and their undisturbed archives known; `run` may begin.

    Attributes:
        truth: of the undisturbed run; each chaos run has a destination of its own.
        seconds: wall time of the undisturbed run, in one process, the loading of the codec included.
    """

    folder: Path
    store: RestartableStore
    truth: Truth
    seconds: float

    def run(self, seed: int, faults: Sequence[Fault], limit: float) -> Outcome:
        """One run on a fresh cluster with a fresh destination, and the check of what it left."""
        outcome = Outcome(seed)
        try:
            self._run(outcome, faults, limit)
        except Exception as error:  # of the harness or the check: this run proved nothing, the next may
            outcome.violations.append(f"the run broke: {type(error).__name__}: {error}")
        return outcome

    def _run(self, outcome: Outcome, faults: Sequence[Fault], limit: float) -> None:
        scratch = self.folder / f"run-{outcome.seed}"
        scratch.mkdir()
        truth = replace(self.truth, destination=f"s3://{self.store.server.new_bucket()}/out")
        # Ray's sockets lie under this folder, and their paths may have 107 bytes.
        ray_folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        try:
            with contextlib.closing(SimulatedCluster(ray_folder, _THREADS)) as cluster:
                ChaosRun(outcome, faults, truth, cluster, self.store, scratch, limit).run()
        finally:
            shutil.rmtree(ray_folder, ignore_errors=True)
        outcome.left_over = collect_garbage(truth)
        outcome.report = inspect(truth, scratch)
        outcome.violations += outcome.report["violations"]


@contextlib.contextmanager
def staged(folder: Path, *, short: bool = False) -> Iterator[Stage]:
    """Start the server, make and upload the clips, compress them once in peace, and check that.

    Raises:
        RuntimeError: the undisturbed run already went wrong.
    """
    clips = tuple(make_footage(folder / "footage", short=short))
    with restartable_store(folder / "store") as store, _environment({**store.server.env, **_THREADS}):
        sources = f"s3://{store.server.new_bucket()}/raw"
        storage = open_storage(sources)
        for clip in clips:
            storage.put_file(clip.name, folder / "footage" / clip.name)
        truth = Truth(f"s3://{store.server.new_bucket()}/out", sources, clips, digests_of(sources))
        begun = time.monotonic()
        driver = Driver([sources, truth.destination, *JOB, "--executor", "local"], folder / "undisturbed.log")
        code = driver.wait(_UNDISTURBED_SECONDS)
        seconds = time.monotonic() - begun
        collect_garbage(truth)
        report = inspect(truth, folder)
        if code not in FINISHED or report["violations"]:
            raise RuntimeError(f"the undisturbed run failed: {report['violations']}\n{driver.last_words()}")
        yield Stage(folder, store, replace(truth, archives=report["archives"]), seconds)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
