"""One batch in, staged payloads out; every trouble is a value of the GOP it belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import GopBatch, GopFailure, GopTask
from s2vc_ray.probe import probe
from s2vc_ray.split import split
from s2vc_ray.staging import StagedGop, unpack_staged
from s2vc_ray.storage import open_storage
from s2vc_ray.worker import Worker
from tests import media
from tests.fakes import load_fake

CONFIG = JobConfig(model="fake", executor="local", gop=8, metrics=MetricPolicy.parse("none"))


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[GopTask, ...]:
    clip = str(media.make_clip(tmp_path / "a.mp4", frames=20))
    specs = split(probe(clip), source_uri=clip, video_id="v", gop=8)
    return tuple(GopTask(spec, "_s2vc/staging/v/f") for spec in specs)


def worker(tmp_path: Path, config: JobConfig = CONFIG) -> Worker:
    return Worker(str(tmp_path / "out"), config, load_codec=load_fake)


def test_payload_and_measurement_are_one_object(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    result = worker(tmp_path).encode(GopBatch(tasks))
    staged = [gop for gop in result.outcomes if isinstance(gop, StagedGop)]
    assert [gop.frames for gop in staged] == [8, 8, 4]
    storage = open_storage(str(tmp_path / "out"))
    for gop in staged:
        read, payload = unpack_staged(storage.read(gop.key), gop.key)
        assert read == gop
        assert gop.bits_i + gop.bits_p == 8 * len(payload) == 8 * gop.payload_bytes
        assert (gop.verified, gop.metrics) == ("no", ())


def test_measures_what_the_payload_decodes_to(tmp_path: Path, tasks: tuple[GopTask, ...]) -> None:
    config = replace(CONFIG, metrics=MetricPolicy.parse("sample:3", ("psnr",)))
    (gop,) = worker(tmp_path, config).encode(GopBatch(tasks[:1])).outcomes
    assert isinstance(gop, StagedGop)
    assert (gop.verified, gop.metric_policy) == ("decoded", "sample:3")
    (metric,) = gop.metrics
    assert (metric.name, metric.frames) == ("psnr", 3)
    assert 5 < metric.worst <= metric.mean < 60


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


def test_identity_names_the_codec(tmp_path: Path) -> None:
    identity = worker(tmp_path).identity()
    assert (identity.model_id, identity.weights_sha256, identity.device) == ("fake", "fa" * 32, "cpu")
