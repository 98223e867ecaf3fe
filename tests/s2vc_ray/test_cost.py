"""Costs and summaries against figures worked out by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict

import pytest

from s2vc_ray.cost import Cost, Prices, cost_of
from s2vc_ray.counters import Sample
from s2vc_ray.errors import ConfigError
from s2vc_ray.job_meter import Counts
from s2vc_ray.summary import sentences, sum_up
from s2vc_ray.usage import Usage

# Four GPUs held for half an hour are two GPU-hours; at 3 an hour they cost 6. They coded 3 hours of video,
# which is 2 an hour. 2 TB became 0.5 TB: at 20 a TB and month that saves 30 a month, and 6 is a fifth of that.
JOB = Counts(
    seconds=1800.0,
    gops_coded=10_000,
    gops_resumed=5,
    frames=270_000,
    pixels=270_000 * 2_000_000,
    payload_bytes=675_000_000,
    video_seconds=3 * 3600.0,
    source_bytes=2_000_000_000_000,
    archive_bytes=500_000_000_000,
    worker_seconds=7200.0,
    gpu_seconds=7200.0,
    usage=Usage(lane_seconds=7200.0, busy_seconds=6480.0),
    retries=Counter(TimeoutError=2),
    failures=Counter(SourceError=3),
)
PRICES = Prices(per_hour=3.0, per_tb_month=20.0)


def test_a_job_on_gpus() -> None:
    assert sum_up(JOB, prices=PRICES).cost == Cost("gpu", 2.0, 6.0, 2.0, 30.0, 0.2)


def test_without_gpus_workers_are_paid() -> None:
    cost = cost_of(
        PRICES,
        worker_seconds=36_000.0,
        gpu_seconds=0.0,
        video_seconds=1800.0,
        source_bytes=1_000_000_000_000,
        archive_bytes=2_000_000_000_000,
    )
    # Ten worker-hours at 3, half an hour of video, and archives that are larger than their sources.
    assert cost == Cost("worker", 10.0, 30.0, 60.0, -20.0, None)


def test_a_share_of_a_gpu_costs_a_share() -> None:
    cost = cost_of(
        Prices(per_hour=4.0),
        worker_seconds=7200.0,
        gpu_seconds=1800.0,
        video_seconds=0.0,
        source_bytes=0,
        archive_bytes=0,
    )
    assert cost == Cost("gpu", 0.5, 2.0, None, None, None)


def test_what_is_not_known_is_not_made_up() -> None:
    nothing = sum_up(Counts(), prices=PRICES)
    assert nothing.cost == Cost()
    assert (nothing.fps, nothing.ratio, nothing.bpp, nothing.encoder_busy, nothing.gpu_hours) == (None,) * 5
    assert sentences(nothing) == []
    assert sum_up(JOB).cost == Cost("gpu", 2.0, None, None, None, None)


def test_figures_of_a_job() -> None:
    summary = sum_up(
        JOB, [Sample("s3_retries", (("reason", "SlowDown"),), 14), Sample("s3_lost_answers", (), 1)]
    )
    assert (summary.fps, summary.times_real_time, summary.video_hours) == (150.0, 6.0, 3.0)
    assert (summary.ratio, summary.bpp) == (4.0, 0.01)
    assert (summary.worker_hours, summary.gpu_hours, summary.encoder_busy) == (2.0, 2.0, 0.9)
    assert summary.retries == {"TimeoutError": 2}
    assert summary.failures == {"SourceError": 3}
    assert summary.counters == {'s3_retries{reason="SlowDown"}': 14, "s3_lost_answers": 1}


def test_every_figure_is_plain_json() -> None:
    fields = json.loads(json.dumps(asdict(sum_up(JOB, prices=PRICES)), allow_nan=False))
    assert fields["cost"]["total"] == 6.0
    assert fields["seconds"] == 1800.0


def test_lines_for_people() -> None:
    assert sentences(sum_up(JOB, [Sample("s3_retries", (), 14)], PRICES)) == [
        "coded 270000 frames in 10000 GOPs at 150.0 fps, 6 times real time (3 h 00 min of video), 0.0100 bpp, "
        "sources to archives 4 : 1; 5 GOPs were staged already",
        "held 2 worker-hours and 2 GPU-hours, encoder busy 90 %",
        "GOPs tried again: TimeoutError 2",
        "counted on the way: s3_retries 14",
        "sources with an error: SourceError 3",
        "cost 6 for 2 GPU-hours; 2 per hour of video; archives in place of sources save 1.5 TB, 30 a month; "
        "repaid in 0.2 months",
    ]


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["per_hour", "per_tb_month"])
def test_nonsense_prices_are_refused(name: str, price: float) -> None:
    with pytest.raises(ConfigError, match="not negative"):
        Prices(**{name: price})


def test_a_price_of_nought_is_a_price() -> None:
    cost = sum_up(JOB, prices=Prices(per_hour=0.0, per_tb_month=0.0)).cost
    assert (cost.total, cost.per_video_hour, cost.saved_per_month, cost.months_to_repay) == (
        0.0,
        0.0,
        0.0,
        None,
    )
