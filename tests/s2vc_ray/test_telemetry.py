"""The parts together: metrics scraped over HTTP while a job runs, a log beside them, everything closed after."""

from __future__ import annotations

import io
import json
import logging
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from s2vc_ray import counters
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.cost import Prices
from s2vc_ray.errors import ConfigError
from s2vc_ray.job_meter import JobMeter
from s2vc_ray.pool import WorkerPool
from s2vc_ray.prometheus import FAMILIES, MetricsServer
from s2vc_ray.telemetry import Telemetry, TelemetryOptions
from tests import media
from tests.fakes import load_fake
from tests.job_events import ended, failure, gop, tell_job

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_counts", Counter())


def scraped(port: int) -> Figures:
    """Every sample that the server at ``port`` exports, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in scraped_families(port)
        for sample in family.samples
    }


def scraped_families(port: int) -> list[Metric]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def test_a_job_is_scraped() -> None:
    meter = JobMeter()
    tell_job(meter)
    counters.count("s3_retries", 3, reason="SlowDown")
    with MetricsServer(meter, 0) as server:
        figures = scraped(server.port)
    expected = {
        ("s2vc_job_info", (("job_id", "job-1"),)): 1,
        ("s2vc_sources", ()): 3,
        ("s2vc_gops_total", (("how", "coded"),)): 1,
        ("s2vc_gops_total", (("how", "resumed"),)): 1,
        ("s2vc_gop_retries_total", (("error_class", "TimeoutError"),)): 1,
        ("s2vc_gop_failures_total", (("error_class", "BitstreamError"),)): 1,
        ("s2vc_video_errors_total", (("error_class", "SourceError"),)): 1,
        ("s2vc_videos_total", (("status", "skipped"),)): 1,
        ("s2vc_videos_total", (("status", "partial"),)): 0,
        ("s2vc_frames_total", ()): 10,
        ("s2vc_payload_bytes_total", ()): 64,
        ("s2vc_source_bytes_total", ()): 4000,
        ("s2vc_archive_bytes_total", ()): 500,
        ("s2vc_bits_per_pixel", ()): 0.05,
        ("s2vc_stage_depth", (("stage", "queued"),)): 17,
        ("s2vc_window", ()): 6,
        ("s2vc_lanes", ()): 4,
        ("s2vc_batch_seconds_total", (("step", "measure"),)): 1.5,
        ("s2vc_lane_seconds_total", ()): 8.0,
        ("s2vc_busy_seconds_total", ()): 6.0,
        ("s2vc_gpu_utilisation_ratio", (("gpu", "0"), ("host", "node-1"))): 0.91,
        ("s2vc_gpu_memory_bytes", (("gpu", "0"), ("host", "node-1"))): 80 << 30,
        ("s2vc_s3_retries_total", (("reason", "SlowDown"),)): 3,
    }
    assert {key: figures.get(key) for key in expected} == expected
    assert figures["s2vc_driver_process_resident_memory_bytes", ()] > 1 << 20


def test_every_family_is_exported_once_something_is_known() -> None:
    meter = JobMeter()
    tell_job(meter)
    with MetricsServer(meter, 0) as server:
        names = {name for name, _ in scraped(server.port)}
    ours = {name for name in names if not name.startswith("s2vc_driver_")}
    assert ours == {family.exported for family in FAMILIES}


def test_what_is_not_known_has_no_sample() -> None:
    meter = JobMeter()
    meter.started("j", 0)
    with MetricsServer(meter, 0) as server:
        unknown = {name for name, _ in scraped(server.port)}
        meter.pool(WorkerPool(1, 1))
        without_gpus = {name for name, _ in scraped(server.port)}
    assert not {name for name in unknown if "gpu" in name or "worker" in name or "depth" in name}
    assert {"s2vc_bits_per_pixel", "s2vc_sources", "s2vc_encoder_busy_ratio"}.isdisjoint(unknown)
    assert "s2vc_workers" in without_gpus
    assert {"s2vc_gpu_utilisation_ratio", "s2vc_gpu_memory_used_bytes"}.isdisjoint(without_gpus)


def test_a_counter_with_different_labels_is_one_family() -> None:
    counters.count("s3_retries", reason="SlowDown")
    counters.count("s3_retries", 2)
    with MetricsServer(JobMeter(), 0) as server:
        figures = scraped(server.port)
    assert figures["s2vc_s3_retries_total", (("reason", "SlowDown"),)] == 1
    assert figures["s2vc_s3_retries_total", (("reason", ""),)] == 2


def test_counters_only_grow_while_a_job_runs() -> None:
    meter = JobMeter()
    counted = {family.exported for family in FAMILIES if family.exported.endswith("_total")}
    with MetricsServer(meter, 0) as server:
        before: Figures = {}
        for number in range(5):
            meter.planned(f"v{number}", "a", 20, 2, 0.8)
            meter.gop_done(gop(0, f"v{number}"), resumed=False)
            meter.gop_failed(failure(1, video=f"v{number}"), final=bool(number % 2))
            meter.gop_done(gop(1, f"v{number}"), resumed=False)
            meter.video_done(ended(f"{number}"))
            after = scraped(server.port)
            assert {key for key, value in before.items() if key[0] in counted and after[key] < value} == set()
            before = after


def test_a_taken_port_is_refused_and_a_closed_one_is_free() -> None:
    with MetricsServer(JobMeter(), 0) as server, pytest.raises(ConfigError, match=f"127.0.0.1:{server.port}"):
        MetricsServer(JobMeter(), server.port)
    with MetricsServer(JobMeter(), server.port) as again:
        assert again.port == server.port


def test_a_real_job_is_watched_from_all_sides(tmp_path: Path) -> None:
    from s2vc_ray.compress import compress

    media.make_clip(tmp_path / "in.mp4", frames=20)
    media.text_file(tmp_path / "letter.mp4")
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
    )
    err = io.StringIO()
    options = TelemetryOptions(
        log=str(tmp_path / "job.log"), log_level="debug", metrics_port=0, prices=Prices(per_tb_month=1e9)
    )
    with Telemetry(options, Console(file=err, width=200)) as telemetry:
        sources = [str(tmp_path / "in.mp4"), str(tmp_path / "letter.mp4")]
        out = str(tmp_path / "out")
        report = compress(sources, out, config, reporter=telemetry, load_codec=load_fake)
        figures = scraped(telemetry.metrics_port or 0)
    assert figures["s2vc_frames_total", ()] == report.totals.frames == 20
    assert figures["s2vc_archive_bytes_total", ()] == report.totals.archive_bytes
    assert figures["s2vc_videos_total", (("status", "failed"),)] == 1
    told = [json.loads(line) for line in (tmp_path / "job.log").read_text().splitlines()]
    assert [line["gop"] for line in told if line["event"] == "gop_done"] == [0, 1, 2]
    assert told[-1]["event"] == "job_finished"
    summary = telemetry.summary()
    assert (summary.gops, summary.frames, summary.failures) == (3, 20, {"SourceError": 1})
    saved = (report.totals.source_bytes - report.totals.archive_bytes) * 1e-3
    assert summary.cost.saved_per_month == pytest.approx(saved)
    assert "coded 20 frames in 3 GOPs" in err.getvalue()


def test_quiet_and_a_log_on_standard_error_leave_people_out(capsys: pytest.CaptureFixture[str]) -> None:
    paper = io.StringIO()
    for options in (TelemetryOptions(quiet=True), TelemetryOptions(log="-")):
        with Telemetry(options, Console(file=paper)) as telemetry:
            tell_job(telemetry)
            assert telemetry.summary().frames == 10
    assert paper.getvalue() == ""
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()][-1] == "job_finished"


def test_a_job_that_breaks_off_is_logged_and_everything_closed(tmp_path: Path) -> None:
    options = TelemetryOptions(log=str(tmp_path / "a.log"), metrics_port=0)
    telemetry = Telemetry(options, Console(file=io.StringIO()))
    telemetry.started("job-1", 1)
    with pytest.raises(OSError, match="gone"), telemetry:
        raise OSError("the cluster is gone")
    last = json.loads((tmp_path / "a.log").read_text().splitlines()[-1])
    assert (last["event"], last["error_class"]) == ("job_broken_off", "OSError")
    assert not logging.getLogger("s2vc_ray").handlers
    with MetricsServer(JobMeter(), telemetry.metrics_port or 0):
        pass


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    with MetricsServer(JobMeter(), 0) as taken:
        options = TelemetryOptions(log=str(tmp_path / "a.log"), metrics_port=taken.port)
        with pytest.raises(ConfigError, match="cannot be served"):
            Telemetry(options, Console(file=io.StringIO()))
    assert not logging.getLogger("s2vc_ray").handlers


@pytest.mark.parametrize("port", [-1, 65536])
def test_impossible_ports_are_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"metrics port is {port}"):
        TelemetryOptions(metrics_port=port)
