"""Window, retries and quarantine, whatever runs the batches."""

from __future__ import annotations

from collections import Counter

from s2vc_ray.executor import (
    BatchResult,
    CodecIdentity,
    Dispatch,
    GopBatch,
    GopFailure,
    GopOutcome,
    GopTask,
    LocalExecutor,
)
from s2vc_ray.staging import StagedGop
from s2vc_ray.usage import Usage
from s2vc_ray.values import GopSpec
from tests.fakes import staged_gop


def task(index: int) -> GopTask:
    return GopTask(GopSpec("clip.mp4", "v", index, 8 * index, tuple(range(8)), 0, 0, 32, 32), "p")


class ScriptedWorker:
    """Fails the GOPs of ``poison`` always, and those of ``flaky`` on their first attempt."""

    def __init__(self, poison: set[int], flaky: set[int]) -> None:
        self.poison, self.flaky = poison, flaky
        self.tries: Counter[int] = Counter()
        self.sizes: list[int] = []

    def identity(self) -> CodecIdentity:
        return CodecIdentity("fake", "00", "fake", "cpu", "")

    def encode(self, batch: GopBatch) -> BatchResult:
        self.sizes.append(len(batch.tasks))
        return BatchResult(batch, tuple(self._one(one, batch.attempt) for one in batch.tasks))

    def usage(self) -> Usage:
        return Usage()

    def _one(self, gop: GopTask, attempt: int) -> GopOutcome:
        index = gop.spec.index
        self.tries[index] += 1
        if index in self.poison or (index in self.flaky and attempt == 1):
            return GopFailure(gop, "SourceError", "bad", attempt)
        return staged_gop(index)


def run(worker: ScriptedWorker, batches: list[GopBatch], attempts: int = 3) -> list[GopOutcome]:
    executor = LocalExecutor(lambda: worker)
    executor.start()
    waiting = iter(batches)
    tries: list[tuple[int, bool]] = []
    dispatch = Dispatch(executor, attempts, lambda failure, final: tries.append((failure.attempts, final)))
    outcomes: list[GopOutcome] = []
    while True:
        dispatch.fill(lambda: next(waiting, None))
        if dispatch.idle:
            assert [final for _, final in tries].count(True) == sum(
                isinstance(o, GopFailure) for o in outcomes
            )
            return outcomes
        outcomes += dispatch.collect()


def test_poison_is_quarantined_and_its_neighbours_finish() -> None:
    worker = ScriptedWorker(poison={1}, flaky={2})
    outcomes = run(worker, [GopBatch((task(0), task(1), task(2))), GopBatch((task(3),))])
    assert sorted(o.index for o in outcomes if isinstance(o, StagedGop)) == [0, 2, 3]
    (failure,) = (o for o in outcomes if isinstance(o, GopFailure))
    assert (failure.task.spec.index, failure.attempts) == (1, 3)
    assert worker.tries == {0: 1, 1: 3, 2: 2, 3: 1}


def test_a_failed_gop_is_tried_again_alone() -> None:
    worker = ScriptedWorker(poison={1}, flaky=set())
    run(worker, [GopBatch((task(0), task(1), task(2)))])
    assert worker.sizes == [3, 1, 1]


def test_batches_are_taken_only_as_the_window_empties() -> None:
    taken: list[int] = []

    def endless() -> GopBatch:
        taken.append(len(taken))
        return GopBatch((task(len(taken)),))

    executor = LocalExecutor(lambda: ScriptedWorker(set(), set()))
    executor.start()
    dispatch = Dispatch(executor, 1, lambda *_: None)
    for round_ in range(1, 4):
        dispatch.fill(endless)
        assert len(taken) == round_
        assert len(dispatch.collect()) == 1
