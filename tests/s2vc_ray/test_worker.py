"""One batch in, staged payloads out; every trouble is a value of the GOP it belongs to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vc_model.bitstream import EncodedGop
from s2vc_model.metrics import MetricResult
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.device_faults import DeviceLost
from s2vc_ray.errors import ConfigError, StoreUnavailable
from s2vc_ray.executor import GopBatch, GopFailure, GopTask
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from s2vc_ray.staging import StagedGop, unpack_staged
from s2vc_ray.storage import open_storage
from s2vc_ray.worker import CodecLoader, Worker
from tests import media
from tests.fakes import FakeCodec, load_fake

CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
)


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[GopTask, ...]:
    return tasks_of(str(media.make_clip(tmp_path / "a.mp4", frames=20)))


def tasks_of(clip: str) -> tuple[GopTask, ...]:
    specs = split(probe(clip), source_uri=clip, video_id="v", gop=8)
    return tuple(GopTask(spec, "_s2vc/staging/v/f") for spec in specs)


def worker(tmp_path: Path, config: JobConfig = CONFIG, load: CodecLoader = load_fake) -> Worker:
    return Worker(str(tmp_path / "out"), config, load_codec=load)


def test_payload_and_measurement_are_one_object(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    result = worker(tmp_path).encode(GopBatch(tasks))
    staged = [gop for gop in result.outcomes if isinstance(gop, StagedGop)]
    assert [gop.frames for gop in staged] == [8, 8, 4]
    storage = open_storage(str(tmp_path / "out"))
    for gop in staged:
        staged = unpack_staged(storage.read(gop.key), gop.key)
        assert staged.gop == gop
        assert gop.bits_i + gop.bits_p == 8 * len(staged.payload) == 8 * gop.payload_bytes
        assert {digest.size for digest in staged.digests} == {64 * 48 * 3 // 2}
        assert len({digest.md5 for digest in staged.digests}) == gop.frames
        assert (gop.verified, gop.metrics) == ("no", ())


def test_measures_what_the_payload_decodes_to(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    config = replace(CONFIG, metrics=MetricPolicy.parse("sample:3", ("psnr",)))
    (gop,) = worker(tmp_path, config).encode(GopBatch(tasks[:1])).outcomes
    assert isinstance(gop, StagedGop)
    assert (gop.verified, gop.metric_policy) == ("decoded", "sample:3")
    (metric,) = gop.metrics
    assert (metric.name, metric.frames) == ("psnr", 3)
    assert 5 < metric.worst <= metric.mean < 60


def test_a_percentile_and_the_worst_frame_are_of_the_gops_own_frames(
    tmp_path: Path, tasks: tuple[GopTask, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(reference: Any, decoded: Any, names: Sequence[str], **_: Any) -> dict[str, MetricResult]:
        return {
            "psnr": MetricResult(30.0, 20.0, (0, 1, 2), np.array([30.0, 20.0, 40.0])),
            # Of pairs of frames; the higher the worse.
            "flicker": MetricResult(3.0, 5.0, (0, 1, 2), np.array([1.0, 5.0])),
        }

    monkeypatch.setattr("s2vc_model.metrics.measure", measured)
    config = replace(CONFIG, metrics=MetricPolicy.parse("sample:3", ("psnr",)))
    (gop,) = worker(tmp_path, config).encode(GopBatch(tasks[:1])).outcomes
    assert isinstance(gop, StagedGop)
    psnr, flicker = gop.metrics
    # Of 8 frames 0, 4 and 7 are measured.
    assert (psnr.worst_frame, psnr.p5) == (4, pytest.approx(21))
    assert (flicker.worst_frame, flicker.p5) == (7, pytest.approx(4.8))


def test_sequence_metrics_see_all_frames_of_a_gop_and_none_of_one_alone(tmp_path: Path) -> None:
    clip = media.make_clip(tmp_path / "nine.mp4", frames=9)
    config = replace(CONFIG, metrics=MetricPolicy.parse("full", ("psnr", "flicker")))
    long, last = worker(tmp_path, config).encode(GopBatch(tasks_of(str(clip)))).outcomes
    assert isinstance(long, StagedGop)
    assert isinstance(last, StagedGop)
    assert [(one.name, one.frames) for one in long.metrics] == [("psnr", 8), ("flicker", 8)]
    assert [(one.name, one.frames) for one in last.metrics] == [("psnr", 1)]


def test_a_staged_gop_is_not_coded_again(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    batch = GopBatch(tasks)
    first = worker(tmp_path).encode(batch)
    refuses = worker(tmp_path, replace(CONFIG, model="fake:fail=8"))
    assert refuses.encode(batch) == first


def test_one_bad_reference_does_not_touch_its_neighbours(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    lost = replace(tasks[1], spec=replace(tasks[1].spec, source_uri=str(tmp_path / "gone.mp4")))
    outcomes = worker(tmp_path).encode(GopBatch((tasks[0], lost, tasks[2]), attempt=2)).outcomes
    assert [type(outcome) for outcome in outcomes] == [StagedGop, GopFailure, StagedGop]
    assert isinstance(outcomes[1], GopFailure)
    assert (outcomes[1].error_class, outcomes[1].attempts) == ("SourceError", 2)
    assert "gone.mp4" in outcomes[1].error


def test_a_codec_error_fails_the_whole_lockstep_batch(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    outcomes = worker(tmp_path, replace(CONFIG, model="fake:fail=4")).encode(GopBatch(tasks)).outcomes
    assert {getattr(outcome, "error_class", None) for outcome in outcomes} == {"BitstreamError"}


def test_an_unusable_model_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'nonsense'"):
        worker(tmp_path, replace(CONFIG, model="nonsense")).identity()


@pytest.mark.parametrize("asked", [{}, {"enlarge": False}, {"refine": 3}, {"enlarge": False, "refine": 64}])
def test_the_codec_is_told_how_to_code(tmp_path: Path, asked: dict[str, Any]) -> None:
    told: list[dict[str, Any]] = []

    def load(model: str, device: str, **options: Any) -> FakeCodec:
        told.append(options)
        return FakeCodec(model, device)

    worker(tmp_path, replace(CONFIG, **asked), load=load).identity()
    assert told == [asked]


def test_identity_names_the_codec(tmp_path: Path) -> None:
    identity = worker(tmp_path).identity()
    assert (identity.model_id, identity.weights_sha256, identity.device) == ("fake", "fa" * 32, "cpu")


def test_a_batch_that_does_not_fit_into_memory_is_cut_in_half(
    tmp_path: Path, tasks: tuple[GopTask, ...]
) -> None:
    codec = FakeCodec("fake:room=1", "cuda")
    one = worker(tmp_path, load=lambda model, device: codec)
    whole = worker(tmp_path / "roomy").encode(GopBatch(tasks))
    cut = one.encode(GopBatch(tasks))
    assert codec.calls == [3, 1, 1, 1]
    assert _bytes(cut) == _bytes(whole)
    one.encode(GopBatch(tuple(replace(task, staging="_s2vc/staging/v/g") for task in tasks)))
    assert codec.calls[4:] == [1, 1, 1]


def test_a_batch_begins_with_as_many_as_the_codec_says(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    codec = FakeCodec("fake:room=2+fits=2", "cuda")
    one = worker(tmp_path, load=lambda model, device: codec)
    whole = worker(tmp_path / "roomy").encode(GopBatch(tasks))
    assert _bytes(one.encode(GopBatch(tasks))) == _bytes(whole)
    assert codec.calls == [2, 1]


def test_a_gop_that_fits_into_no_memory_fails(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    codec = FakeCodec("fake", "cuda")
    codec.encode_gops = _raising(RuntimeError("CUDA error: out of memory"))  # type: ignore[method-assign]
    (outcome,) = worker(tmp_path, load=lambda model, device: codec).encode(GopBatch(tasks[:1])).outcomes
    assert isinstance(outcome, GopFailure)
    assert "out of memory" in outcome.error


def test_a_lost_device_is_nobodys_failure(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    config = replace(CONFIG, model=f"fake:cuda=4:{tmp_path / 'lost'}")
    one = worker(tmp_path, config)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        one.encode(GopBatch(tasks[2:]))
    with pytest.raises(DeviceLost):
        one.encode(GopBatch(tasks[:1]))
    assert worker(tmp_path, config).encode(GopBatch(tasks)).batch.tasks == tasks


@pytest.mark.parametrize("method", ["read", "put"])
def test_a_store_out_of_reach_is_nobodys_failure(
    tmp_path: Path, tasks: tuple[GopTask, ...], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    one = worker(tmp_path)
    monkeypatch.setattr(one._storage, method, _raising(StoreUnavailable("503")))
    with pytest.raises(StoreUnavailable):
        one.encode(GopBatch(tasks))


@pytest.mark.parametrize("overlap", [True, False])
def test_a_gpu_measures_one_batch_while_it_codes_the_next(
    tmp_path: Path, tasks: tuple[GopTask, ...], overlap: bool
) -> None:
    """The first batch's decoding lets go only when a second batch is being coded, or after a while."""
    coding, together = threading.Event(), []

    class Slow(FakeCodec):
        def encode_gops(self, gops: Any, q: Any, larger: bool | None = None) -> list[EncodedGop]:
            if len(self.calls) == 1:
                coding.set()
            return super().encode_gops(gops, q, larger)

        def iter_decode(self, gops: Any) -> Any:
            together.append(coding.wait(20 if overlap else 0.5))
            return super().iter_decode(gops)

    config = replace(CONFIG, metrics=MetricPolicy.parse("sample:1", ("psnr",)))
    one = Worker(
        str(tmp_path / "out"), config, overlap=overlap, load_codec=lambda model, device: Slow(model, device)
    )
    one.identity()
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(one.encode, [GopBatch(tasks[:1]), GopBatch(tasks[1:2])]))
    assert together[0] is overlap
    assert all(isinstance(result.outcomes[0], StagedGop) for result in results)
    usage = one.usage()
    assert 0 < usage.busy <= 1
    assert min(usage.encode_seconds, usage.measure_seconds, usage.source_seconds, usage.stage_seconds) > 0


def _bytes(result: Any) -> list[tuple[str, int]]:
    assert all(isinstance(outcome, StagedGop) for outcome in result.outcomes)
    return [(outcome.payload_sha256, outcome.frames) for outcome in result.outcomes]


def _raising(error: Exception) -> Callable[..., Any]:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise error

    return refuse
