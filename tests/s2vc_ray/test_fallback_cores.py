"""GOPs that fall back are coded on the cores beside a GPU while it codes others; on CPUs they take their turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import ModelError
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.fallback import encode_av1
from s2vc_ray.fallback_cores import FallbackCores
from s2vc_ray.lanes import CodedGop, Lanes
from s2vc_ray.targets import Floor, Goal
from s2vc_ray.usage import Meter
from tests.fakes import STEP, FakeCodec, load_fake
from tests.media import pictures

Frames = npt.NDArray[np.uint8]
SECONDS = 20.0
"""More than anything here takes."""
FLOOR = Floor("psnr", 30.0)
GOAL = Goal(FLOOR, None)
CONFIG = JobConfig(model="fake", gop=4, metrics=MetricPolicy.parse("sample:2", ("psnr",)), target=FLOOR)
MISSES = np.ascontiguousarray(pictures(4, 64, 48))
HOLDS = np.random.default_rng(1).integers(60, 190, (4, 6, 8, 3), np.uint8).repeat(STEP, 1).repeat(STEP, 2)


def lanes_of(*, overlap: bool, threads: int = 1, model: str = "fake", codec: Any = None) -> Lanes:
    return Lanes(
        JobConfig(model=model, gop=4, metrics=CONFIG.metrics, target=FLOOR),
        1,
        overlap,
        (lambda model, device: codec) if codec else load_fake,
        Meter(1),
        threads,
    )


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Frames, int], Av1Gop]], None]:
    """What codes AV1 in its place."""
    return lambda function: monkeypatch.setattr("s2vc_ray.fallback_cores.encode_av1", function)


def codecs(found: list[CodedGop]) -> list[tuple[str, bool | None]]:
    return [(one.codec, one.target_met) for one in found]


def test_a_gpu_codes_other_batches_while_one_falls_back(instead: Any) -> None:
    log: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(frames: Frames, crf: int) -> Av1Gop:
        log.append("av1 begins")
        begun.set()
        assert go_on.wait(SECONDS)
        log.append("av1 ends")
        return encode_av1(frames, crf)

    instead(slow)
    lanes = lanes_of(overlap=True)
    with ThreadPoolExecutor(2) as threads:
        falls = threads.submit(lanes.code, [MISSES], [GOAL])
        assert begun.wait(SECONDS)
        held = threads.submit(lanes.code, [HOLDS, HOLDS], [GOAL, GOAL])
        try:
            assert codecs(held.result(SECONDS / 2)) == [("s2vc", True)] * 2
            log.append("others are done")
        finally:
            go_on.set()
        assert codecs(falls.result(SECONDS)) == [("av1", True)]
    assert log[:3] == ["av1 begins", "others are done", "av1 ends"]


def test_on_a_cpu_what_falls_back_has_the_lane(instead: Any) -> None:
    coding = threading.Event()
    second = threading.Event()
    alone: list[bool] = []

    class Watched(FakeCodec):
        def encode_gops(self, gops: Any, q: Any, larger: bool | None = None) -> list[EncodedGop]:
            if second.is_set():
                coding.set()
            return super().encode_gops(gops, q, larger)

    def slow(frames: Frames, crf: int) -> Av1Gop:
        second.set()
        alone.append(not coding.wait(0.3))
        return encode_av1(frames, crf)

    instead(slow)
    lanes = lanes_of(overlap=False, codec=Watched("fake", "cpu"))
    with ThreadPoolExecutor(2) as threads:
        falls = threads.submit(lanes.code, [MISSES], [GOAL])
        assert second.wait(SECONDS)
        held = threads.submit(lanes.code, [HOLDS], [GOAL])
        assert codecs(falls.result(SECONDS) + held.result(SECONDS)) == [("av1", True), ("s2vc", True)]
    assert alone[0]


def test_what_is_stored_does_not_depend_on_where_it_is_coded() -> None:
    def stored(lanes: Lanes) -> list[tuple[str, bytes, int, float | None]]:
        found = lanes.code([MISSES, HOLDS, MISSES[::-1].copy()], [GOAL] * 3)
        return [(one.codec, one.payload, one.probes, one.target_value) for one in found]

    in_lane = stored(lanes_of(overlap=False))
    assert [codec for codec, *_ in in_lane] == ["av1", "s2vc", "av1"]
    assert stored(lanes_of(overlap=True, threads=2)) == in_lane
    # Memory that has run out puts the measuring into the lane.
    assert stored(lanes_of(overlap=True, threads=2, model="fake:room=1")) == in_lane


def test_a_failure_leaves_lane_and_cores_to_others(instead: Any) -> None:
    def refuse(frames: Frames, crf: int) -> Av1Gop:
        raise ModelError("SVT-AV1 failed")

    instead(refuse)
    lanes = lanes_of(overlap=True)
    for _ in range(2):
        with pytest.raises(ModelError, match="SVT-AV1 failed"):
            lanes.code([MISSES, MISSES], [GOAL, GOAL])
    instead(encode_av1)
    assert codecs(lanes.code([HOLDS, MISSES], [GOAL, GOAL])) == [("s2vc", True), ("av1", True)]


@pytest.mark.parametrize("overlap", [True, False])
def test_only_on_cpus_is_a_lane_busy_with_what_falls_back(instead: Any, overlap: bool) -> None:
    lanes = lanes_of(overlap=overlap)
    grows: set[bool] = set()

    def watched(frames: Frames, crf: int) -> Av1Gop:
        before = lanes._meter.usage().busy_seconds
        found = encode_av1(frames, crf)
        grows.add(lanes._meter.usage().busy_seconds > before)
        return found

    instead(watched)
    lanes.code([MISSES], [GOAL])
    assert grows == {not overlap}
    assert lanes._meter.usage().fallback_seconds > 0


@pytest.mark.parametrize("cores", [1, 2])
def test_as_many_at_once_as_there_are_cores(instead: Any, cores: int) -> None:
    together = threading.Barrier(2)

    def meet(frames: Frames, crf: int) -> Av1Gop:
        together.wait(SECONDS if cores > 1 else 0.3)
        return encode_av1(frames, crf)

    instead(meet)
    wishes = [(MISSES, 40), (MISSES, 50), (MISSES, 60), (MISSES, 30)]
    if cores == 1:
        with pytest.raises(threading.BrokenBarrierError):
            FallbackCores(cores).code(wishes)
    else:
        found = FallbackCores(cores).code(wishes)
        assert [gop.q for gop, _ in found] == [40, 50, 60, 30]
        assert all(seconds > 0 for _, seconds in found)


def test_memory_bounds_how_many_there_are_and_large_ones_get_their_turn(instead: Any) -> None:
    order: list[int] = []
    begun = {crf: threading.Event() for crf in (1, 2, 3)}
    go_on = threading.Event()

    def slow(frames: Frames, crf: int) -> Av1Gop:
        order.append(crf)
        begun[crf].set()
        assert go_on.wait(SECONDS)
        return encode_av1(frames[:1, :48, :64], crf)

    instead(slow)
    small, large = MISSES, np.zeros((1, 720, 1280, 3), np.uint8)
    cores = FallbackCores(3, memory=400 << 20)
    with ThreadPoolExecutor(3) as threads:
        done = []
        for crf, frames in ((1, small), (2, large), (3, small)):
            done.append(threads.submit(cores.code, [(frames, crf)]))
            # The large one takes more than what is left; the last would fit, and does not pass it.
            assert begun[crf].wait(SECONDS if crf == 1 else 0.3) is (crf == 1)
        go_on.set()
        assert [one.result(SECONDS)[0][0].q for one in done] == [1, 2, 3]
    assert order == [1, 2, 3]
