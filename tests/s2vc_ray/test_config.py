"""Options are checked once, and only what decides bytes enters the hash."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from s2vc_ray.config import JobConfig, MetricPolicy, parse_workers
from s2vc_ray.errors import ConfigError
from s2vc_ray.targets import Budget, Floor, Goal


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gop", 0),
        ("gop", 1025),
        ("quality", -1),
        ("quality", 64),
        ("workers", -1),
        ("workers_max", -1),
        ("actors_per_gpu", 0),
        ("placement", "anywhere"),
        ("batch", -1),
        ("threads", -1),
        ("attempts", 0),
        ("device", "tpu"),
        ("executor", "spark"),
        ("model", ""),
        ("fallback", "vvc"),
        ("fallback", "smaller"),
    ],
)
def test_bad_option_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        JobConfig(**{field: value})  # type: ignore[arg-type]


def test_ray_address_needs_ray() -> None:
    with pytest.raises(ConfigError, match="ray address"):
        JobConfig(executor="local", ray_address="auto")


def test_the_most_workers_are_no_fewer_than_the_least() -> None:
    assert JobConfig(workers=2, workers_max=2).workers_max == 2
    with pytest.raises(ConfigError, match="MIN <= MAX"):
        JobConfig(workers=3, workers_max=2)


@pytest.mark.parametrize(
    ("text", "least", "most"), [("0", 0, 0), ("4", 4, 0), ("2:16", 2, 16), ("0:8", 0, 8), ("3:3", 3, 3)]
)
def test_workers_are_a_number_or_a_range(text: str, least: int, most: int) -> None:
    assert parse_workers(text) == (least, most)


@pytest.mark.parametrize("text", ["", ":", "2:", ":2", "-1", "1:2:3", "a", "1:0", "²"])
def test_bad_workers(text: str) -> None:
    with pytest.raises(ConfigError, match="workers"):
        parse_workers(text)


@pytest.mark.parametrize("text", ["none", "sample:1", "sample:12", "full"])
def test_metric_policy_round_trip(text: str) -> None:
    assert str(MetricPolicy.parse(text)) == text


@pytest.mark.parametrize("text", ["", "sample", "sample:0", "sample:-1", "sample:x", "all", "sample:²"])
def test_bad_metric_policy(text: str) -> None:
    with pytest.raises(ConfigError):
        MetricPolicy.parse(text)


def test_metrics_of_consecutive_frames_take_all_of_them() -> None:
    assert MetricPolicy.parse("full", ("vmaf", "dists", "flicker")).names == ("vmaf", "dists", "flicker")
    assert MetricPolicy.parse("sample:4", ("dists",)).enabled
    with pytest.raises(
        ConfigError, match=r"vmaf_neg needs consecutive frames: give --metrics full, not sample:4"
    ):
        MetricPolicy.parse("sample:4", ("psnr", "vmaf_neg"))
    with pytest.raises(ConfigError, match=r"cvvdp.*bench quality"):
        MetricPolicy.parse("full", ("cvvdp",))


def test_unknown_metric_name() -> None:
    with pytest.raises(ConfigError, match="fid"):
        MetricPolicy(names=("psnr", "fid"))


@pytest.mark.parametrize(
    "change",
    [
        {"gop": 16},
        {"quality": 1},
        {"passthrough": False},
        {"scene_cuts": False},
        {"deinterlace": True},
        {"enlarge": False},
        {"refine": 3},
    ],
)
def test_hash_changes_with_what_decides_bytes(change: dict[str, Any]) -> None:
    assert dataclasses.replace(JobConfig(), **change).config_hash("w") != JobConfig().config_hash("w")


def test_hash_of_what_was_always_possible_stays() -> None:
    """Else every destination's videos would look unknown to the next version."""
    assert JobConfig(scene_cuts=False).config_hash("w") == "c9bf4bead345c73c"
    both = (False, True)
    assert len({JobConfig(scene_cuts=a, deinterlace=b).config_hash("w") for a in both for b in both}) == 4


