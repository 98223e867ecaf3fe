"""What actors claim, and how many fit."""

from __future__ import annotations

from typing import Any

import pytest

from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import Policy, Rule
from s2vc_ray.ray_placement import Placement, Room, place
from s2vc_ray.targets import Budget, Floor

FLOOR = Floor("psnr", 30.0)
TEXT = Rule("text", (("text_density", 0.2),), codec="av1")
UNMEASURED = MetricPolicy.parse("none")


def placed(nodes: list[Room], **options: Any) -> Placement:
    return place(JobConfig(**options), nodes)


@pytest.mark.parametrize(
    ("options", "cpus", "first", "lanes"),
    [
        ({}, 2, 1, 2),
        ({}, 1, 1, 1),
        ({}, 16, 8, 2),
        ({"threads": 4}, 6, 1, 4),
        ({"threads": 4}, 2, 1, 2),
        ({"workers": 5}, 2, 5, 1),
        ({"workers": 2}, 8, 2, 2),
    ],
)
def test_without_gpus_each_core_is_a_lane(options: dict[str, int], cpus: int, first: int, lanes: int) -> None:
    placement = placed([Room(cpus)], **options)
    assert (placement.gpus, placement.first) == (0, first)
    assert placement.lanes == placement.cpus == lanes
    assert placement.batches == lanes + 1
    assert placement.threads == 1


@pytest.mark.parametrize(
    ("nodes", "cpus", "threads", "first"),
    [
        ([Room(16, 4)], 4, 3, 4),
        ([Room(64, 1)], 8, 7, 1),
        ([Room(16), Room(4, 1), Room(8, 1)], 4, 3, 2),
        ([Room(2, 4)], 0.5, 1, 4),
        ([Room(1, 3)], 0.33, 1, 3),
    ],
)
def test_each_gpu_has_an_actor_with_its_share_of_the_poorest_nodes_cores(
    nodes: list[Room], cpus: float, threads: int, first: int
) -> None:
    placement = placed(nodes)
    assert (placement.gpus, placement.cpus, placement.threads) == (1, cpus, threads)
    assert placement.first == placement.capacity(nodes) == first
    assert placement.lanes == 1


def test_no_claim_spans_gpus_and_as_many_fit_as_were_asked_for() -> None:
    for share in range(1, 17):
        nodes = [Room(64, 2), Room(32, 1)]
        placement = placed(nodes, actors_per_gpu=share)
        assert placement.gpus * share <= 1
        assert placement.capacity(nodes) == 3 * share


def test_a_gpu_reads_codes_and_measures_different_batches() -> None:
    assert placed([Room(8, 1)]).batches == 3
    assert placed([Room(8, 1)], metrics=UNMEASURED).batches == 2


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"target": FLOOR}, 5),
        ({"target": FLOOR, "batch": 2}, 7),
        ({"target": FLOOR, "threads": 2}, 4),
        ({"target": FLOOR, "fallback": "none"}, 3),
        ({"target": Budget("bpp", 0.1)}, 3),
        ({"target": FLOOR, "fallback": "none", "policy": Policy(FLOOR, "none", (TEXT,))}, 5),
    ],
)
def test_what_may_fall_back_gives_the_cores_beside_a_gpu_work(options: dict[str, Any], batches: int) -> None:
    placement = placed([Room(8, 1)], metrics=MetricPolicy.parse("sample:4", ("psnr",)), **options)
    assert (placement.batches, placement.lanes) == (batches, 1)


@pytest.mark.parametrize(
    ("options", "first", "low", "high"),
    [
        ({}, 3, 1, None),
        ({"workers": 2}, 2, 2, 2),
        ({"workers": 2, "workers_max": 9}, 2, 2, 9),
        ({"workers_max": 9}, 1, 1, 9),
    ],
)
def test_how_many(options: dict[str, int], first: int, low: int, high: int | None) -> None:
    placement = placed([Room(8, 3)], **options)
    assert (placement.first, placement.low, placement.high) == (first, low, high)


def test_cuda_without_gpus_is_refused_unless_they_are_to_come() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        placed([Room(4)], device="cuda")
    for options in ({"workers": 3}, {"workers_max": 3}):
        placement = placed([Room(4)], device="cuda", **options)
        assert (placement.gpus, placement.cpus) == (1, 2)


def test_a_cpu_job_leaves_gpus_alone() -> None:
    assert placed([Room(16, 4)], device="cpu").gpus == 0