def test_hash_ignores_what_does_not_decide_bytes() -> None:
    other = JobConfig(
        workers=7,
        workers_max=9,
        actors_per_gpu=2,
        placement="pack",
        batch=1,
        threads=3,
        attempts=9,
        device="cpu",
        metrics=MetricPolicy.parse("none"),
        allow_larger=True,
    )
    assert other.config_hash("w") == JobConfig().config_hash("w")
    assert JobConfig().config_hash("w") != JobConfig().config_hash("v")


def test_a_target_decides_bytes_and_a_floor_by_the_frames_it_is_measured_on() -> None:
    plain = JobConfig(metrics=MetricPolicy.parse("full"))
    floor = dataclasses.replace(plain, target=Floor("lpips_alex", 0.15))
    asked = [
        plain,
        floor,
        dataclasses.replace(floor, target=Floor("lpips_alex", 0.15, "mean")),
        dataclasses.replace(floor, target=Floor("lpips_alex", 0.16)),
        dataclasses.replace(floor, target=Floor("lpips_alex", 0.15, max_bpp=0.1)),
        dataclasses.replace(floor, metrics=MetricPolicy.parse("sample:4")),
        dataclasses.replace(floor, quality=63),
        dataclasses.replace(floor, fallback="none"),
        dataclasses.replace(floor, fallback="smaller"),
        *(dataclasses.replace(plain, target=Budget(kind, 0.5)) for kind in ("bpp", "ratio")),
    ]
    assert len({one.config_hash("w") for one in asked}) == len(asked)
    others = MetricPolicy.parse("full", ("lpips_alex", "vmaf"))
    assert dataclasses.replace(floor, metrics=others).config_hash("w") == floor.config_hash("w")
    assert floor.target_text == "lpips_alex:worst=0.15 of=full"
    assert (
        dataclasses.replace(floor, fallback="none").target_text
        == "lpips_alex:worst=0.15 of=full fallback=none"
    )
    budget = dataclasses.replace(plain, target=Budget("bpp", 0.5))
    unmeasured = dataclasses.replace(budget, metrics=MetricPolicy.parse("none"))
    assert unmeasured.config_hash("w") == budget.config_hash("w")


def test_a_floor_must_be_measured() -> None:
    for policy in (MetricPolicy.parse("none"), MetricPolicy.parse("full", ("psnr",))):
        with pytest.raises(ConfigError, match="measure lpips_alex"):
            JobConfig(target=Floor("lpips_alex", 0.15), metrics=policy)


def test_goals_come_from_the_target() -> None:
    assert JobConfig().goal() is None
    floor = Floor("lpips_alex", 0.15, max_bpp=0.1)
    assert JobConfig(target=floor, quality=60).goal() == Goal(floor, 0.1, 60, 4)
    assert JobConfig(target=Budget("bpp", 0.2)).goal() == Goal(None, 0.2, 56, 4)
    assert JobConfig(target=Budget("size", 700)).goal(0.3) == Goal(None, 0.3, 56, 4)
    with pytest.raises(ValueError, match="needs"):
        JobConfig(target=Budget("size", 700)).goal()


def test_json_is_whole() -> None:
    written = json.loads(JobConfig().to_json())
    assert {field.name for field in dataclasses.fields(JobConfig)} <= set(written)
    assert (written["metrics"], written["target"]) == ("sample:4", None)
    written = json.loads(JobConfig(target=Floor("lpips_alex", 0.15)).to_json())
    assert written["target"] == "lpips_alex:worst=0.15 of=sample:4"


@pytest.mark.parametrize(
    ("batch", "device", "size"), [(0, "cpu", 1), (0, "cuda", 4), (0, "cuda:1", 4), (7, "cpu", 7)]
)
def test_batches_are_small_on_a_cpu_unless_told_otherwise(batch: int, device: str, size: int) -> None:
    assert JobConfig(batch=batch).batch_on(device) == size
